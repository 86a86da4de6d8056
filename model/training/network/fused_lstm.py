"""Fused LSTM layer that training runs on: TensorFlow's fused cell, and a gradient of our own around it.

keras.layers.LSTM with recurrent dropout computes four products a step, and its gradient adds up the weights' gradient step by step. Here a
step is one product for all gates and one fused operation for the rest, forwards and backwards, and the gradient of the weights is one
product over all steps at the end. The products are what pays: the same gradient out of single operations takes as long a step (143
against 140 CPU milliseconds, within the noise), and the fused cell only shortens the tracing, to less than half.

Shapes in the comments: B windows, T steps, I inputs, U units. Everything is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import keras
import tensorflow as tf

_NO_CLIP: Final = -1.0
"""The cell's default is to clip the cell state at 3, which Keras does not."""


class FusedLSTM(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no stubs
    """keras.layers.LSTM with the same weights in the same order, the same forecasts, and dropout with one mask for the four gates.

    A mask is drawn once per window and holds for all its steps, as in Keras. Keras draws one for each gate; here the four gates share
    one, over the inputs and over the state. Gal and Ghahramani 2016, https://arxiv.org/abs/1512.05287, section 4, describe both, as
    untied and tied weights: the dropped share and the expectation are the same. It can replace only layers for which `fits` is True.
    """

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
        """Return (B, T, U). sequences: (B, T, I)."""
        if initial_state is not None or mask is not None:
            raise ValueError("FusedLSTM starts at zero and reads every step: it takes neither an initial state nor a mask")
        cell, state_mask = self.cell, None
        windows = tf.shape(sequences)[0]
        if training and cell.dropout:
            sequences *= self._mask(windows, sequences.shape[-1], cell.dropout)[:, None, :]  # (B, 1, I)
        if training and cell.recurrent_dropout:
            state_mask = self._mask(windows, cell.units, cell.recurrent_dropout)  # (B, U)
        weights = (tf.convert_to_tensor(weight) for weight in (cell.kernel, cell.recurrent_kernel, cell.bias))
        return _unrolled(state_mask)(sequences, *weights)

    def _mask(self, windows: Any, width: int, rate: float) -> Any:
        """Return (B, width) of 0 and 1 / (1 - rate)."""
        return keras.random.dropout(tf.ones((windows, width)), rate, seed=self.cell.seed_generator)


def fits(config: dict[str, Any]) -> bool:
    """Return whether FusedLSTM computes what the keras.layers.LSTM of this configuration does."""
    return (
        (config["activation"], config["recurrent_activation"]) == ("tanh", "sigmoid")
        and bool(config["use_bias"] and config["return_sequences"])
        and not (config["return_state"] or config["go_backwards"] or config["stateful"])
    )


def fused_twin(model: keras.Model) -> keras.Model:
    """Return the same network with FusedLSTM layers and copies of its weights, in the same order: train this, then copy the weights back.

    The network itself stays one of plain Keras layers: best_model.keras loads without code of ours, and tf2onnx finds its LSTMs.
    """
    config = model.get_config()
    for layer in config["layers"]:
        if layer["class_name"] == "LSTM" and fits(layer["config"]):
            layer |= {"class_name": "FusedLSTM", "module": None, "registered_name": "FusedLSTM"}
    twin = keras.Model.from_config(config, custom_objects={"FusedLSTM": FusedLSTM})
    twin.set_weights(model.get_weights())
    return twin


def _unrolled(state_mask: Any) -> Callable[..., Any]:
    """Return the layer as a function of (x, kernel, recurrent_kernel, bias) that brings its gradient along. state_mask: (B, U) or None."""

    def masked(state: Any) -> Any:
        return state if state_mask is None else state * state_mask

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def lstm(x: Any, kernel: Any, recurrent: Any, bias: Any) -> Any:
        units = recurrent.shape[0]
        no_peephole = tf.zeros((units,))
        cell = {
            "w": _swapped(tf.concat([kernel, recurrent], axis=0)),  # (I + U, 4U)
            "b": _swapped(bias),  # (4U,)
            **dict.fromkeys(("wci", "wcf", "wco"), no_peephole),
            "use_peephole": False,
        }
        steps = tf.unstack(x, axis=1)  # T of (B, I)
        state = carry = start = tf.zeros((tf.shape(x)[0], units))
        before, cells, states = [], [], []
        for step in steps:
            before.append({"x": step, "cs_prev": carry, "h_prev": masked(state)})
            gates = tf.raw_ops.LSTMBlockCell(**before[-1], **cell, forget_bias=0.0, cell_clip=_NO_CLIP)
            cells.append({name: getattr(gates, name) for name in ("i", "cs", "f", "o", "ci", "co")})  # each (B, U)
            carry, state = gates.cs, gates.h
            states.append(state)

        def gradient(dy: Any) -> tuple[Any, Any, Any, Any]:
            from_gates = tf.transpose(cell["w"])  # (4U, I + U), turned once: a product with transpose_b turns it anew at every step
            to_input, to_state = from_gates[:, :-units], from_gates[:, -units:]
            d_state = d_carry = start
            backwards = []
            for inputs, gates, d_output in zip(before[::-1], cells[::-1], tf.unstack(dy, axis=1)[::-1], strict=True):
                back = tf.raw_ops.LSTMBlockCellGrad(**inputs, **gates, **cell, cs_grad=d_carry, h_grad=d_output + d_state)
                d_carry = back.cs_prev_grad
                d_state = masked(tf.matmul(back.dicfo, to_state))  # (B, U)
                backwards.append(back.dicfo)
            d_gates = _rows(tf.stack(backwards[::-1], axis=1))  # (B * T, 4U)
            d_x = tf.reshape(tf.matmul(d_gates, to_input), tf.shape(x))
            seen = _rows(tf.stack([inputs["h_prev"] for inputs in before], axis=1))  # (B * T, U)
            d_kernel, d_recurrent = (tf.matmul(rows, d_gates, transpose_a=True) for rows in (_rows(x), seen))
            return d_x, _swapped(d_kernel), _swapped(d_recurrent), _swapped(tf.reduce_sum(d_gates, axis=0))

        return tf.stack(states, axis=1), gradient

    layer: Callable[..., Any] = lstm
    return layer


def _swapped(gates: Any) -> Any:
    """Swap the order of gates in the last axis: i, f, c, o of Keras to i, c, f, o of the fused cell, and back."""
    i, second, third, o = tf.split(gates, 4, axis=-1)
    return tf.concat([i, third, second, o], axis=-1)


def _rows(steps: Any) -> Any:
    """Reshape (B, T, N) to (B * T, N)."""
    return tf.reshape(steps, (-1, steps.shape[-1]))
