from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import SAMPLE_RATE
from ingest_helpers import FINGERPRINT, VAE, run

from encoders.audio import load_audio
from encoders.bundle import Calibration
from encoders.degrade import add_noise
from encoders.errors import AudioError, BundleError, CatalogError
from index.build import build_index
from index.catalog import Catalog
from index.config import CatalogConfig, EncoderInfo
from index.identify import Identifier
from index.schema import Match
from pipelines.ingest import ingest

# Played in the background, never ingested.
AMBIENCE = "restaurant.ogg"

KEYS = [
    "query",
    "rank",
    "reference",
    "recording_id",
    "query_start_s",
    "query_end_s",
    "reference_start_s",
    "reference_end_s",
    "score",
    "speed",
    "alternatives",
]


def music_in(folder: Path) -> list[Path]:
    return sorted(
        p for p in folder.iterdir() if p.suffix not in (".csv", ".md") and p.name != AMBIENCE
    )


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, demo_tracks: Path) -> Path:
    """All the music that ships with the package, by the tiny encoder."""
    folder = tmp_path_factory.mktemp("identify") / "catalog"
    run(list(music_in(demo_tracks)), folder, build_index=True)
    return folder


@pytest.fixture(scope="module")
def identifier(catalog: Path) -> Identifier:
    return Identifier(catalog, FINGERPRINT)


@pytest.fixture(scope="module")
def shipped(demo_catalog: Path) -> Identifier:
    return Identifier(demo_catalog)


def cut(signal: np.ndarray, start_s: float, seconds: float) -> np.ndarray:
    first = round(start_s * SAMPLE_RATE)
    return signal[first : first + round(seconds * SAMPLE_RATE)]


def offset(match: Match) -> float:
    """Reference time (s) at which the query begins."""
    assert match.reference_start_s is not None
    assert match.query_start_s is not None
    assert match.speed is not None
    return match.reference_start_s - match.query_start_s * match.speed


@pytest.mark.parametrize("track", [
    "palace.ogg", "musicbox.mp3", "eureka.m4a", "ezer-ev.opus", "brandenburg-concerto-2.flac",
])  # fmt: skip
def test_a_clean_clip_is_found_in_its_place(
    identifier: Identifier, demo_tracks: Path, track: str
) -> None:
    signal = load_audio(demo_tracks / track, SAMPLE_RATE)
    # Between the windows of the reference, and between those of the query.
    for start, seconds in ((3.21, 5.0), (11.68, 3.3)):
        clip = cut(signal, start, seconds)
        best = identifier.identify(clip, SAMPLE_RATE, threshold=0)[0]
        assert best.reference == str(demo_tracks / track)
        assert offset(best) == pytest.approx(start, abs=0.1)
        assert best.speed == pytest.approx(1.0, abs=0.011)
        assert best.score is not None
        assert best.score > 0.5
        # All of it is claimed.
        assert best.query_start_s == pytest.approx(0, abs=0.6)
        assert best.query_end_s == pytest.approx(seconds, abs=0.6)
        assert best.reference_end_s == pytest.approx(start + best.query_end_s, abs=0.2)


@pytest.mark.parametrize("start", [12.5, 12.62, 12.75])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 2.0])
def test_a_short_clip_is_found(
    shipped: Identifier, demo_tracks: Path, seconds: float, start: float
) -> None:
    signal = load_audio(demo_tracks / "palace.ogg", SAMPLE_RATE)
    clip = cut(signal, start, seconds)
    matches = shipped.identify(clip, SAMPLE_RATE, threshold=0)
    if seconds >= 1:
        assert matches[0].reference == str(demo_tracks / "palace.ogg")
        assert offset(matches[0]) == pytest.approx(start, abs=0.2)
    for match in matches:
        assert 0 <= match.query_start_s <= match.query_end_s <= seconds + 0.001


