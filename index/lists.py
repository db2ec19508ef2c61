"""Inverted lists in a file of their own, memory-mapped, whatever the kind of their codes.

FAISS maps plain lists but reads the blocks of 32 vectors that its fast scan works on into memory.
Its ``OnDiskInvertedLists`` takes any place in any file, so both are written here the same way::

    int64 [n_lists]                 vectors in each list
    for each list, from a multiple of 64 bytes on:
        its codes                   whole blocks
        int64 [capacity]            its row numbers; 0 beyond the last

The trained quantiser is a file of its own, which all the lists made with it share.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np

_ALIGNMENT = 64


def read_trained(path: Path) -> Any:
    """A trained index without vectors."""
    return faiss.read_index(str(path))


def write_lists(index: Any, file: BinaryIO) -> None:
    """Write the lists of an index that is in memory."""
    lists = faiss.downcast_InvertedLists(index.invlists)
    block = _block(index)
    sizes = np.array([lists.list_size(i) for i in range(index.nlist)], np.int64)
    offsets, capacities, _ = _layout(index, sizes)
    file.write(sizes.tobytes())
    for i in np.flatnonzero(sizes).tolist():
        file.write(bytes(int(offsets[i]) - file.tell()))
        n_bytes = int(capacities[i]) * index.code_size
        file.write(faiss.rev_swig_ptr(lists.get_codes(i), n_bytes).data)
        file.write(faiss.rev_swig_ptr(lists.get_ids(i), int(sizes[i])).data)
        file.write(bytes(8 * (-int(sizes[i]) % block)))


def map_lists(trained: Path, path: Path) -> Any:
    """An index over the lists of a file, of which a search reads what it looks into.

    Parameters
    ----------
    trained : Path
        The index, without vectors.
    path : Path

    Raises
    ------
    ValueError
        If the file is shorter than it says.
    """
    index = read_trained(trained)
    sizes, offsets, capacities, n_bytes = _read_header(index, path)
    lists: Any = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(path))
    lists.read_only = True
    # Threads that would read ahead.
    lists.prefetch_nthread = 0
    places = np.ascontiguousarray(np.stack([sizes, capacities, offsets], axis=1), np.uint64)
    faiss.memcpy(lists.lists.data(), faiss.swig_ptr(places), places.nbytes)
    lists.totsize = n_bytes
    lists.do_mmap()
    index.replace_invlists(lists, True)
    lists.this.disown()
    index.ntotal = int(sizes.sum())
    return index


def load_lists(trained: Path, path: Path) -> Any:
    """An index in memory with the lists of a file, to be changed."""
    index = read_trained(trained)
    sizes, offsets, capacities, n_bytes = _read_header(index, path)
    lists = faiss.downcast_InvertedLists(index.invlists)
    content = np.memmap(path, np.uint8, "r", shape=(n_bytes,))
    for i in np.flatnonzero(sizes).tolist():
        size, begin = int(sizes[i]), int(offsets[i])
        end = begin + int(capacities[i]) * index.code_size
        lists.resize(i, size)
        faiss.rev_swig_ptr(lists.get_codes(i), end - begin)[:] = content[begin:end]
        ids = content[end : end + 8 * size].view(np.int64)
        faiss.rev_swig_ptr(lists.get_ids(i), size)[:] = ids
    index.ntotal = int(sizes.sum())
    return index


def renumber(index: Any, new_rows: np.ndarray) -> None:
    """Give the vectors of an index in memory other row numbers.

    Parameters
    ----------
    new_rows : np.ndarray [shape=(n_rows,), dtype=int64]
        The new number of every old one.
    """
    for i in range(index.nlist):
        if size := index.invlists.list_size(i):
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(i), size)
            ids[:] = new_rows[ids]


def _read_header(index: Any, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    n_bytes = path.stat().st_size
    sizes = np.fromfile(path, np.int64, index.nlist)
    if len(sizes) != index.nlist or (len(sizes) and sizes.min() < 0):
        raise ValueError(f"{path.name} does not hold {index.nlist} lists")
    offsets, capacities, end = _layout(index, sizes)
    if n_bytes < end:
        raise ValueError(f"{path.name} holds {n_bytes} of {end} bytes")
    return sizes, offsets, capacities, n_bytes


def _layout(index: Any, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    # Where each list begins, how many vectors it has room for, and where the last one ends.
    block = _block(index)
    capacities = -(-sizes // block) * block
    n_bytes = capacities * (index.code_size + 8)
    padded = -(-np.concatenate([[8 * len(sizes)], n_bytes]) // _ALIGNMENT) * _ALIGNMENT
    begins = np.cumsum(padded)[:-1]
    used = np.flatnonzero(sizes)
    end = int(begins[used[-1]] + n_bytes[used[-1]]) if len(used) else 8 * len(sizes)
    return begins, capacities, end


def _block(index: Any) -> int:
    # Vectors whose codes are interleaved.
    return int(getattr(faiss.downcast_InvertedLists(index.invlists), "n_per_block", 1))
