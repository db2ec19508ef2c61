"""``earmark demo``, as a newcomer runs it: the tracks and the encoders that ship."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

from encoders.features import FeatureSpec, log_mel
from index.catalog import Catalog
from index.schema import Match
from pipelines.cli import main
from pipelines.demo import ABSENT, AMBIENCE, CLIPS, TRACKS, Clip, Outcome, make_clip, untouched
from pipelines.plots import plot_match


@dataclasses.dataclass
class Run:
    """One run of the command."""

    code: object
    out: str


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "out"


def demo(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    with pytest.raises(SystemExit) as exited:
        main(["demo", "--out", str(folder)])
    return Run(exited.value.code, capsys.readouterr().out)


def is_a_picture(path: Path) -> bool:
    """Large enough, and of many colours in every quarter."""
    picture = matplotlib.image.imread(path)
    height, width = picture.shape[:2]
    quarters = [
        half[:, side]
        for half in (picture[: height // 2], picture[height // 2 :])
        for side in (slice(0, width // 2), slice(width // 2, None))
    ]
    colours = [
        len(np.unique((q[..., :3] * 32).astype(int).reshape(-1, 3), axis=0)) for q in quarters
    ]
    return (width, height) == (1100, 660) and min(colours) > 30


def test_the_demo_tells_every_clip_rightly(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = demo(folder, capsys)
    assert first.code == 0
    assert first.out.count("✓") == len(CLIPS)
    assert "✗" not in first.out
    assert "Ingested 10 tracks" in first.out
    for clip in CLIPS:
        assert clip.story in first.out
        samples, rate = soundfile.read(folder / f"clip-{Path(clip.track).stem}.wav")
        assert len(samples) == pytest.approx(clip.seconds * rate, rel=0.03)
        assert 0.5 < np.abs(samples).max() <= 1
    assert "no match" in first.out
    assert is_a_picture(folder / "match.png")

    uris = Catalog.open(folder / "catalog").recordings(["uri", "status"]).to_pylist()
    names = {Path(row["uri"]).name for row in uris}
    assert len(names) == 10
    assert not names & {AMBIENCE, ABSENT}
    assert {row["status"] for row in uris} == {"ok"}

    # The second run ingests nothing, and finds the same.
    parts = [(p, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*.parquet"))]
    second = demo(folder, capsys)
    assert second.code == 0
    assert second.out.count("✓") == len(CLIPS)
    assert "Ingested" not in second.out
    assert "nothing to ingest" in second.out
    assert [(p, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*.parquet"))] == parts


def test_every_track_has_its_credit() -> None:
    with (TRACKS / "tracks.csv").open(newline="", encoding="utf-8") as lines:
        rows = {row["uri"]: row for row in csv.DictReader(lines)}
    tracks = {p.name for p in TRACKS.iterdir() if p.suffix not in (".csv", ".md")}
    assert set(rows) == tracks
    credits = (TRACKS / "CREDITS.md").read_text(encoding="utf-8")
    for name, row in rows.items():
        assert all(row[key] for key in ("title", "author", "licence", "source"))
        assert row["licence"].startswith(("CC0", "CC-BY", "public domain"))
        assert name in credits
    assert sum((TRACKS / name).stat().st_size for name in tracks) < 8_000_000
    assert 8 <= len(tracks) <= 12
    assert {Path(name).suffix for name in tracks} >= {".ogg", ".opus", ".flac", ".mp3"}


def outcome(track: str, reference: str | None, start: float = 10.0, query: float = 0.0) -> Outcome:
    clip = Clip(track, 10.0, 5, untouched, "")
    match = None
    if reference is not None:
        match = Match("q", 1, f"/x/{reference}", "id", query, 5.0, start, start + 5, 0.9, 1.0)
    return Outcome(clip, Path("clip.wav"), match, 1.0)


def test_what_counts_as_right() -> None:
    assert outcome("palace.ogg", "palace.ogg").right
    assert outcome("palace.ogg", "palace.ogg", start=11.5, query=1.5).right
    assert not outcome("palace.ogg", "palace.ogg", start=10.6).right
    assert not outcome("palace.ogg", "palace.ogg", start=10.0, query=0.7).right
    assert not outcome("palace.ogg", "eureka.m4a").right
    assert not outcome("palace.ogg", None).right
    assert outcome(ABSENT, None).right
    assert not outcome(ABSENT, "palace.ogg").right
    assert not outcome(ABSENT, ABSENT).right


def test_every_clip_is_changed_by_its_world(tmp_path: Path) -> None:
    rate = FeatureSpec().sample_rate
    for clip in CLIPS:
        plain = dataclasses.replace(clip, world=untouched)
        (tmp_path / "plain").mkdir(exist_ok=True)
        before, _ = soundfile.read(make_clip(plain, tmp_path / "plain"), dtype="float32")
        after, at = soundfile.read(make_clip(clip, tmp_path), dtype="float32")
        assert at == rate
        n = min(len(before), len(after))
        alike = float(np.corrcoef(before[:n], after[:n])[0, 1])
        assert (alike > 0.999) == (clip.world is untouched)


def test_a_picture_shows_query_and_reference_on_one_time_axis(tmp_path: Path) -> None:
    spec = FeatureSpec()
    rng = np.random.default_rng(0)
    reference = rng.normal(0, 0.1, 20 * spec.sample_rate).astype(np.float32)
    frames = log_mel(reference, spec)
    match = Match("q.wav", 1, "r.wav", "id", 0.0, 5.0, 8.0, 13.0, 0.9, 1.0)
    first = round(8.0 * spec.sample_rate / spec.hop_length)
    path = tmp_path / "match.png"
    plot_match(frames[first : first + 160], frames, match, spec, path)
    assert is_a_picture(path)
    moved = tmp_path / "moved.png"
    later = dataclasses.replace(match, reference_start_s=9.0, reference_end_s=14.0)
    plot_match(frames[first : first + 160], frames, later, spec, moved)
    pictures = [matplotlib.image.imread(p) for p in (path, moved)]
    assert np.abs(pictures[0] - pictures[1]).mean() > 0.01