def test_a_whole_recording_is_found_from_its_start_to_its_end(
    identifier: Identifier, demo_tracks: Path
) -> None:
    path = demo_tracks / "eureka.m4a"
    best = identifier.identify(path, threshold=0)[0]
    seconds = len(load_audio(path, SAMPLE_RATE)) / SAMPLE_RATE
    assert best.reference == best.query == str(path)
    assert best.reference_start_s == pytest.approx(0, abs=0.05)
    assert best.query_start_s == pytest.approx(0, abs=0.05)
    assert best.reference_end_s == pytest.approx(seconds, abs=0.6)
    assert best.query_end_s == pytest.approx(seconds, abs=0.6)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100, 48_000])
def test_an_array_of_any_rate_is_found(
    identifier: Identifier, demo_tracks: Path, sample_rate: int
) -> None:
    samples, rate = soundfile.read(demo_tracks / "palace.ogg", dtype="float32", always_2d=True)
    clip = samples[round(14.3 * rate) : round(20.3 * rate)]
    clip = soxr.resample(clip, rate, sample_rate)
    if sample_rate > 8_000:
        best = identifier.identify(clip, sample_rate, threshold=0)[0]
        assert best.reference == str(demo_tracks / "palace.ogg")
        assert offset(best) == pytest.approx(14.3, abs=0.1)
        assert best.query == "array"
    else:
        # Half of the bands are missing; only the length can be told.
        for match in identifier.identify(clip, sample_rate, threshold=0):
            assert match.query_end_s <= 6.001


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_path_bytes_file_and_array_are_the_same_clip(
    identifier: Identifier, music: tuple[np.ndarray, int], tmp_path: Path, channels: int
) -> None:
    # Every channel at another level, the first of several silent: the mean counts.
    levels = np.linspace(0.4, 1.0, channels, dtype=np.float32)
    levels[0] = 0.4 if channels == 1 else 0.0
    clip = soxr.resample(cut(music[0], 8.77, 4.0), SAMPLE_RATE, 44_100)[:, None] * levels
    path = tmp_path / "clip.wav"
    soundfile.write(path, clip, 44_100, subtype="FLOAT")
    by_path = identifier.identify(path, threshold=0)
    assert offset(by_path[0]) == pytest.approx(8.77, abs=0.1)
    array = clip[:, 0] if channels == 1 else clip
    others = {
        "string": identifier.identify(str(path), threshold=0),
        "bytes": identifier.identify(path.read_bytes(), threshold=0, name=str(path)),
        "file": identifier.identify(io.BytesIO(path.read_bytes()), threshold=0, name=str(path)),
        "array": identifier.identify(array, 44_100, threshold=0, name=str(path)),
    }
    for found in others.values():
        assert len(found) == len(by_path)
        assert found[0].query == str(path)
        assert found[0].reference == by_path[0].reference
        assert found[0].score == pytest.approx(by_path[0].score, abs=0.01)
        assert found[0].reference_start_s == pytest.approx(by_path[0].reference_start_s, abs=0.02)
        assert found[0].query_end_s == pytest.approx(by_path[0].query_end_s, abs=0.02)
    assert others["string"] == others["bytes"] == others["file"] == by_path


def test_a_query_has_the_name_that_it_is_given(identifier: Identifier, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, SAMPLE_RATE, format="WAV")
    path = tmp_path / "ä b.wav"
    path.write_bytes(buffer.getvalue())
    expected = (
        ({"clip": path}, str(path)),
        ({"clip": buffer.getvalue()}, "stream"),
        ({"clip": path, "name": "mine"}, "mine"),
        ({"clip": noise, "sample_rate": SAMPLE_RATE, "name": "mine"}, "mine"),
    )
    for arguments, name in expected:
        assert identifier.identify(**arguments, threshold=0)[0].query == name


def test_an_array_needs_its_rate(identifier: Identifier) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        identifier.identify(np.zeros(SAMPLE_RATE, np.float32))


