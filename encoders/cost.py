"""What a network costs: multiply-adds for one input, and parameters."""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Cost:
    """Size of a network.

    Parameters
    ----------
    multiply_adds : int
        Of the convolutions and dense layers, for one input. Normalisations are not counted: they
        are folded into the convolutions when the network is exported.
    parameters : int
    """

    multiply_adds: int
    parameters: int

    def __str__(self) -> str:
        return (
            f"{self.multiply_adds / 1e6:,.1f} M multiply-adds a window, "
            f"{self.parameters / 1e6:,.2f} M parameters"
        )


def count_cost(model: Any) -> Cost:
    """Count a Keras model of convolutions (also transposed or depthwise), dense ones and models."""
    total = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            total += count_cost(layer).multiply_adds
            continue
        # Every weight of a kernel is multiplied once at each place that it is moved to: places of
        # the output, but of the input where a transposed convolution spreads it out.
        transposed = "Transpose" in type(layer).__name__
        places = (layer.input if transposed else layer.output).shape[1:-1]
        kernels = [w for w in layer.weights if len(w.shape) > 1]
        total += math.prod(places) * sum(math.prod(w.shape) for w in kernels)
    return Cost(total, model.count_params())
