"""Read off two maps by how many frames one hand follows the other."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from slrctl.studies.inspection.record import AttentionMap

MIN_PAIRS = 4
"""Fewest pairs of frames that a lag is read from."""
CLEAR = 1.1
"""A diagonal that gets less than this many times uniform attention is no lag to speak of."""


class Lag(NamedTuple):
    """The shift at which the hands attend to each other most.

    `frames`: frame i of the left hand attends most to frame i + frames of the right hand.
    `strength`: attention along that diagonal over what uniform attention would put there; 1 says
    that there is no preferred shift, and `frames` is then noise.
    """

    frames: int
    strength: float

    @property
    def is_clear(self) -> bool:
        """Whether the hands prefer this shift at all."""
        return self.strength >= CLEAR


def read_lag(there: AttentionMap, back: AttentionMap) -> Lag | None:
    """The shift of the strongest diagonal, both directions taken together.

    Only shifts that at least a third of the shorter hand's frames can take are compared, so that a
    corner of the map, where a diagonal has few cells, does not win by chance.

    Args:
        there: left to right.
        back: right to left.

    Returns:
        None where the hands share too few frames.
    """
    left, right = there.rows_count, there.keys_count
    needed = max(MIN_PAIRS, -(-int(min(left.sum(), right.sum())) // 3))
    forward = there.mean.astype(np.float64) * right.sum()
    backward = back.mean.astype(np.float64) * left.sum()
    both = (forward + backward.T) / 2
    profile = diagonal_means(both, left, right, needed)
    if not profile:
        return None
    frames = max(profile, key=lambda shift: (profile[shift], -abs(shift)))
    return Lag(frames, profile[frames])


def diagonal_means(
    weights: Float[np.ndarray, "T T"],
    left: Bool[np.ndarray, " T"],
    right: Bool[np.ndarray, " T"],
    needed: int,
) -> dict[int, float]:
    """Mean weight of the cells (i, i + shift) with both hands present, by shift."""
    num_frames = len(left)
    means = {}
    for shift in range(1 - num_frames, num_frames):
        rows = np.arange(max(0, -shift), min(num_frames, num_frames - shift))
        rows = rows[left[rows] & right[rows + shift]]
        if len(rows) >= needed:
            means[shift] = float(weights[rows, rows + shift].mean())
    return means
