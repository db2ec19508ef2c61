from __future__ import annotations

import numpy as np

from index.half import widen


def test_every_finite_half_is_the_number_that_numpy_makes_of_it() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    # Bit for bit: zero has a sign.
    assert np.array_equal(widen(halves).view(np.int32), halves.astype(np.float32).view(np.int32))


def test_any_shape_and_stride_is_widened() -> None:
    halves = np.arange(24, dtype=np.float16).reshape(2, 3, 4)[:, ::2].transpose(2, 0, 1)
    numbers = widen(halves)
    assert numbers.dtype == np.float32
    assert np.array_equal(numbers, halves)
    assert widen(np.empty((0, 4), np.float16)).shape == (0, 4)
