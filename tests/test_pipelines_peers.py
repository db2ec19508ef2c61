"""The peers' adapters: their own parts always, the peers' programs where they are installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from encoders.audio import load_audio
from encoders.errors import AudioError, EarmarkError
from pipelines.peers import NOTHING, Answer, Audfprint, Chromaprint, Peer, installed_peers
from pipelines.peers.audfprint import parse_matches, time_bits
from pipelines.peers.chromaprint import (
    SECONDS_PER_ITEM,
    Alignment,
    SlidingMatcher,
    count_ones,
    fingerprint,
)
from pipelines.peers.peer import SAMPLE_RATE, digest, wav_batches

TRACKS = ("palace.ogg", "ezer-ev.opus", "musicbox.mp3")
CLIP_SECONDS = 6.0
STARTS = (11.3, 7.77, 20.05)

needs_audfprint = pytest.mark.skipif(
    not Audfprint.is_installed(), reason="needs the package audfprint2 and ffmpeg"
)
needs_fpcalc = pytest.mark.skipif(
    not Chromaprint.is_installed(), reason="needs fpcalc (libchromaprint-tools)"
)
PEERS = [
    pytest.param(
        lambda: Audfprint(bucket_size=20), id="audfprint", marks=[needs_audfprint, pytest.mark.slow]
    ),
    pytest.param(Chromaprint, id="chromaprint", marks=needs_fpcalc),
]


@pytest.fixture(scope="module")
def references(demo_tracks: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("Música - 音楽")
    return [Path(shutil.copy(demo_tracks / name, folder / f"a b {name}")) for name in TRACKS]


@pytest.fixture(scope="module")
def clips(references: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One from each reference, and last, one of noise for half a second."""
    folder = tmp_path_factory.mktemp("clips é 1.afpt")
    paths = []
    for path, start in zip(references, STARTS, strict=True):
        signal = load_audio(path, SAMPLE_RATE)
        first = round(start * SAMPLE_RATE)
        cut = signal[first : first + round(CLIP_SECONDS * SAMPLE_RATE)]
        paths.append(write_clip(folder / f"clip of {path.stem} sec.wav", cut))
    noise = np.random.default_rng(0).normal(0.0, 0.1, SAMPLE_RATE // 2)
    return [*paths, write_clip(folder / "noise.wav", noise)]


def write_clip(path: Path, signal: np.ndarray) -> Path:
    soundfile.write(path, signal, SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.mark.parametrize("make", PEERS)
def test_clips_are_found_in_place(
    make: Callable[[], Peer], references: list[Path], clips: list[Path], tmp_path: Path
) -> None:
    peer = make()
    steps: list[tuple[int, int]] = []
    peer.index(references, tmp_path / "peer", progress=lambda *step: steps.append(step))
    assert steps[-1] == (3, 3)
    shuffled = [clips[i] for i in (2, 3, 0, 1)]
    answers = peer.query(shuffled, progress=lambda *step: steps.append(step))
    assert steps[-1] == (4, 4)
    assert not answers[1].accepted
    for answer, i in zip((answers[0], answers[2], answers[3]), (2, 0, 1), strict=True):
        assert answer.reference == str(references[i])
        assert answer.start_s == pytest.approx(STARTS[i], abs=0.1)
        assert answer.accepted
        assert answer.score > answers[1].score
    assert peer.query([]) == []
    assert peer.version[0].isdigit()


@pytest.mark.parametrize("make", PEERS)
def test_the_data_base_is_reused_for_the_same_references_only(
    make: Callable[[], Peer], references: list[Path], clips: list[Path], tmp_path: Path
) -> None:
    make().index(references[:2], tmp_path)
    (built,) = tmp_path.iterdir()
    before = built.stat()
    peer = make()
    peer.index(references[:2], tmp_path)
    assert list(tmp_path.iterdir()) == [built]
    assert built.stat().st_mtime_ns == before.st_mtime_ns
    peer.index(references[1:2], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert peer.query(clips[1:2])[0].reference == str(references[1])


@pytest.mark.parametrize("make", PEERS)
def test_nothing_stays_behind_a_failure(make: Callable[[], Peer], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.ogg"):
        make().index([tmp_path / "missing.ogg"], tmp_path / "peer")
    bad = tmp_path / "text.ogg"
    bad.write_text("no sound", encoding="utf-8")
    with pytest.raises(AudioError, match=r"text\.ogg"):
        make().index([bad], tmp_path / "peer")
    with pytest.raises(EarmarkError, match="no references"):
        make().index([], tmp_path / "peer")
    assert list((tmp_path / "peer").iterdir()) == []


@pytest.mark.parametrize("make", PEERS)
def test_the_last_words_of_a_program_are_told(
    make: Callable[[], Peer], references: list[Path], tmp_path: Path
) -> None:
    peer = make()
    peer.index(references[:1], tmp_path)
    bad = tmp_path / "text.wav"
    bad.write_text("no sound", encoding="utf-8")
    with pytest.raises(EarmarkError, match=r"exit code \d: .*(Error reading|Could not open)"):
        peer.query([bad])


@pytest.mark.parametrize("peer", [Audfprint(), Chromaprint()], ids=lambda peer: peer.name)
def test_query_before_index_is_a_bug(peer: Peer) -> None:
    with pytest.raises(RuntimeError, match="before index"):
        peer.query([])


def test_a_peer_without_its_program_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert installed_peers() == []
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "fpcalc" else None)
    assert [peer.name for peer in installed_peers()] == ["chromaprint"]


def test_nothing_is_the_weakest_answer() -> None:
    assert Answer(None, None, 0.0, False, 1.0) == NOTHING


# audfprint ------------------------------------------------------------------------------------

# Printed by audfprint2 0.1.2 with --verbose.
PRINTED = """\
DEBUG:audfprint2:Sat Nov 22 20:26:47 2025 Reading hash table /data/audfprint.hdf
DEBUG:h5py._conv:Creating converter from 3 to 5
DEBUG:audfprint:Read fprints for 14 files (415371 hashes) from /data/audfprint.hdf (0.00% dropped)
DEBUG:audfprint2:Sat Nov 22 20:26:48 2025 Analyzed #0 000000.afpt of 0.929 s to 719 hashes
DEBUG:audfprint2:NOMATCH: 000000.afpt 0.9 sec 719 raw hashes
DEBUG:audfprint2:Sat Nov 22 20:26:48 2025 Analyzed #1 000001.afpt of 1.927 s to 1702 hashes
DEBUG:audfprint2:Matched 000001.afpt 1.9 sec 1702 raw hashes as 000007.afpt at    6.1 s with    \
13 of  1066 common hashes at rank  0
DEBUG:audfprint2:Matched 000012.afpt 9.9 sec 31702 raw hashes as 000413.afpt at 1754.2 s with \
12345 of 21066 common hashes at rank 10
DEBUG:audfprint2:Matched 000013.afpt 9.9 sec 1702 raw hashes as 000000.afpt at   -0.3 s with    \
 7 of     9 common hashes at rank  2
DEBUG:audfprint2:Processed 70 files (288.5 s total dur) in 8.9 s sec = 0.031 x RT
"""


def test_what_audfprint_prints_is_read() -> None:
    found = parse_matches(PRINTED.splitlines())
    assert found == {1: (7, 6.1, 13), 12: (413, 1754.2, 12345), 13: (0, -0.3, 7)}


@pytest.mark.parametrize("seconds", [1.0, 379.0, 381.0, 1521.0, 1523.0, 1755.035, 40_000.0])
def test_the_last_frame_of_the_longest_reference_has_a_time_of_its_own(seconds: float) -> None:
    n_frames = 1 + seconds * 11_025 / 256
    n_bits = int(time_bits(seconds))
    assert n_frames < 2**n_bits
    assert n_bits == 14 or n_frames >= 2 ** (n_bits - 1)


# chromaprint ----------------------------------------------------------------------------------


def random_items(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 32, n, dtype=np.uint32)


def flip(items: np.ndarray, n_bits: int) -> np.ndarray:
    """Make the lowest bits of every item wrong."""
    return items ^ np.uint32((1 << n_bits) - 1)


# Alignments are looked at 65,536 at a time: the last three are around that border and past it.
@pytest.mark.parametrize(
    ("reference", "item"), [(0, 0), (0, 1), (0, 688), (2, 0), (2, 64_835), (2, 64_836), (2, 79_988)]
)
def test_the_sliding_matcher_finds_the_place(reference: int, item: int) -> None:
    lengths = np.array([700, 0, 80_000, 5])
    items = random_items(int(lengths.sum()))
    place = item + int(lengths[:reference].sum())
    found = SlidingMatcher(items, lengths).best(flip(items[place : place + 12], 8))
    assert found == Alignment(reference, item, bit_error_rate=0.25, is_match=True)


def test_the_first_of_equal_places_wins() -> None:
    unit = random_items(50)
    found = SlidingMatcher(np.tile(unit, 4), np.array([100, 100])).best(unit[10:30])
    assert found == Alignment(0, 10, bit_error_rate=0.0, is_match=True)


def test_a_clip_must_lie_within_one_reference() -> None:
    items = random_items(100)
    matcher = SlidingMatcher(items, np.array([50, 50]))
    found = matcher.best(items[45:55])
    assert found is not None
    assert found.bit_error_rate > 0.3
    assert found.item <= 40
    assert not found.is_match
    assert matcher.best(items[50:]) == Alignment(1, 0, bit_error_rate=0.0, is_match=True)
    assert matcher.best(items[:51]) is None


def test_an_empty_fingerprint_finds_nothing() -> None:
    assert SlidingMatcher(random_items(9), np.array([9])).best(random_items(0)) is None
    assert SlidingMatcher(random_items(0), np.array([0])).best(random_items(3)) is None


@pytest.mark.parametrize(
    ("n_wrong", "n_aligned", "is_match"),
    [(9, 20, True), (10, 20, False), (0, 2, True), (9, 2, True), (0, 1, False), (9, 1, False)],
)
def test_the_decision_is_that_of_chromaprints_matcher(
    n_wrong: int, n_aligned: int, is_match: bool
) -> None:
    items = random_items(20)
    clip = flip(items, n_wrong)
    clip[n_aligned:] ^= np.uint32(1 << 31)
    if n_wrong == 9:  # The bit that breaks the alignment is not to count as a tenth.
        clip[n_aligned:] ^= np.uint32(1)
    found = SlidingMatcher(items, np.array([20])).best(clip)
    assert found is not None
    assert found.is_match == is_match


@pytest.mark.parametrize("numpy", ["2", "1"])
def test_ones_are_counted(numpy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if numpy == "1":
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    values = np.append(random_items(1000), np.array([0, 1, 0xFFFFFFFF, 0x10000], np.uint32))
    assert count_ones(values).tolist() == [bin(value).count("1") for value in values.tolist()]


@needs_fpcalc
def test_short_clips_have_no_fingerprint(music: tuple[np.ndarray, int], tmp_path: Path) -> None:
    signal, _ = music
    seconds = (1.0, 5.0, 0.1, 2.0, 10.0, 2.5)
    wavs = [
        write_clip(tmp_path / f"-{length}.wav", signal[: round(length * SAMPLE_RATE)])
        for length in seconds
    ]
    n_items = [len(items) for items in fingerprint(wavs)]
    assert n_items == [0, 19, 0, 0, 59, 0]
    # Each item more takes its own time (issue 45 of chromaprint gives the formula).
    assert n_items[4] - n_items[1] == int(5.0 / SECONDS_PER_ITEM)


# What both share ------------------------------------------------------------------------------


def test_the_digest_tells_lists_apart(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    for path in (first, second):
        path.write_bytes(b"123")
        os.utime(path, ns=(0, 0))
    kept = digest([first, second], ["1"])
    assert kept == digest([first, second], ["1"])
    others = {
        digest([second, first], ["1"]),
        digest([first], ["1"]),
        digest([first, second], ["2"]),
    }
    second.write_bytes(b"1234")
    os.utime(second, ns=(0, 0))
    others.add(digest([first, second], ["1"]))
    os.utime(second, ns=(0, 1))
    others.add(digest([first, second], ["1"]))
    assert len(others | {kept}) == 6


def test_references_are_decoded_in_batches(references: list[Path], tmp_path: Path) -> None:
    many = references * 7
    sizes = []
    for wavs in wav_batches(many, tmp_path):
        assert sorted(tmp_path.iterdir()) == wavs
        info = soundfile.info(wavs[-1])
        assert (info.samplerate, info.channels, info.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        samples, _ = soundfile.read(wavs[0])
        expected = load_audio(many[int(wavs[0].stem)], SAMPLE_RATE)
        np.testing.assert_allclose(samples, np.clip(expected, -1.0, 1.0), atol=2**-15)
        sizes.append(len(wavs))
    assert sizes == [16, 5]
    assert list(tmp_path.iterdir()) == []