def test_the_threshold_decides_what_is_reported(
    catalog: Path, music: tuple[np.ndarray, int]
) -> None:
    identifier = Identifier(catalog, FINGERPRINT)
    # Scores that are far from 0 and 1.
    identifier.bundle.calibration = Calibration(-14.0, {"similarity": 14.0, "lead": 10.0})
    clip = cut(music[0], 8.0, 4.0)
    everything = identifier.identify(clip, SAMPLE_RATE, threshold=0, top=100)
    scores = [m.score for m in everything]
    assert len(everything) > 2
    assert scores == sorted(scores, reverse=True)
    assert [m.rank for m in everything] == list(range(1, len(everything) + 1))
    assert identifier.identify(clip, SAMPLE_RATE, threshold=0, top=2) == everything[:2]
    assert len(identifier.identify(clip, SAMPLE_RATE, threshold=0)) <= 5
    assert identifier.identify(clip, SAMPLE_RATE, threshold=1, top=100) == []
    # Scores are rounded: the threshold lies in the middle of the widest gap.
    gap = int(np.argmax(-np.diff(scores)))
    between = (scores[gap] + scores[gap + 1]) / 2
    some = identifier.identify(clip, SAMPLE_RATE, threshold=between, top=100)
    # Alternatives, too, are those from the threshold on.
    kept = [m for m in everything if m.score >= between]
    assert [dataclasses.replace(m, alternatives=()) for m in some] == [
        dataclasses.replace(m, alternatives=()) for m in kept
    ]
    assert 0 < len(some) < len(everything)
    # Without a threshold, that of the encoder.
    identifier.bundle.calibration = Calibration(
        -14.0, {"similarity": 14.0, "lead": 10.0}, threshold=between
    )
    assert identifier.identify(clip, SAMPLE_RATE, top=100) == some


def test_what_is_not_there_has_a_best_candidate_and_no_match(
    identifier: Identifier, demo_tracks: Path
) -> None:
    clip = cut(load_audio(demo_tracks / AMBIENCE, SAMPLE_RATE), 3.0, 5.0)
    best = identifier.identify(clip, SAMPLE_RATE, threshold=0, top=1)
    assert len(best) == 1
    assert identifier.identify(clip, SAMPLE_RATE, threshold=1) == []


def test_silence_has_no_match_whatever_the_threshold(identifier: Identifier) -> None:
    assert identifier.identify(np.zeros(3 * SAMPLE_RATE), SAMPLE_RATE, threshold=0) == []
    assert identifier.identify(np.zeros(0), SAMPLE_RATE, threshold=0) == []
    faint = np.random.default_rng(0).normal(0, 1e-7, 3 * SAMPLE_RATE)
    assert identifier.identify(faint, SAMPLE_RATE, threshold=0) == []


def test_silence_around_a_clip_does_not_move_it(
    identifier: Identifier, music: tuple[np.ndarray, int]
) -> None:
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    clip = np.concatenate([silence, cut(music[0], 15.3, 5.0), silence])
    best = identifier.identify(clip, SAMPLE_RATE, threshold=0)[0]
    assert best.reference.endswith("palace.ogg")
    assert offset(best) == pytest.approx(13.3, abs=0.1)
    # A window that holds the first or the last moment of it reaches up to a second further.
    assert best.query_start_s == pytest.approx(2.0, abs=1.2)
    assert best.query_end_s == pytest.approx(7.0, abs=1.2)


@pytest.mark.parametrize("where", ["before", "after"])
def test_times_stay_within_the_files(shipped: Identifier, demo_tracks: Path, where: str) -> None:
    # Two seconds of another sound, then the first seconds of the recording; or its end, then that.
    path = demo_tracks / "musicbox.mp3"
    signal = load_audio(path, SAMPLE_RATE)
    other = cut(load_audio(demo_tracks / AMBIENCE, SAMPLE_RATE), 3.0, 2.0)
    parts = [other, signal[: 5 * SAMPLE_RATE]] if where == "before" else [
        signal[-5 * SAMPLE_RATE :], other
    ]  # fmt: skip
    matches = shipped.identify(np.concatenate(parts), SAMPLE_RATE, threshold=0, top=100)
    best = matches[0]
    assert best.reference == str(path)
    start = -2.0 if where == "before" else len(signal) / SAMPLE_RATE - 5
    assert offset(best) == pytest.approx(start, abs=0.1)
    lengths = {str(p): len(load_audio(p, SAMPLE_RATE)) for p in music_in(demo_tracks)}
    for match in matches:
        seconds = lengths[match.reference] / SAMPLE_RATE
        assert 0 <= match.query_start_s < match.query_end_s <= 7.001
        assert 0 <= match.reference_start_s < match.reference_end_s <= seconds + 0.001


