"""``earmark events`` on real sounds: drums in a restaurant."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SAMPLE_RATE
from sounds_helpers import SOUNDS, write_archive, write_recording

from index.catalog import Catalog
from index.event_model import EventModel
from pipelines import detect_events
from pipelines.cli import main
from pipelines.ingest import IngestOptions, ingest
from pipelines.progress import RunState

KEYS = [
    "query", "rank", "reference", "recording_id", "onset_s", "offset_s", "label", "score",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Archive:
    """A catalog of five recordings, and what is in them; three of them are labelled."""

    catalog: Path
    recordings: Path
    labels: Path
    truth: dict[str, list[tuple[float, float, str]]]


@pytest.fixture(scope="module")
def ambience(demo_tracks: Path) -> np.ndarray:
    samples, rate = soundfile.read(demo_tracks / "restaurant.ogg", dtype="float32", always_2d=True)
    return np.resize(soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE), 100 * SAMPLE_RATE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, ambience: np.ndarray) -> Archive:
    home = tmp_path_factory.mktemp("archive")
    truth = write_archive(home / "recordings", ambience)
    labels = home / "labels.csv"
    with labels.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["uri", "onset", "offset", "label"])
        for name in sorted(truth)[:3]:
            out.writerows([name, *event] for event in truth[name] if event[2] in ("kick", "snare"))
    ingest([str(home / "recordings")], home / "catalog", IngestOptions(build_index=False))
    found = Archive(home / "catalog", home / "recordings", labels, truth)
    with pytest.raises(SystemExit) as exited:
        main(["events", "learn", str(found.catalog), "--labels", str(labels)])
    assert exited.value.code == 0
    return found


def events(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run ``earmark events`` here: exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as exited:
        main(["events", *map(str, arguments)])
    told = capsys.readouterr()
    assert isinstance(exited.value.code, int)
    return exited.value.code, told.out, told.err


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def hits(lines: list[dict[str, Any]], truth: list[tuple[float, float, str]]) -> int:
    """Events that overlap one of their kind."""
    return sum(
        any(
            kind == line["label"] and on < line["offset_s"] and off > line["onset_s"]
            for on, off, kind in truth
        )
        for line in lines
    )


def test_find_lists_events_of_one_kind(
    capsys: pytest.CaptureFixture[str], archive: Archive
) -> None:
    code, out, _ = events(
        capsys, "find", archive.catalog, "--label", "kick", "--min-score", "0.3", "--format",
        "jsonl",
    )  # fmt: skip
    lines = json_lines(out)
    assert code == 0
    assert len(lines) >= 5
    assert [line["rank"] for line in lines] == list(range(1, len(lines) + 1))
    for line in lines:
        assert list(line) == KEYS
        assert line["label"] == line["query"] == "kick"
        assert 0.3 <= line["score"] <= 1
    right = sum(hits([line], archive.truth[Path(line["reference"]).name]) for line in lines)
    assert right > 0.6 * len(lines)


def test_the_detector_that_ships_needs_no_catalog(
    capsys: pytest.CaptureFixture[str], archive: Archive, tmp_path: Path
) -> None:
    clip = archive.recordings / "evening-5.wav"
    code, out, _ = events(capsys, "detect", clip, "--format", "jsonl", "--classes", "kick,snare")
    lines = json_lines(out)
    assert code == 0
    assert [list(line) for line in lines] == [KEYS] * len(lines)
    assert {line["label"] for line in lines} <= {"kick", "snare"}
    truth = [e for e in archive.truth["evening-5.wav"] if e[2] in ("kick", "snare")]
    assert hits(lines, truth) >= 0.6 * len(lines)
    assert len(lines) >= 0.4 * len(truth)
    # A catalog that has learned nothing asks it too.
    bare = tmp_path / "bare"
    shutil.copytree(archive.catalog, bare, ignore=shutil.ignore_patterns("events"))
    ask = ("--format", "jsonl", "--classes", "kick,snare")
    assert events(capsys, "detect", bare, clip, *ask)[1] == out
    code, _, told = events(capsys, "detect", clip, "--classes", "dragon")
    assert code == 2
    assert "knows no 'dragon', only " in told


def test_detect_gives_exact_times_in_a_clip(
    capsys: pytest.CaptureFixture[str], archive: Archive, tmp_path: Path
) -> None:
    clip = archive.recordings / "evening-5.wav"
    code, out, _ = events(
        capsys, "detect", archive.catalog, clip, "--format", "jsonl",
        "--plot", tmp_path / "timeline.png",
    )  # fmt: skip
    lines = json_lines(out)
    assert code == 0
    assert (tmp_path / "timeline.png").read_bytes()[:4] == b"\x89PNG"
    assert len(lines) >= 2
    assert hits(lines, archive.truth["evening-5.wav"]) > 0.6 * len(lines)
    truth = [on for on, _, kind in archive.truth["evening-5.wav"] if kind in ("kick", "snare")]
    near = [min(abs(line["onset_s"] - on) for on in truth) <= 0.2 for line in lines]
    assert sum(near) > 0.6 * len(near)
    scores = [line["score"] for line in lines]
    assert scores == sorted(scores, reverse=True)


def test_an_unknown_sound_gets_no_label(
    capsys: pytest.CaptureFixture[str], archive: Archive, ambience: np.ndarray, tmp_path: Path
) -> None:
    placed = [("bell/elec_bell", 2.0), ("bell/elec_ping", 5.0), ("other/ambi_soft_buzz", 8.0)]
    strange = write_recording(tmp_path / "strange.wav", placed, ambience[: 10 * SAMPLE_RATE].copy())
    _, out, _ = events(
        capsys, "detect", archive.catalog, tmp_path / "strange.wav", "--format", "jsonl"
    )
    for line in json_lines(out):
        assert not [s for s in strange if s[0] < line["offset_s"] and s[1] > line["onset_s"]]


def test_a_whole_catalog_in_every_format(
    capsys: pytest.CaptureFixture[str], archive: Archive, tmp_path: Path
) -> None:
    ask = ["detect", archive.catalog, "--min-score", "0.3"]
    _, out, _ = events(capsys, *ask, "--format", "jsonl")
    lines = json_lines(out)
    assert lines
    assert {line["query"] for line in lines} == {line["reference"] for line in lines}
    code, _, _ = events(capsys, *ask, "--out", tmp_path / "events.csv")
    assert code == 0
    with (tmp_path / "events.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row["onset"]) for row in rows) == sorted(x["onset_s"] for x in lines)
    # What was written can be learned from.
    code, _, _ = events(
        capsys, "learn", archive.catalog, "--labels", tmp_path / "events.csv", "--model", "again"
    )
    assert code == 0
    events(capsys, *ask, "--out", tmp_path / "tracks", "--format", "audacity")
    tracks = sorted((tmp_path / "tracks").iterdir())
    assert {track.stem for track in tracks} == {Path(x["reference"]).stem for x in lines}
    onset, offset, label = tracks[0].read_text().splitlines()[0].split("\t")
    assert 0 <= float(onset) < float(offset)
    assert label in ("kick", "snare")
    events(capsys, *ask, "--out", tmp_path / "events.rttm")
    fields = (tmp_path / "events.rttm").read_text().splitlines()[0].split(" ")
    assert len(fields) == 10
    assert fields[:3] == ["SPEAKER", "evening-1", "1"]
    assert not list((archive.catalog / "events").glob(".detected-*"))


def test_a_run_that_was_stopped_goes_on(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = list(detect_events.catalog_parts(Catalog.open(archive.catalog)))
    assert len(parts) > 3
    model = archive.catalog / "events" / "default"
    job = detect_events.DetectJob(str(archive.catalog), str(model), str(tmp_path), 0.3)
    done: list[str] = []
    detect = detect_events.detect_part

    def counted(*arguments: Any) -> Any:
        done.append(arguments[2].name)
        return detect(*arguments)

    monkeypatch.setattr(detect_events, "detect_part", counted)
    for part in parts[:2]:
        job.process(part, RunState())
    for part in parts:
        job.process(part, RunState())
    assert done == [part.name for part in parts]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(done)


def test_review_asks_and_learns(
    capsys: pytest.CaptureFixture[str], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ["--label", "kick", "--model", "judged"]
    events(capsys, "learn", archive.catalog, "--labels", archive.labels, "--model", "judged")
    model = archive.catalog / "events" / "judged"
    before = EventModel.load(model).select(["kick"]).classes[0].n_examples
    answers = iter(["y", "n", "s", "y", "q"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    code, out, _ = events(capsys, "review", archive.catalog, *ask)
    assert code == 0
    assert "Learned from 3 judgements, 2 yes and 1 no" in out
    assert EventModel.load(model).select(["kick"]).classes[0].n_examples == before + 2
    # What was judged is not proposed again.
    lines = [line.split("] ")[1] for line in out.splitlines() if line.startswith("[")]
    # Recording and time: two recordings may be asked about at one time.
    shown = {tuple(line.split("  ")[:2]) for line in lines}
    answers = iter(["q"])
    _, again, _ = events(capsys, "review", archive.catalog, *ask)
    assert "Nothing was judged" in again
    assert len(shown) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["find", "CATALOG", "--label", "wolf"], "knows no 'wolf', only kick, snare"),
        (["find", "CATALOG", "--label", "kick", "--model", "none"], "no event model"),
        (["learn", "CATALOG", "--labels", "none.csv"], "cannot read the labels none.csv"),
        (["learn", "CATALOG", "--labels", "LABELS", "--classes", "kick"], "unknown class 'snare'"),
        (["learn", "CATALOG", "--labels", "LABELS", "--encoder", "event"], "has no column 'event'"),
        (["detect", "CATALOG", "--plot", "x.png"], "--plot draws one CLIP"),
        (["detect", "CATALOG", "--out", "events.doc"], "tells no format"),
        (["review", "CATALOG", "--label", "wolf"], "knows no 'wolf'"),
    ],
)
def test_errors_say_what_is_wrong(
    capsys: pytest.CaptureFixture[str], archive: Archive, arguments: list[str], message: str
) -> None:
    places = {"CATALOG": str(archive.catalog), "LABELS": str(archive.labels)}
    code, _, told = events(capsys, *(places.get(word, word) for word in arguments))
    assert code == 2
    assert message in told


def test_a_clip_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], archive: Archive, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    clip = archive.recordings / "evening-5.wav"
    code, out, told = events(
        capsys, "detect", archive.catalog, tmp_path / "bad.wav", clip, "--format", "jsonl"
    )
    assert code == 1
    assert "bad.wav: " in told
    assert {line["query"] for line in json_lines(out)} <= {str(clip)}


def test_every_sound_has_its_author_beside_it() -> None:
    credits = (SOUNDS / "CREDITS.md").read_text(encoding="utf-8")
    for sound in SOUNDS.rglob("*.flac"):
        assert f"| {sound.relative_to(SOUNDS).as_posix()} | " in credits
