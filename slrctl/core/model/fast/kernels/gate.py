"""The gated update of the fusion: gate, sum and layer normalisation of a row at a time."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel, part
from slrctl.core.model.fast.kernels.layer_norm import normalise_row, normalise_row_back
from slrctl.core.model.fast.kernels.powers import power_of_2

_LOG2_E = np.float32(1 / np.log(2))


@kernel
def gate_and_normalise(rows, gates, weight, bias, epsilon, normal, spread, sums):
    """Normalise each stream's own features plus both messages, as far as the gate lets them.

    Args:
        rows: `N 3D`: own features, message and other message beside one another.
        gates: `N D`, before the sigmoid; overwritten by what comes after it.
        weight: `D`, as bias is.
        bias: what a normalised row is multiplied by and added to.
        epsilon: added to the variance.
        normal: written, `N D`: the rows of mean 0 and variance 1.
        spread: written, `N`: what they were divided by, inverted.
        sums: written, `N D`: the result.
    """
    num_rows, width = gates.shape
    for row in range(num_rows):
        for i in range(width):
            gate = _sigmoid(gates[row, i])
            gates[row, i] = gate
            messages = rows[row, width + i] + rows[row, 2 * width + i]
            normal[row, i] = rows[row, i] + gate * messages
        normalise_row(normal, row, weight, bias, epsilon, spread, sums)


@kernel
def gate_and_normalise_back(
    of_sums, rows, gates, normal, spread, weight, of_gates, of_rows, of_weight, of_bias
):
    """The way back: write the gradients of gates, before the sigmoid, and of rows past the gate.

    Those of the normalisation's weights are added up.
    """
    num_rows, width = gates.shape
    for row in range(num_rows):
        normalise_row_back(of_gates, of_sums, row, normal, spread, weight, of_weight, of_bias)
        for i in range(width):
            gradient, gate = of_gates[row, i], gates[row, i]
            messages = rows[row, width + i] + rows[row, 2 * width + i]
            of_rows[row, i] = gradient
            of_rows[row, width + i] = gradient * gate
            of_rows[row, 2 * width + i] = gradient * gate
            of_gates[row, i] = gradient * messages * gate * (np.float32(1) - gate)


@part
def _sigmoid(x):
    power = power_of_2(-np.abs(x) * _LOG2_E)
    inverse = np.float32(1) / (np.float32(1) + power)
    return power * inverse if x < 0 else inverse