def test_two_alignments_of_one_clip_are_two_matches(
    identifier: Identifier, demo_tracks: Path
) -> None:
    signals = [load_audio(demo_tracks / n, SAMPLE_RATE) for n in ("palace.ogg", "musicbox.mp3")]
    clip = np.concatenate([cut(signals[0], 10.2, 5.0), cut(signals[1], 7.7, 5.0)])
    matches = identifier.identify(clip, SAMPLE_RATE, threshold=0, top=100)
    places = {(Path(m.reference).name, round(offset(m), 0)) for m in matches}
    assert {("palace.ogg", 10.0), ("musicbox.mp3", 3.0)} <= places


def test_a_match_is_the_json_lines_contract(
    identifier: Identifier, music: tuple[np.ndarray, int]
) -> None:
    match = identifier.identify(cut(music[0], 8.0, 4.0), SAMPLE_RATE, threshold=0, name="é\n")[0]
    line = json.loads(json.dumps(match.to_dict()))
    assert list(line) == KEYS
    kinds = [type(value) for value in line.values()]
    assert kinds == [str, int, str, str, float, float, float, float, float, float, list]
    assert line["query"] == "é\n"
    assert len(line["recording_id"]) == 32
    nothing = Match(query="x", rank=0, reference=None).to_dict()
    assert list(nothing) == KEYS
    assert nothing == dict.fromkeys(KEYS) | {"query": "x", "rank": 0, "alternatives": ()}


def test_the_reference_is_named_as_it_was_given(
    tmp_path: Path, demo_tracks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "song.mp3").symlink_to(demo_tracks / "musicbox.mp3")
    run(["links/song.mp3"], tmp_path / "catalog", build_index=True)
    clip = cut(load_audio(demo_tracks / "musicbox.mp3", SAMPLE_RATE), 5.0, 4.0)
    best = Identifier("catalog", FINGERPRINT).identify(clip, SAMPLE_RATE, threshold=0)[0]
    assert best.reference == "links/song.mp3"


@pytest.mark.parametrize("content", [b"", b"this is no sound\n" * 100, b"RIFF\x24\0\0\0WAVEfmt "])
def test_a_clip_without_audio_is_an_error(identifier: Identifier, content: bytes) -> None:
    with pytest.raises(AudioError):
        identifier.identify(content)


def test_a_clip_that_is_not_there_is_an_error(identifier: Identifier, tmp_path: Path) -> None:
    with pytest.raises(AudioError):
        identifier.identify(tmp_path / "nothing.wav")


