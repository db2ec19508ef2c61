"""The teachers of the event encoder: what their networks see and say. Nothing is downloaded."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import _aisfx
import _yamnet
import teacher

from encoders.corpus import Item
from encoders.teacher import Teacher
from index.storage import write_atomically

CHANNELS = (2, 3)
ROLES = ("event", "noise", "music")


def arrays() -> Iterator[np.ndarray]:
    """Weights of a network whose every channel hands on the first one of the layer before."""
    n_in = 1
    for n in CHANNELS:
        for inside in (n_in, n):
            kernel = np.zeros((n, inside, 3, 3), np.float32)
            kernel[:, 0, 1, 1] = 1.0
            yield kernel.reshape(-1)
        for _ in range(2):
            # Gain, shift, mean and variance, less what is added to it.
            yield from (np.full(n, value, np.float32) for value in (1.0, 0.0, 0.0, 1.0 - 1e-5))
        n_in = n


def test_only_the_numbers_of_a_checkpoint_are_read(tmp_path: Path) -> None:
    stored = [np.arange(3, dtype="<f4"), np.arange(1, dtype="<i8"), np.full(12, 2, "<f4")]
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as file:
        file.writestr("archive/data.pkl", b"cos\nsystem\n(S'exit 1'\ntR.")
        for number, values in reversed(list(enumerate(stored))):
            file.writestr(f"archive/data/{number + 8}", values.tobytes())
    read = list(_aisfx.read_arrays(tmp_path / "c.pth"))
    assert [a.tolist() for a in read] == [stored[0].tolist(), stored[2].tolist()]


def test_the_network_has_its_weights() -> None:
    network = _aisfx.build_network(arrays(), CHANNELS)
    seen = np.random.default_rng(0).random((2, _aisfx.N_FRAMES, _aisfx.N_MELS), np.float32)
    said = network.predict_on_batch(seen)
    # The greatest of each square of four, their mean over frequency, the greatest of that.
    squares = seen.reshape(2, _aisfx.N_FRAMES // 2, 2, _aisfx.N_MELS // 2, 2).max(axis=(2, 4))
    expected = squares.mean(axis=2).max(axis=1)
    np.testing.assert_allclose(said, np.repeat(expected[:, None], CHANNELS[-1], axis=1), rtol=1e-4)


def yamnet_kernels() -> Iterator[tuple[int, ...]]:
    """Shapes of its convolutions."""
    yield 3, 3, 1, _yamnet._FIRST
    n_in = _yamnet._FIRST
    for n in _yamnet._CHANNELS:
        yield 3, 3, n_in, 1
        yield 1, 1, n_in, n
        n_in = n


def yamnet_weights(number: int, name: str) -> np.ndarray:
    """Those of a YAMNet whose every channel hands on the middle of what the first one sees."""
    height, _, n_in, n_out = shape = list(yamnet_kernels())[number // 2]
    if number % 2:
        n = n_out if height == 1 or n_in == 1 else n_in
        return np.full(n, 1.0 - 1e-4 if name == "moving_variance" else 0.0, np.float32)
    kernel = np.zeros(shape, np.float32)
    if height == 1:
        kernel[0, 0, 0] = 1.0
    else:
        kernel[1, 1] = 1.0
    return kernel


def test_yamnet_has_its_weights() -> None:
    network = _yamnet.build_network(yamnet_weights)
    seen = np.random.default_rng(0).random((2, _yamnet.N_FRAMES, _yamnet.N_MELS), np.float32)
    said = network.predict_on_batch(seen)
    assert said.shape == (2, 1024)
    # Every stride of two takes the second of two neighbours.
    expected = seen[:, 31::32, 31::32].mean(axis=(1, 2))
    np.testing.assert_allclose(said, np.repeat(expected[:, None], 1024, axis=1), rtol=1e-4)


@pytest.mark.parametrize("network", [_aisfx, _yamnet])
@pytest.mark.parametrize("seconds", [1e-4, 0.1, 1.0])
def test_what_it_sees_does_not_depend_on_the_level(network: Any, seconds: float) -> None:
    n = round(seconds * network.RATE)
    signal = np.random.default_rng(0).normal(size=n).astype(np.float32)
    seen = network.spectrogram(signal)
    assert seen.shape == (network.N_FRAMES, network.N_MELS)
    assert np.ptp(seen) > 0.1
    np.testing.assert_allclose(network.spectrogram(0.01 * signal), seen, atol=1e-3)
    assert not np.ptp(network.spectrogram(np.zeros(n, np.float32)))


def test_yamnet_sees_a_tone_where_it_is() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(_yamnet.RATE) / _yamnet.RATE)
    bands = _yamnet.spectrogram(tone.astype(np.float32)).argmax(axis=1)
    # 66 edges evenly spread over 125 to 7500 Hz in mel; 1 kHz is 1000 mel.
    low, high = 2595 * np.log10(1 + np.array([125.0, 7500.0]) / 700)
    assert np.all(np.abs(bands - ((1000 - low) / (high - low) * 65 - 1)) <= 1)


def test_it_says_something_of_every_recording(demo_tracks: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    paths = [demo_tracks / "palace.ogg", tmp_path / "bad.wav", demo_tracks / "musicbox.mp3"]
    items = [Item(path, role, "train") for path, role in zip(paths, ROLES, strict=True)]
    chosen = teacher.choose([*items, Item(paths[0], "event", "dev")], seed=0)
    assert chosen == items
    network = _aisfx.build_network(arrays(), CHANNELS)
    names, starts, vectors = teacher.teach(_aisfx, network, chosen, tmp_path, seed=0)
    assert len(names) == len(starts) == len(vectors) == 12 + 14
    with write_atomically(tmp_path / "t.npz") as file:
        np.savez(file, path=names, start_s=starts, vector=vectors)
    read = Teacher.read([tmp_path / "t.npz"], tmp_path / "corpus.csv")
    assert [bool(read.of(item)) for item in items] == [True, False, True]
    # A second each, half a second apart, none of them past the 30 s that are heard.
    places = np.array([start for start, _ in read.of(items[2])])
    assert np.all(places % 0.5 == 0)
    assert places.max() <= 29.5
