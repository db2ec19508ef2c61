from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ingest_helpers import VAE, run

from pipelines.cli import main

KEYS = [
    "query", "rank", "reference", "recording_id", "onset_s", "offset_s", "label", "score",
]  # fmt: skip


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    folder = tmp_path_factory.mktemp("similar") / "catalog"
    run([demo_tracks / "palace.ogg", demo_tracks / "musicbox.mp3"], folder)
    return folder


def similar(
    capsys: pytest.CaptureFixture[str], catalog: Path, *arguments: str | Path
) -> tuple[int, list[dict[str, Any]], str]:
    """As JSON lines, with the tiny encoder: exit code, lines, standard error."""
    options = ["--encoder", "vae", "--bundle", VAE, "--format", "jsonl"]
    with pytest.raises(SystemExit) as exited:
        main(["similar", str(catalog), *map(str, arguments), *options])
    captured = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_json_lines(capsys: pytest.CaptureFixture[str], catalog: Path, demo_tracks: Path) -> None:
    clip = demo_tracks / "palace.ogg"
    code, lines, _ = similar(capsys, catalog, clip, "--start", "12", "--end", "13")
    assert code == 0
    assert [line["rank"] for line in lines] == [1, 2]
    for line in lines:
        assert list(line) == KEYS
        assert line["query"] == str(clip)
        assert 0 <= line["score"] <= 1
        assert 0 <= line["onset_s"] < line["offset_s"]
        assert line["label"] is None
    assert lines[0]["reference"] == str(clip)


def test_a_catalog_without_sound_has_nothing_similar(
    capsys: pytest.CaptureFixture[str], demo_tracks: Path, tmp_path: Path
) -> None:
    (tmp_path / "junk.wav").write_text("no sound")
    run([tmp_path / "junk.wav"], tmp_path / "catalog")
    code, lines, told = similar(capsys, tmp_path / "catalog", demo_tracks / "palace.ogg")
    assert "Traceback" not in told
    assert (code, lines) == (0, [])


def test_a_clip_that_cannot_be_read_is_told_and_the_others_are_looked_up(
    capsys: pytest.CaptureFixture[str], catalog: Path, demo_tracks: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    code, lines, told = similar(capsys, catalog, tmp_path / "bad.wav", demo_tracks / "palace.ogg")
    assert code == 1
    assert "bad.wav: " in told
    assert {line["query"] for line in lines} == {str(demo_tracks / "palace.ogg")}


def test_a_table_for_people(
    capsys: pytest.CaptureFixture[str], catalog: Path, demo_tracks: Path
) -> None:
    with pytest.raises(SystemExit):
        main(
            ["similar", str(catalog), str(demo_tracks / "palace.ogg"), "--encoder", "vae",
             "--bundle", VAE, "--end", "2"]
        )  # fmt: skip
    assert "musicbox.mp3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"), [("species", "KEY=VALUE"), ("species=dog", "known: uri")]
)
def test_a_filter_that_means_nothing_is_told(
    capsys: pytest.CaptureFixture[str], catalog: Path, demo_tracks: Path, option: str, message: str
) -> None:
    code, _, told = similar(capsys, catalog, demo_tracks / "palace.ogg", "--where", option)
    assert code == 2
    assert message in told
