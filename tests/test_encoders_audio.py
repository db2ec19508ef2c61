from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import audio_cases
import numpy as np
import pytest
import soxr
from audio_cases import GOOD, RATE

from encoders.audio import AudioStream, load_audio, open_audio
from encoders.errors import AudioError

SAMPLE_RATE = 16_000
SECONDS = 4

# Samples at SAMPLE_RATE by which the decoded audio may be late or early. Without a header an mp3
# does not tell the encoder's delay (1105 samples for LAME), ASF has no field for it, and a
# fragmented MP4 no edit list.
LAG = {
    "mp3-no-header": 1105 / RATE * SAMPLE_RATE + 1,
    "m4a-fragmented": 1024 / RATE * SAMPLE_RATE + 1,
    "wma": 0.05 * SAMPLE_RATE,
}

MAX_BLOCK = 1 << 18


@pytest.fixture(scope="session")
def stereo(demo_tracks: Path) -> np.ndarray:
    return audio_cases.read_music(demo_tracks, SECONDS)


@pytest.fixture(scope="session")
def encoded(stereo: np.ndarray) -> dict[str, bytes]:
    return {name: encode(stereo) for name, encode in GOOD.items()}


@pytest.fixture(scope="session")
def original(stereo: np.ndarray) -> np.ndarray:
    return soxr.resample(stereo.mean(axis=1), RATE, SAMPLE_RATE)


def decode(source: object) -> tuple[np.ndarray, AudioStream]:
    with open_audio(source, SAMPLE_RATE) as stream:  # type: ignore[arg-type]
        blocks = list(stream.blocks())
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    assert all(0 < len(block) <= MAX_BLOCK for block in blocks)
    return np.concatenate(blocks), stream


