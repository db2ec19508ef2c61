"""Go on training from a bundle: its float network back into a Keras model.

A bundle holds no batch normalisation any more: the exporter multiplied it into the convolutions.
Here every layer gets the statistics of real windows, so that normalising by them changes nothing,
and training goes on where the bundle's had ended. Needs the ``train`` extra.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from encoders.errors import EarmarkError

FLOAT_NETWORK = "float32.tflite"

Layer = tuple[np.ndarray, np.ndarray]


def read_layers(network: Path) -> list[Layer]:
    """Kernel and bias of every layer of a float ``.tflite`` network, in order.

    Returns
    -------
    layers : list of (np.ndarray, np.ndarray)
        Kernels as Keras has them: ``[shape=(height, width, n_in, n_out)]`` of a convolution,
        ``[shape=(n_in, n_out)]`` of a dense layer.

    Raises
    ------
    EarmarkError
        If there is no such file.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(network.read_bytes(), 0))
    except OSError as error:
        raise EarmarkError(f"cannot start from {network}: {error.strerror}") from None
    graph = model.subgraphs[0]
    codes = [model.operatorCodes[op.opcodeIndex].builtinCode for op in graph.operators]
    # Weights are stored as float16; an operator of their own widens them.
    stored = {
        int(op.outputs[0]): int(op.inputs[0])
        for op, code in zip(graph.operators, codes, strict=True)
        if code == schema.BuiltinOperator.DEQUANTIZE
    }
    types = {schema.TensorType.FLOAT16: np.float16, schema.TensorType.FLOAT32: np.float32}

    def constant(index: int) -> np.ndarray:
        tensor = graph.tensors[stored.get(int(index), int(index))]
        data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
        return data.view(types[tensor.type]).reshape(tensor.shape).astype(np.float32)

    layers = []
    for op, code in zip(graph.operators, codes, strict=True):
        if code in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED):
            kernel, bias = constant(op.inputs[1]), constant(op.inputs[2])
            # Output channels come first there, and last here.
            layers.append((np.moveaxis(kernel, 0, -1), bias))
    return layers


def start_from_network(model: Any, network: Path, examples: np.ndarray) -> None:
    """Give a Keras model the weights of a float network of the same shape, or of a smaller one.

    What a larger model has more of starts at random and is not listened to at first: both give the
    same vectors (Net2Net, Chen, Goodfellow and Shlens, 2016, with fresh units instead of copies).

    Parameters
    ----------
    model : keras.Model
        Convolutions without a bias, each followed by batch normalisation; dense layers.
    network : Path
        A ``float32.tflite``.
    examples : np.ndarray [shape=(n, ...)]
        Inputs as training will see them; the statistics of the normalisation are taken from them.

    Raises
    ------
    EarmarkError
        If the network has another number of layers, or one that is larger.
    """
    import keras

    layers = iter(read_layers(network))
    x: Any = examples
    bias = None
    n_places, n_vectors = 1, 0
    try:
        for layer in model.layers[1:]:  # The first is the input.
            if isinstance(layer, keras.layers.Flatten):
                n_places = math.prod(x.shape[1:-1])
            if isinstance(layer, keras.layers.BatchNormalization):
                values = np.asarray(keras.ops.convert_to_numpy(x), np.float32)
                mean = values.mean(axis=(0, 1, 2))
                variance = values.var(axis=(0, 1, 2))
                layer.set_weights([np.sqrt(variance + layer.epsilon), mean + bias, mean, variance])
            elif layer.weights:
                kernel, bias = next(layers)
                larger = layer.get_weights()[0]
                if isinstance(layer, keras.layers.Conv2D):
                    kernel = _grown(kernel, larger, math.prod(kernel.shape[:2]))
                else:
                    kernel = _grown(kernel, larger, n_places)
                    n_places = 1
                n_vectors = len(bias)
                bias = np.pad(bias, (0, kernel.shape[-1] - len(bias)))
                layer.set_weights([kernel, bias] if layer.use_bias else [kernel])
            x = layer(x)
        if next(layers, None) is not None or n_vectors != x.shape[-1]:
            raise ValueError("layers are left over, or the vectors have another size")
    except (ValueError, StopIteration):
        raise EarmarkError(f"{network} is the network of another shape than this") from None


def _grown(kernel: np.ndarray, larger: np.ndarray, n_places: int) -> np.ndarray:
    # Inputs come place by place (of a convolution, or of what was flattened), channels within.
    if kernel.ndim != larger.ndim or kernel.shape[:-2] != larger.shape[:-2]:
        raise ValueError("another kind of layer")
    old = kernel.reshape(n_places, -1, kernel.shape[-1])
    new = larger.reshape(n_places, -1, larger.shape[-1]).copy()
    n_in, n_out = old.shape[1:]
    new[:, n_in:, :n_out] = 0.0
    new[:, :n_in, :n_out] = old
    return new.reshape(larger.shape)
