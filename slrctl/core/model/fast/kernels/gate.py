"""The gated update of the fusion: gate, sum and layer normalisation of a row at a time."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel, part
from slrctl.core.model.fast.kernels.layer_norm import normalise_row, normalise_row_back
from slrctl.core.model.fast.kernels.powers import power_of_2

_LOG2_E = np.float32(1 / np.log(2))


@kernel
def gate_and_normalise(
    own, projected, first_gate, received, weight, bias, epsilon, normal, spread, sums
):
    """Normalise each stream's own features plus both messages, as far as the gate lets them.

    Args:
        own: `N D`, the features.
        projected: `N _`, with what they give to the gate somewhere in it.
        first_gate: the column where that begins.
        received: `N 2D`: the sum of the messages, and beside it what they give to the gate, which
            the gate itself takes the place of.
        weight: `D`, as bias is.
        bias: what a normalised row is multiplied by and added to.
        epsilon: added to the variance.
        normal: written, `N D`: the rows of mean 0 and variance 1.
        spread: written, `N`: what they were divided by, inverted.
        sums: written, `N D`: the result.
    """
    num_rows, width = own.shape
    for row in range(num_rows):
        for i in range(width):
            gate = _sigmoid(projected[row, first_gate + i] + received[row, width + i])
            received[row, width + i] = gate
            normal[row, i] = own[row, i] + gate * received[row, i]
        normalise_row(normal, row, weight, bias, epsilon, spread, sums)


@kernel
def gate_and_normalise_back(
    of_sums, received, first_gate, normal, spread, weight,
    of_own, of_projected, of_received, of_weight, of_bias,
):  # fmt: skip
    """The way back: write the gradients of what `gate_and_normalise` read.

    That of own features without their part in the gate, which goes to its columns of
    `of_projected`; those of the normalisation's weights are added up.
    """
    num_rows, width = of_own.shape
    for row in range(num_rows):
        normalise_row_back(of_own, of_sums, row, normal, spread, weight, of_weight, of_bias)
        for i in range(width):
            message, gate = received[row, i], received[row, width + i]
            gradient = of_own[row, i]
            of_gate = gradient * message * gate * (np.float32(1) - gate)
            of_received[row, i] = gradient * gate
            of_received[row, width + i] = of_gate
            of_projected[row, first_gate + i] = of_gate


@part
def _sigmoid(x):
    power = power_of_2(-np.abs(x) * _LOG2_E)
    inverse = np.float32(1) / (np.float32(1) + power)
    return power * inverse if x < 0 else inverse