def lag_and_correlation(signal: np.ndarray, reference: np.ndarray) -> tuple[int, float]:
    n = 1 << (len(signal) + len(reference)).bit_length()
    product = np.fft.rfft(signal, n) * np.conj(np.fft.rfft(reference, n))
    correlation = np.fft.irfft(product, n)
    lag = int(correlation.argmax())
    scale = float(np.linalg.norm(signal) * np.linalg.norm(reference))
    return (lag if lag < n // 2 else lag - n), float(correlation[lag]) / scale


@pytest.mark.parametrize("name", GOOD)
def test_good_file_is_decoded_whole_and_in_place(
    name: str, encoded: dict[str, bytes], original: np.ndarray
) -> None:
    signal, stream = decode(encoded[name])

    assert stream.problem is None
    assert stream.info.container == audio_cases.container_of(name)
    assert (stream.info.sample_rate, stream.info.channels) == (RATE, 2)
    assert stream.seconds_decoded == pytest.approx(SECONDS, abs=0.08)
    assert len(signal) == pytest.approx(stream.seconds_decoded * SAMPLE_RATE, abs=1)
    lag, correlation = lag_and_correlation(signal, original)
    assert abs(lag) <= LAG.get(name, 1)
    assert correlation > 0.98
    assert np.linalg.norm(signal) == pytest.approx(np.linalg.norm(original), rel=0.05)


@pytest.mark.parametrize("name", GOOD)
def test_expected_seconds(name: str, encoded: dict[str, bytes]) -> None:
    with open_audio(encoded[name], SAMPLE_RATE) as stream:
        expected = stream.info.seconds_expected
    if name in ("aac", "mp3-no-header"):
        assert expected is None
    else:
        assert expected == pytest.approx(SECONDS, abs=0.08)


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3-id3", "vorbis", "opus", "m4a", "wma"])
def test_path_bytes_and_open_file_give_the_same(
    name: str, encoded: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / "misnamed.txt"
    path.write_bytes(encoded[name])
    from_bytes, _ = decode(encoded[name])
    from_path, _ = decode(path)
    from_text, _ = decode(str(path))
    file = io.BytesIO(encoded[name])
    file.seek(100)
    from_file, _ = decode(file)

    assert np.array_equal(from_bytes, from_path)
    assert np.array_equal(from_bytes, from_text)
    assert np.array_equal(from_bytes, from_file)
    assert not file.closed


@pytest.mark.parametrize("name", [name for name in GOOD if name not in audio_cases.NO_END])
@pytest.mark.parametrize("kept", [0.3, 0.62, 0.95, -1])
def test_truncated_file_is_never_whole(name: str, kept: float, encoded: dict[str, bytes]) -> None:
    data = encoded[name]
    cut = data[: int(len(data) * kept)] if kept > 0 else data[:-1]
    try:
        _, stream = decode(cut)
        message = stream.problem
    except AudioError as error:
        message = error.reason
    assert message is not None
    assert "truncated" in message


@pytest.mark.parametrize("name", ["vorbis", "opus", "ogg-flac"])
def test_ogg_cut_between_two_pages_is_never_whole(name: str, encoded: dict[str, bytes]) -> None:
    data = encoded[name]
    _, stream = decode(data[: data.rfind(b"OggS")])
    assert stream.problem is not None
    assert "end-of-stream page is missing" in stream.problem
    assert stream.info.seconds_expected is None


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3", "vorbis", "opus", "wma", "webm", "aac"])
def test_truncated_file_keeps_its_start(
    name: str, encoded: dict[str, bytes], original: np.ndarray
) -> None:
    data = encoded[name]
    signal, stream = decode(data[: len(data) * 7 // 10])
    assert 1.5 < stream.seconds_decoded < 3.6
    assert len(signal) == pytest.approx(stream.seconds_decoded * SAMPLE_RATE, abs=1)
    lag, correlation = lag_and_correlation(signal, original[: len(signal)])
    assert abs(lag) <= LAG.get(name, 1)
    assert correlation > 0.95


@pytest.mark.parametrize(
    "name", [n for n in GOOD if not n.startswith(("wav", "aiff", "mp3-id3")) and "video" not in n]
)
def test_garbage_in_the_middle_is_a_problem(name: str, encoded: dict[str, bytes]) -> None:
    signal, stream = decode(audio_cases.with_garbage(encoded[name]))
    assert stream.problem is not None
    assert stream.seconds_decoded > 0.4 * SECONDS
    assert np.isfinite(signal).all()


@pytest.mark.parametrize("name", ["flac", "opus", "m4a", "ogg-flac"])
def test_audio_after_garbage_stays_in_place(name: str, demo_tracks: Path) -> None:
    music = audio_cases.read_music(demo_tracks, 12)
    original = soxr.resample(music.mean(axis=1), RATE, SAMPLE_RATE)
    signal, stream = decode(audio_cases.with_garbage(GOOD[name](music), at=0.4, n_bytes=6000))
    after = slice(9 * SAMPLE_RATE, 11 * SAMPLE_RATE)
    lag, correlation = lag_and_correlation(signal[after], original[after])
    assert stream.problem is not None
    assert abs(lag) <= 0.02 * SAMPLE_RATE
    assert correlation > 0.9


def test_frames_of_foreign_bytes_are_counted(encoded: dict[str, bytes]) -> None:
    data = encoded["mp3-no-header"]
    half = len(data) // 2
    _, stream = decode(data[:half] + b"\0" * 700 + data[half:])
    assert stream.problem is not None
    assert "700 bytes between the frames are not audio" in stream.problem


def test_concatenated_and_tagged_mp3_is_whole(encoded: dict[str, bytes]) -> None:
    part = encoded["mp3-no-header"]
    data = part + audio_cases.id3_tag(300) + part + b"TAG" + b" " * 125
    _, stream = decode(data)
    assert stream.problem is None
    assert stream.seconds_decoded == pytest.approx(2 * SECONDS, abs=0.12)


def test_bad_files(tmp_path: Path, stereo: np.ndarray) -> None:
    for bad in audio_cases.write_bad_files(tmp_path, stereo):
        name = bad.path.name
        if bad.status == "failed":
            with pytest.raises(AudioError, match=bad.reason) as caught:
                decode(bad.path)
            assert caught.value.stage == bad.stage, name
            assert "\n" not in caught.value.reason, name
            assert "0x" not in caught.value.reason, name
            continue
        signal, stream = decode(bad.path)
        assert np.isfinite(signal).all(), name
        if bad.status == "ok":
            assert stream.problem is None, (name, stream.problem)
        else:
            assert stream.problem is not None, name
            assert bad.reason in stream.problem, (name, stream.problem)


def test_odd_names(
    tmp_path: Path, encoded: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = decode(encoded["wav-16"])
    monkeypatch.chdir(tmp_path)
    for path in audio_cases.write_odd_names(tmp_path, encoded["wav-16"]):
        for spelling in (path, Path(path.name), path.name):
            signal, _ = decode(spelling)
            assert np.array_equal(signal, expected)


@pytest.mark.parametrize("rate", [100, 4000, 8000, 11_025, 22_050, 44_100, 96_000, 768_000])
def test_length_and_delay_at_any_rate(rate: int) -> None:
    n = max(401, rate // 3 + 1)
    time = np.arange(n) / rate
    frequency = min(20.0, rate / 10)
    tone = np.sin(2 * np.pi * frequency * time).astype(np.float32)
    signal, stream = decode(audio_cases.by_soundfile(tone[:, None], rate, subtype="FLOAT"))

    assert stream.seconds_decoded == pytest.approx(n / rate)
    assert abs(len(signal) - n * SAMPLE_RATE / rate) <= 1
    expected = np.sin(2 * np.pi * frequency * np.arange(len(signal)) / SAMPLE_RATE)
    inner = slice(len(signal) // 4, 3 * len(signal) // 4)
    assert np.abs(signal[inner] - expected[inner]).max() < 0.01


def test_mono_is_the_mean_of_the_channels() -> None:
    channels = np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.float32).repeat(2000, axis=0) / 16
    for n in (1, 2, 3, 8):
        signal, stream = decode(audio_cases.by_soundfile(channels[:, :n], SAMPLE_RATE))
        assert stream.info.channels == n
        assert np.abs(signal - channels[0, :n].mean()).max() < 1e-4


def test_one_sample_gives_at_least_one() -> None:
    signal, stream = decode(audio_cases.wav_header(2, rate=48_000) + b"\x00\x40")
    assert signal.tolist() == [0.5]
    assert stream.seconds_decoded == pytest.approx(1 / 48_000)


def test_non_finite_samples_are_silenced_and_counted() -> None:
    tone = np.full((4000, 1), 0.25, np.float32)
    tone[7], tone[9], tone[11], tone[13] = np.nan, np.inf, -np.inf, 1e30
    signal, stream = decode(audio_cases.by_soundfile(tone, SAMPLE_RATE, subtype="FLOAT"))
    assert stream.problem == "4 non-finite samples set to zero"
    assert np.flatnonzero(signal == 0).tolist() == [7, 9, 11, 13]


def test_load_audio_is_all_blocks(encoded: dict[str, bytes]) -> None:
    signal, _ = decode(encoded["vorbis"])
    assert np.array_equal(load_audio(encoded["vorbis"], SAMPLE_RATE), signal)


class FailingFile(io.BytesIO):
    """A remote file whose connection breaks half-way."""

    def read(self, n: int | None = -1) -> bytes:
        if self.tell() > len(self.getvalue()) // 2:
            raise ConnectionResetError("connection reset by peer")
        return super().read(n)


@pytest.mark.parametrize("name", ["wav-16", "flac", "vorbis", "opus", "webm"])
def test_read_error_is_reported(
    name: str, encoded: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        _, stream = decode(FailingFile(encoded[name]))
        message = stream.problem
    except AudioError as error:
        message = error.reason
    assert message is not None
    assert "connection reset by peer" in message
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("source", [io.StringIO("text"), 7, None], ids=["text", "int", "none"])
def test_not_a_binary_file(source: object) -> None:
    with pytest.raises(AudioError):
        open_audio(source, SAMPLE_RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mp3", "flac", "opus", "m4a", "aac", "wma", "webm", "mkv"])
def test_decoders_are_silent(
    name: str, encoded: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    data = encoded[name]
    for damaged in (audio_cases.with_garbage(data), data[: len(data) * 3 // 4]):
        try:
            decode(damaged)
        except AudioError:
            assert name == "m4a"
    assert capfd.readouterr().err == ""


def test_files_are_closed(tmp_path: Path, encoded: dict[str, bytes]) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("needs /proc")
    (tmp_path / "good.opus").write_bytes(encoded["opus"])
    (tmp_path / "bad.opus").write_bytes(b"OggS" + bytes(500))
    before = len(list(descriptors.iterdir()))
    for _ in range(20):
        with open_audio(tmp_path / "good.opus", SAMPLE_RATE):
            pass
        with pytest.raises(AudioError):
            open_audio(tmp_path / "bad.opus", SAMPLE_RATE)
    assert len(list(descriptors.iterdir())) <= before + 1


MEMORY_SCRIPT = """
import resource, sys
from encoders.audio import open_audio
peaks = []
for path in sys.argv[1:]:
    with open_audio(path, 16_000) as stream:
        n = sum(len(block) for block in stream.blocks())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    print(round(n / 16_000), peaks[-1])
"""


@pytest.mark.parametrize("name", ["wav", "aac"])
def test_memory_does_not_grow_with_length(
    name: str, tmp_path: Path, stereo: np.ndarray, encoded: dict[str, bytes]
) -> None:
    paths = [tmp_path / "short", tmp_path / "long"]
    seconds = [60, 3 * 3600 if name == "wav" else 900]
    for path, length in zip(paths, seconds, strict=True):
        if name == "wav":
            with path.open("wb") as file:
                file.write(audio_cases.wav_header(length * 4000, 1, 4000, 8))
                file.truncate(44 + length * 4000)
        else:
            path.write_bytes(encoded["aac"] * (length // SECONDS))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, *map(str, paths)],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    (short_s, short_mb), (long_s, long_mb) = (
        map(int, line.split()) for line in done.stdout.splitlines()
    )
    assert (short_s, long_s) == (pytest.approx(60, rel=0.02), pytest.approx(seconds[1], rel=0.02))
    assert long_mb - short_mb < 12


def test_heavy_libraries_are_loaded_late() -> None:
    code = "import sys, encoders.audio; print([m for m in ('av', 'soundfile') if m in sys.modules])"
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["m4a", "mkv"])
def test_tags_in_another_encoding_do_no_harm(name: str, encoded: dict[str, bytes]) -> None:
    # The muxer's own tag, as if written in Latin-1.
    tagged = encoded[name].replace(b"Lavf", b"\xcaavf")
    assert tagged != encoded[name]
    audio, stream = decode(io.BytesIO(tagged))
    np.testing.assert_array_equal(audio, decode(io.BytesIO(encoded[name]))[0])
    assert stream.problem is None
