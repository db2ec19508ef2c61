from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from ingest_helpers import run

from encoders.audio import load_audio
from index.identify import Identifier
from index.metrics import correlate
from index.monitor import Monitor
from index.schema import Match

RATE = 16_000


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Monitor:
    """A catalog of most of the demo tracks, with the encoder that is shipped."""
    catalog = tmp_path_factory.mktemp("monitor") / "catalog"
    tracks = ["palace.ogg", "musicbox.mp3", "hacienda.mp3", "chaos-god.ogg", "eureka.m4a"]
    run(
        [demo_tracks / name for name in tracks],
        catalog,
        build_index=True,
        fingerprint="fingerprint",
        vae="vae",
    )
    return Monitor(Identifier(catalog))


def stretch(path: Path, start_s: float, seconds: float) -> np.ndarray:
    return load_audio(path, RATE)[round(start_s * RATE) : round((start_s + seconds) * RATE)]


def in_blocks(signal: np.ndarray, n: int = 7_000) -> Iterator[np.ndarray]:
    for start in range(0, len(signal), n):
        yield signal[start : start + n]


def listen(monitor: Monitor, signal: np.ndarray) -> list[Match]:
    return list(monitor.segments("x", in_blocks(signal)))


def names(segments: list[Match]) -> list[str | None]:
    return [Path(s.reference).name if s.reference else None for s in segments]


def test_what_is_played_one_after_the_other(monitor: Monitor, demo_tracks: Path) -> None:
    absent = stretch(demo_tracks / "restaurant.ogg", 2.0, 12.0)
    signal = np.concatenate(
        [
            stretch(demo_tracks / "palace.ogg", 5.0, 20.0),
            absent,
            stretch(demo_tracks / "musicbox.mp3", 8.0, 15.0),
            stretch(demo_tracks / "hacienda.mp3", 3.0, 18.0),
        ]
    )
    segments = listen(monitor, signal)
    assert names(segments) == ["palace.ogg", None, "musicbox.mp3", "hacienda.mp3"]
    edges = [(0, 20), (20, 32), (32, 47), (47, 65)]
    for segment, (start, end) in zip(segments, edges, strict=True):
        assert segment.query_start_s == pytest.approx(start, abs=1.1)
        assert segment.query_end_s == pytest.approx(end, abs=1.1)
    for segment, at in zip(segments, (5.0, None, 8.0 - 32, 3.0 - 47), strict=True):
        if at is not None:
            offset = segment.reference_start_s - segment.query_start_s
            assert offset == pytest.approx(at, abs=0.05)
            assert segment.rank == 1
            assert segment.speed == 1.0


def test_a_crossfade_is_two_segments_that_overlap(monitor: Monitor, demo_tracks: Path) -> None:
    first = stretch(demo_tracks / "palace.ogg", 2.0, 20.0)
    second = stretch(demo_tracks / "hacienda.mp3", 4.0, 20.0)
    fade = 4 * RATE
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    signal = np.concatenate(
        [first[:-fade], first[-fade:] * (1 - ramp) + second[:fade] * ramp, second[fade:]]
    )
    segments = listen(monitor, signal)
    assert names(segments) == ["palace.ogg", "hacienda.mp3"]
    assert 17 <= segments[0].query_end_s <= 21.5
    assert 14.5 <= segments[1].query_start_s <= 19
    assert segments[1].query_end_s == pytest.approx(36, abs=0.5)


