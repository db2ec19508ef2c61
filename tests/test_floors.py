"""Imports point down only (pipelines -> index -> encoders); heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

FLOORS = ("encoders", "index", "pipelines")  # lowest first
SOURCES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
WITH_BENCHMARKS = [*SOURCES, *sorted((ROOT / "benchmarks").rglob("*.py"))]

TRAINING_ROOMS = tuple(
    f"encoders/{room}"
    for room in (
        "siamese",
        "detector_network",
        "losses",
        "vae",
        "training",
        "recipes",
        "export",
        "warm_start",
    )
)
ROOMS = {
    "apache_beam": ("pipelines/",),
    "faiss": ("index/",),
    "tensorflow": TRAINING_ROOMS,
    "keras": TRAINING_ROOMS,
    "librosa": (),
    # Files on disk must outlive the code that wrote them and be safe to open.
    "pickle": (),
    "cloudpickle": (),
    "dill": (),
    "joblib": (),
    "shelve": (),
}


def imported_modules(source: str, package: str = "") -> list[str]:
    """Every module that ``source`` imports anywhere, in functions too."""
    modules = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            modules.append(".".join([*parents, node.module or ""]).rstrip("."))
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            argument = node.args[0]
            if name in {"import_module", "__import__"} and isinstance(argument, ast.Constant):
                modules.append(str(argument.value))
    return modules


def violations(source: str, path: str) -> list[str]:
    """What a file at ``path`` (relative to the repository, ``/``) imports or loads and must not."""
    package = ".".join(Path(path).parent.parts)
    floor = path.split("/")[0]
    found = []
    for module in imported_modules(source, package):
        top = module.split(".")[0]
        if floor in FLOORS and top in FLOORS[FLOORS.index(floor) + 1 :]:
            found.append(f"{floor} imports {module}, a floor above")
        rooms = ROOMS.get(top)
        if rooms is not None and not path.startswith(rooms):
            found.append(f"imports {module}")
    keywords = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.keyword)]
    for keyword in keywords:
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
            found.append("allow_pickle")
    return found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("encoders/a.py", "import index.schema"),
        ("encoders/a.py", "def f():\n    from pipelines import cli"),
        ("index/a.py", "from pipelines.cli import main"),
        ("index/a.py", "from ..pipelines import cli"),
        ("index/a.py", "import apache_beam as beam"),
        ("encoders/a.py", "import faiss"),
        ("pipelines/a.py", "import faiss"),
        ("pipelines/a.py", "import importlib\nimportlib.import_module('tensorflow.keras')"),
        ("encoders/bundle.py", "def f():\n    import keras"),
        ("encoders/a.py", "from librosa.feature import mfcc"),
        ("pipelines/a.py", "import pickle"),
        ("index/a.py", "import numpy as np\nnp.load('x', allow_pickle=True)"),
    ],
)
def test_a_violation_is_found(path: str, source: str) -> None:
    assert violations(source, path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("pipelines/a.py", "import apache_beam\nimport index.catalog\nimport encoders.audio"),
        ("index/a.py", "import faiss\nfrom encoders import features\nfrom . import schema"),
        ("encoders/siamese.py", "def f():\n    import tensorflow"),
        ("index/a.py", "import numpy as np\nnp.load('x', allow_pickle=False)"),
    ],
)
def test_what_is_allowed_is_no_violation(path: str, source: str) -> None:
    assert not violations(source, path)


def test_every_floor_has_sources() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(FLOORS)


@pytest.mark.parametrize("path", WITH_BENCHMARKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_floors_hold(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    source = path.read_text(encoding="utf-8")
    found = violations(source, relative)
    if relative.startswith("benchmarks/"):  # These may use any public package, but no pickles.
        found = [line for line in found if "pickle" in line or "joblib" in line]
    assert not found


@pytest.mark.parametrize("path", WITH_BENCHMARKS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_stays_readable(path: Path) -> None:
    n_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert n_lines < 400, f"{n_lines} lines: make it a folder of the same name"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        pytest.param(
            ["pipelines.cli"],
            {"tensorflow", "librosa", "apache_beam", "matplotlib", "faiss"},
            id="command",
        ),
        pytest.param(
            [module_name(path) for path in SOURCES if path.is_relative_to(ROOT / "encoders")],
            {"tensorflow", "librosa", "apache_beam", "matplotlib", "faiss"},
            id="encoders",
        ),
        pytest.param(
            [module_name(path) for path in SOURCES if path.is_relative_to(ROOT / "index")],
            {"tensorflow", "librosa", "apache_beam", "matplotlib"},
            id="index",
        ),
        pytest.param(
            [module_name(path) for path in SOURCES if path.is_relative_to(ROOT / "pipelines")],
            {"tensorflow", "librosa"},
            id="pipelines",
        ),
    ],
)
def test_import_is_light(modules: list[str], absent: set[str]) -> None:
    program = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(*sorted({absent!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