def test_another_encoder_is_refused(catalog: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(FINGERPRINT, other)
    meta = json.loads((other / "bundle.json").read_text())
    meta["inputs"]["range_db"] = 70.0
    (other / "bundle.json").write_text(json.dumps(meta))
    with pytest.raises(CatalogError, match="--encoder, or ingest again into a new catalog"):
        Identifier(catalog, other)
    with pytest.raises(CatalogError, match="made by the encoder"):
        Identifier(catalog, VAE)
    with pytest.raises(BundleError, match="no encoder bundle"):
        Identifier(catalog, tmp_path / "nothing")


def test_a_catalog_without_index_says_how_to_build_it(tmp_path: Path, demo_tracks: Path) -> None:
    run([demo_tracks / "musicbox.mp3"], tmp_path / "catalog", build_index=False)
    with pytest.raises(CatalogError, match=f"earmark index {tmp_path / 'catalog'}"):
        Identifier(tmp_path / "catalog", FINGERPRINT)
    with pytest.raises(CatalogError, match="earmark ingest"):
        Identifier(tmp_path / "nothing", FINGERPRINT)


def test_an_empty_catalog_identifies_nothing(
    catalog: Path, tmp_path: Path, music: tuple[np.ndarray, int]
) -> None:
    config: CatalogConfig = Catalog.open(catalog).config
    assert isinstance(config.fingerprint, EncoderInfo)
    empty = Catalog.create(tmp_path / "empty", config)
    with empty.writer_lock():
        build_index(empty)
    clip = cut(music[0], 8.0, 4.0)
    assert Identifier(empty.path, FINGERPRINT).identify(clip, SAMPLE_RATE, threshold=0) == []


def test_several_threads_may_share_one_identifier(
    identifier: Identifier, music: tuple[np.ndarray, int]
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    clips = [cut(music[0], start, 3.0) for start in (2.2, 9.9, 17.6, 25.3)]
    alone = [identifier.identify(clip, SAMPLE_RATE, threshold=0) for clip in clips]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda c: identifier.identify(c, SAMPLE_RATE, threshold=0), clips * 2)
        assert list(found) == alone * 2


def test_the_shipped_encoder_finds_clips_in_noise(shipped: Identifier, demo_tracks: Path) -> None:
    guests = load_audio(demo_tracks / AMBIENCE, SAMPLE_RATE)
    wrong, refused = [], []
    for path in music_in(demo_tracks):
        signal = load_audio(path, SAMPLE_RATE)
        clip = cut(signal, 10.3, 5.0)
        noisy = add_noise(clip, guests[: len(clip)], 5.0)
        best = shipped.identify(noisy, SAMPLE_RATE, threshold=0)[0]
        if best.reference != str(path) or abs(offset(best) - 10.3) > 0.25:
            wrong.append((path.name, best))
        if not shipped.identify(noisy, SAMPLE_RATE):
            refused.append(path.name)
    assert wrong == []
    # The price of a threshold that keeps absent clips out: a drone (icy-lands.opus).
    assert len(refused) <= 1


def test_the_shipped_encoder_finds_nothing_in_noise_alone(
    shipped: Identifier, demo_tracks: Path
) -> None:
    guests = load_audio(demo_tracks / AMBIENCE, SAMPLE_RATE)
    for start in (0.0, 4.0, 8.0):
        assert shipped.identify(cut(guests, start, 5.0), SAMPLE_RATE) == []


@pytest.mark.parametrize("seconds", [5.0, 1.0, 0.2, 1 / SAMPLE_RATE])
def test_noise_is_not_the_only_recording(seconds: float, demo_tracks: Path, tmp_path: Path) -> None:
    # With nothing else to compare it with, a recording must not match just anything.
    ingest([str(demo_tracks / "palace.ogg")], tmp_path / "one")
    alone = Identifier(tmp_path / "one")
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    assert alone.identify(noise, SAMPLE_RATE) == []


@pytest.mark.parametrize("shape", [(2, 16_000), (10, 0), (3, 3, 3)])
def test_arrays_of_another_shape_are_refused(
    identifier: Identifier, shape: tuple[int, ...]
) -> None:
    # The first is librosa's layout.
    with pytest.raises(ValueError, match="channels"):
        identifier.identify(np.zeros(shape, np.float32), SAMPLE_RATE)


def test_integer_samples_are_scaled(identifier: Identifier, music: tuple[np.ndarray, int]) -> None:
    clip = cut(music[0], 12.3, 4.0)
    as_float, as_int = (
        identifier.identify(samples, SAMPLE_RATE, threshold=0)[0]
        for samples in (clip, np.round(clip * 32767).astype(np.int16))
    )
    assert as_int.reference == as_float.reference
    assert as_int.reference_start_s == pytest.approx(as_float.reference_start_s, abs=0.02)
