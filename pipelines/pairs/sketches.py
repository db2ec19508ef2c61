"""Sketches on disk: Arrow files, one record batch for each content, read through memory maps."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from encoders.sketch import SKETCH_SPEC
from index.compare import Sound
from index.storage import write_atomically

SHARD_SKETCHES = 64
"""Contents in one file."""

SKETCHES = pa.schema(
    [
        pa.field("content", pa.int64(), nullable=False),
        pa.field("n_frames", pa.int64(), nullable=False),
        # Frame by frame, zstd; null when no file could be read.
        pa.field("sketch", pa.large_binary()),
        pa.field("problem", pa.string()),
        # Whether it is a test tone.
        pa.field("constant", pa.bool_(), nullable=False),
    ]
)

# Bytes of sounds, ready to be compared, that a thread keeps.
_CACHE_BYTES = 128 << 20

_OPEN = threading.local()


def sketch_part(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"part-{shard:07d}.arrow"


def write_sketches(path: Path, rows: Iterable[tuple[int, np.ndarray | None, str | None]]) -> None:
    """Write one file.

    Parameters
    ----------
    path : Path
    rows : iterable of (content, sketch, problem)
    """
    with write_atomically(path) as file, pa.ipc.new_file(file, SKETCHES) as writer:
        for content, frames, problem in rows:
            packed, n, constant = None, 0, False
            if frames is not None:
                packed, n = pa.compress(frames.tobytes(), "zstd", asbytes=True), len(frames)
                constant = n > 0 and Sound(frames).is_constant
            values = [content, n, packed, problem, constant]
            columns = [pa.array([v], f.type) for v, f in zip(values, SKETCHES, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=SKETCHES))


class SketchStore:
    """All sketches of a run, for one thread.

    Parameters
    ----------
    folder : Path
    contents : np.ndarray [shape=(n,), dtype=int64]
        Which contents there are, sorted: ``SHARD_SKETCHES`` in each file.
    """

    def __init__(self, folder: Path, contents: np.ndarray) -> None:
        self._folder = folder
        self._contents = contents
        self._sounds: OrderedDict[int, Sound | str] = OrderedDict()
        self._n_bytes = 0

    @classmethod
    def of_thread(cls, folder: Path, contents_file: Path) -> SketchStore:
        """The store that this thread keeps for a folder."""
        known = getattr(_OPEN, "store", None)
        if known is None or known[0] != folder:
            known = _OPEN.store = folder, cls(folder, np.load(contents_file))
        store: SketchStore = known[1]
        return store

    def sound(self, content: int) -> Sound | str:
        """A content, ready to be compared, or why there is none."""
        if content in self._sounds:
            self._sounds.move_to_end(content)
            return self._sounds[content]
        sound = self._read(content)
        self._sounds[content] = sound
        self._n_bytes += _size(sound)
        while self._n_bytes > _CACHE_BYTES and len(self._sounds) > 2:
            _, oldest = self._sounds.popitem(last=False)
            self._n_bytes -= _size(oldest)
        return sound

    def _read(self, content: int) -> Sound | str:
        shard, number = divmod(int(np.searchsorted(self._contents, content)), SHARD_SKETCHES)
        with pa.memory_map(str(sketch_part(self._folder, shard))) as file:
            row = pa.ipc.open_file(file).get_batch(number).to_pylist()[0]
        if row["sketch"] is None:
            return str(row["problem"])
        if row["n_frames"] == 0:
            return "no sound"
        shape = row["n_frames"], SKETCH_SPEC.n_mels
        data = pa.decompress(row["sketch"], shape[0] * shape[1], "zstd", asbytes=True)
        return Sound(np.frombuffer(data, np.uint8).reshape(shape))


def _size(sound: Sound | str) -> int:
    return sound.n_bytes if isinstance(sound, Sound) else 0


def constant_contents(folder: Path) -> Iterator[int]:
    """Contents that are test tones."""
    for path in sorted(folder.glob("part-*.arrow")):
        with pa.memory_map(str(path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                if batch["constant"][0].as_py():
                    yield batch["content"][0].as_py()
