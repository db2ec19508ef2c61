"""Mono resampling as a stream (libsoxr, quality HQ)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# Samples pushed into soxr at once, counted at the higher of the two rates.
_STEP = 1 << 16


class MonoResampler:
    """Resample blocks of any size; the delay of the filter is taken off.

    Parameters
    ----------
    rate_in, rate_out : int
        Hz.
    """

    def __init__(self, rate_in: int, rate_out: int) -> None:
        self.rate_in = rate_in
        self._step = max(1, _STEP * rate_in // max(rate_in, rate_out))
        self._n_out = 0
        self._last = np.zeros(1, np.float32)
        self._soxr = None
        if rate_in != rate_out:
            import soxr

            self._soxr = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32", quality="HQ")

    def push(self, mono: np.ndarray) -> Iterator[np.ndarray]:
        """Take samples [shape=(n,), dtype=float32], give what is ready."""
        for start in range(0, len(mono), self._step):
            chunk = mono[start : start + self._step]
            self._last = chunk[-1:]
            out = chunk if self._soxr is None else self._soxr.resample_chunk(chunk)
            self._n_out += len(out)
            if len(out):
                yield out

    def finish(self) -> Iterator[np.ndarray]:
        """Give the rest: at least one sample over the whole stream."""
        if self._soxr is not None:
            out = self._soxr.resample_chunk(np.empty(0, np.float32), last=True)
            self._n_out += len(out)
            if len(out):
                yield out
        if self._n_out == 0:
            yield self._last.copy()
