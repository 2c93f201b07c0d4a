"""The Kullback-Leibler divergence of a map of attention from the way back, a row at a time."""

import numpy as np

from slrctl.core.model.fast.kernels.compiling import kernel, part
from slrctl.core.model.fast.kernels.powers import logarithm, power_of_2

_LOG2_E = np.float32(1 / np.log(2))
_LARGEST_LOG = np.float32(80)  # of what float32 holds, and of its inverse


@kernel
def compare_rows(forth, back, is_there, floor, exponent, divergences, of_forth, of_back):
    """Compare each row of one map with the same column of the other, both averaged over heads.

    Args:
        forth: `B H T S`, weights.
        back: `B H S T`.
        is_there: `B S`, the support of the distributions.
        floor: below which no weight counts as less.
        exponent: of the weights, before they are made to sum to 1.
        divergences: written, `B T`, in nats; 0 where there is no support.
        of_forth: written, `B T S`: a row's divergence by the weights of one head; empty if it is
            not wanted, as the next is.
        of_back: written, `B S T`, likewise.
    """
    num_clips, num_heads, num_rows, num_columns = forth.shape
    share = np.float32(1) / np.float32(num_heads)
    floor, exponent = np.float32(floor), np.float32(exponent)
    here = np.empty((num_rows, num_columns), np.float32)
    there = np.empty((num_columns, num_rows), np.float32)
    across = np.empty((num_rows, num_columns), np.float32)
    shares, logs = np.empty(num_columns, np.float32), np.empty(num_columns, np.float32)
    other_shares, other_logs = np.empty_like(shares), np.empty_like(logs)
    for clip in range(num_clips):
        support = is_there[clip]
        if not support.any():
            divergences[clip] = 0
            of_forth[clip : clip + 1] = 0
            of_back[clip : clip + 1] = 0
            continue
        _average(here, forth[clip], share)
        _average(there, back[clip], share)
        across[:] = there.T
        for row in range(num_rows):
            _distribute(shares, logs, here[row], support, floor, exponent)
            _distribute(other_shares, other_logs, across[row], support, floor, exponent)
            divergence = np.float32(0)
            for t in range(num_columns):
                logs[t] -= other_logs[t]
                divergence += shares[t] * logs[t] if support[t] else np.float32(0)
            # Never negative in exact arithmetic; rounding alone gets below 0.
            factor = np.float32(0) if divergence < 0 else np.float32(1)
            divergences[clip, row] = divergence * factor
            if of_forth.size > 0:
                factor *= exponent * share
                for t in range(num_columns):
                    slope = shares[t] * (logs[t] - divergence) * factor / here[row, t]
                    counts = support[t] and here[row, t] >= floor
                    of_forth[clip, row, t] = slope if counts else np.float32(0)
                    slope = (other_shares[t] - shares[t]) * factor / across[row, t]
                    counts = support[t] and across[row, t] >= floor
                    across[row, t] = slope if counts else np.float32(0)
        if of_back.size > 0:
            of_back[clip] = across.T


@part
def _average(mean, maps, share):
    mean[:] = 0
    for head in range(maps.shape[0]):
        for i in range(maps.shape[1]):
            for j in range(maps.shape[2]):
                mean[i, j] += maps[head, i, j] * share


@part
def _distribute(shares, logs, weights, support, floor, exponent):
    """Write powers of a row's weights, made to sum to 1 over the support, and their logarithms."""
    for t in range(len(weights)):
        logs[t] = logarithm(floor if weights[t] < floor else weights[t]) * exponent
    # Weights are at most 1 and not below the floor, so mostly no power is too small to be held.
    is_small = exponent * logarithm(floor) < -_LARGEST_LOG
    highest = _highest(logs, support) if is_small else np.float32(0)
    total = np.float32(0)
    for t in range(len(weights)):
        logs[t] -= highest
        power = power_of_2(logs[t] * _LOG2_E)
        shares[t] = power if support[t] else np.float32(0)
        total += shares[t]
    rest, inverse = logarithm(total), np.float32(1) / total
    for t in range(len(weights)):
        logs[t] -= rest
        shares[t] *= inverse


@part
def _highest(logs, support):
    highest = np.float32(-1e30)
    for t in range(len(logs)):
        if support[t] and logs[t] > highest:
            highest = logs[t]
    return highest
