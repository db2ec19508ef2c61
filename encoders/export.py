"""Keras model to LiteRT: an 8-bit network and a float one. Needs the ``train`` extra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def export_network(model: Any, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write a Keras model as a ``.tflite`` file with float inputs and outputs.

    Parameters
    ----------
    model : keras.Model
        One input, one output.
    path : Path
    calibration : np.ndarray [shape=(n, ...)], optional
        Real inputs. With them weights and activations become 8-bit integers; without, weights are
        stored as float16 and everything is computed in float32.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(signature)
    # Converting with live variables gives a network that answers NaN, without a word.
    frozen = convert_variables_to_constants_v2(function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if calibration is None:
        converter.target_spec.supported_types = [tf.float16]
    else:
        converter.representative_dataset = lambda: ([row[None]] for row in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())
