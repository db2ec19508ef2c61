"""The teacher of the event encoder: its network, what it sees and says. Nothing is downloaded."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

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
    read = list(teacher.read_arrays(tmp_path / "c.pth"))
    assert [a.tolist() for a in read] == [stored[0].tolist(), stored[2].tolist()]


def test_the_network_has_its_weights() -> None:
    network = teacher.build_network(arrays(), CHANNELS)
    seen = np.random.default_rng(0).random((2, teacher.N_FRAMES, teacher.N_MELS), np.float32)
    said = network.predict_on_batch(seen)
    # The greatest of each square of four, their mean over frequency, the greatest of that.
    squares = seen.reshape(2, teacher.N_FRAMES // 2, 2, teacher.N_MELS // 2, 2).max(axis=(2, 4))
    expected = squares.mean(axis=2).max(axis=1)
    np.testing.assert_allclose(said, np.repeat(expected[:, None], CHANNELS[-1], axis=1), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 3000, teacher.RATE])
def test_what_it_sees_does_not_depend_on_the_level(n: int) -> None:
    signal = np.random.default_rng(0).normal(size=n).astype(np.float32)
    seen = teacher.spectrogram(signal)
    assert seen.shape == (teacher.N_FRAMES, teacher.N_MELS)
    assert 0.0 < seen.max() <= 1.0
    np.testing.assert_allclose(teacher.spectrogram(0.01 * signal), seen, atol=1e-4)
    assert not teacher.spectrogram(np.zeros(n, np.float32)).any()


def test_it_says_something_of_every_recording(demo_tracks: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    paths = [demo_tracks / "palace.ogg", tmp_path / "bad.wav", demo_tracks / "musicbox.mp3"]
    items = [Item(path, role, "train") for path, role in zip(paths, ROLES, strict=True)]
    chosen = teacher.choose([*items, Item(paths[0], "event", "dev")], seed=0)
    assert chosen == items
    network = teacher.build_network(arrays(), CHANNELS)
    names, starts, vectors = teacher.teach(network, chosen, tmp_path, seed=0)
    assert len(names) == len(starts) == len(vectors) == 12 + 14
    with write_atomically(tmp_path / "t.npz") as file:
        np.savez(file, path=names, start_s=starts, vector=vectors)
    read = Teacher.read(tmp_path / "t.npz", tmp_path / "corpus.csv")
    assert [bool(read.of(item)) for item in items] == [True, False, True]
    # A second each, half a second apart, none of them past the 30 s that are heard.
    places = np.array([start for start, _ in read.of(items[2])])
    assert np.all(places % 0.5 == 0)
    assert places.max() <= 29.5
