"""The README tells the truth: its commands and its Python run, in its order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# What CI and the Makefile do themselves.
SET_UP = {"make demo", "pip install ."}


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """A folder with the clip that the README names, and a home with some music."""
    home = tmp_path_factory.mktemp("newcomer")
    (home / "Music").mkdir()
    for name in ("eureka.m4a", "palace.ogg", "musicbox.mp3"):
        shutil.copy(demo_tracks / name, home / "Music" / name)
    shutil.copy(demo_tracks / "eureka.m4a", home / "clip.m4a")
    run("earmark demo", home)
    return home


def run(command: str, home: Path) -> str:
    """Run an ``earmark`` command as a person would; gives what it prints."""
    words = [word.replace("~", str(home)) for word in shlex.split(command)]
    assert words[0] == "earmark"
    code = "import sys; from pipelines.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words[1:]],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("earmark")])
def test_command_runs(command: str, newcomer: Path) -> None:
    assert run(command, newcomer)


def test_every_command_is_known() -> None:
    others = {c for c in COMMANDS if not c.startswith("earmark")} - SET_UP
    assert len(COMMANDS) > len(SET_UP)
    assert all(c.startswith("python benchmarks/") for c in others)
    for command in others:
        assert (ROOT / shlex.split(command)[1]).is_file()


def test_make_demo_runs_the_demo() -> None:
    recipe = subprocess.run(
        ["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "bin/earmark demo" in recipe.stdout


def test_python_runs(
    newcomer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(newcomer)
    assert len(PYTHON) == 2
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "palace.ogg" in printed
    assert "fixed_size_list" in printed


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