def test_of_two_mixes_of_a_piece_the_better_is_told(
    monitor: Monitor, demo_tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece, other = (
        stretch(demo_tracks / name, 0.0, 36.0) for name in ("palace.ogg", "musicbox.mp3")
    )
    mixes = [tmp_path / "piece.wav", tmp_path / "remix.wav"]
    other *= piece.std() / other.std()
    for path, mix in zip(mixes, (piece, 0.5 * piece + 0.5 * other), strict=True):
        soundfile.write(path, mix, RATE)
    catalog = tmp_path / "catalog"
    run([*mixes], catalog, build_index=True, fingerprint="fingerprint")
    mixed = Monitor(Identifier(catalog))
    assert names(listen(mixed, piece)) == ["piece.wav"]
    monkeypatch.setattr("index.monitor._ALIKE", 2.0)
    assert "remix.wav" in names(listen(mixed, piece))


def test_two_recordings_at_once_are_both_told(monitor: Monitor, demo_tracks: Path) -> None:
    signal = stretch(demo_tracks / "palace.ogg", 2.0, 30.0)
    signal[8 * RATE : 22 * RATE] += stretch(demo_tracks / "hacienda.mp3", 4.0, 14.0)
    assert set(names(listen(monitor, signal))) == {"palace.ogg", "hacienda.mp3"}


@pytest.mark.parametrize(
    ("recording", "played"),
    [
        # The third of three loops is left out: what follows it is told from where the second ends.
        (["start", "loop", "loop", "loop", "end"], ["start", "loop", "loop", "end"]),
        # A loop that is there three times, and what follows the first of them.
        (["loop", "start", "loop", "end", "loop"], ["loop", "start"]),
    ],
)
def test_of_a_loop_each_moment_is_told_once(
    recording: list[str], played: list[str], demo_tracks: Path, tmp_path: Path
) -> None:
    part = {
        "loop": stretch(demo_tracks / "palace.ogg", 5.0, 4.0),
        "start": stretch(demo_tracks / "musicbox.mp3", 3.0, 8.0),
        "end": stretch(demo_tracks / "hacienda.mp3", 2.0, 8.0),
    }
    piece = np.concatenate([part[name] for name in recording])
    soundfile.write(tmp_path / "piece.wav", piece, RATE)
    run([tmp_path / "piece.wav"], tmp_path / "c", build_index=True, fingerprint="fingerprint")
    silence = np.zeros(12 * RATE, np.float32)
    signal = np.concatenate([silence, *(part[name] for name in played), silence])
    told = [s for s in listen(Monitor(Identifier(tmp_path / "c")), signal) if s.reference]
    assert told[0].query_start_s == pytest.approx(12.0, abs=0.6)
    assert told[1].query_start_s == pytest.approx(told[0].query_end_s, abs=0.2)
    assert told[1].query_end_s == pytest.approx(len(signal) / RATE - 12.0, abs=0.6)
    # Wherever it is said to be, it sounds like that there.
    for segment in told:
        n = round((segment.query_end_s - segment.query_start_s - 1.0) * RATE)
        heard = signal[round((segment.query_start_s + 0.5) * RATE) :][:n]
        near = round(0.1 * RATE)
        there = piece[round((segment.reference_start_s + 0.5) * RATE) - near :][: n + 2 * near]
        assert correlate(heard, there).max() > 0.9


def test_an_interruption_does_not_cut_a_segment(monitor: Monitor, demo_tracks: Path) -> None:
    signal = stretch(demo_tracks / "palace.ogg", 0.0, 36.0)
    signal[12 * RATE : 24 * RATE] = stretch(demo_tracks / "restaurant.ogg", 2.0, 12.0)
    patient = Monitor(monitor.identifier, merge_s=20.0)
    assert names(listen(patient, signal)) == ["palace.ogg"]
    assert names(listen(monitor, signal)) == ["palace.ogg", None, "palace.ogg"]
    with pytest.raises(ValueError, match="8 s"):
        Monitor(monitor.identifier, merge_s=2.0)


def test_a_segment_is_told_soon_after_its_end(monitor: Monitor, demo_tracks: Path) -> None:
    signal = np.concatenate(
        [
            stretch(demo_tracks / "palace.ogg", 5.0, 12.0),
            stretch(demo_tracks / "restaurant.ogg", 0.0, 20.0),
            np.zeros(60 * RATE, np.float32),
        ]
    )
    heard = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal heard
        for block in in_blocks(signal):
            heard += len(block)
            yield block

    first = next(iter(monitor.segments("x", counted())))
    assert Path(first.reference).name == "palace.ogg"
    # 10 s in which it may come back, and the 8 s that features are computed in.
    assert heard / RATE < 12 + 10 + 8 + 4


def test_nothing_there_is_one_gap(monitor: Monitor, demo_tracks: Path) -> None:
    signal = stretch(demo_tracks / "restaurant.ogg", 0.0, 25.0)
    segments = listen(monitor, signal)
    assert names(segments) == [None]
    assert (segments[0].query_start_s, segments[0].rank) == (0.0, 0)
    assert segments[0].query_end_s == pytest.approx(len(signal) / RATE, abs=0.01)
    assert listen(monitor, signal[: RATE // 2]) == []
    assert listen(monitor, signal[:0]) == []


def test_the_speed_is_told(monitor: Monitor, demo_tracks: Path) -> None:
    from encoders.degrade import change_speed

    signal = change_speed(stretch(demo_tracks / "palace.ogg", 1.0, 32.0), 1.04)
    (segment,) = listen(monitor, signal)
    assert segment.speed == pytest.approx(1.04, abs=0.004)
    assert segment.reference_start_s == pytest.approx(1.0 + 1.04 * segment.query_start_s, abs=0.05)


def test_memory_does_not_grow(monitor: Monitor, demo_tracks: Path) -> None:
    import tracemalloc

    signal = stretch(demo_tracks / "restaurant.ogg", 0.0, 15.0)
    peaks = []
    for n in (2, 4):
        tracemalloc.start()
        list(monitor.segments("x", (signal for _ in range(n))))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
