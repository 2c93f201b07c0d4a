"""The unit attention is drawn in: relative to uniform attention, which is 1.

A weight of 0.05 is much among 100 frames and little among 10. In this unit maps over many and over
few frames share one scale.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from slrctl.studies.inspection.record import AttentionMap

NEARLY_UNIFORM = 2.0
"""Where no weight is this many times uniform, the scale does not start at 0 but is stretched."""


class Scale(NamedTuple):
    """The lowest and the highest value that are told apart."""

    low: float
    high: float

    @property
    def is_stretched(self) -> bool:
        return self.low > 0

    def place(self, picture: Float[np.ndarray, "Q T"]) -> Float[np.ndarray, "Q T"]:
        """Where values lie on the scale, 0 to 1."""
        return np.clip((picture - self.low) / (self.high - self.low), 0.0, 1.0)


def relative(found: AttentionMap, weights: Float[np.ndarray, "Q T"]) -> Float[np.ndarray, "Q T"]:
    """Weights over those of uniform attention; NaN where the reader or the read is missing."""
    shown = weights.astype(np.float64) * max(int(found.keys_count.sum()), 1)
    return np.where(found.rows_count[:, None] & found.keys_count, shown, np.nan)


def scale_for(pictures: Sequence[Float[np.ndarray, "Q T"]]) -> Scale:
    """From 0 to the largest value shown; stretched where all values are near 1.

    Attention that is nearly uniform would be one flat colour from 0 on, and a stretched scale says
    by its numbers how small the differences are.
    """
    shown = np.concatenate([p[np.isfinite(p)].ravel() for p in pictures])
    if not len(shown):
        return Scale(0.0, NEARLY_UNIFORM)
    low, high = float(shown.min()), float(shown.max())
    if high >= NEARLY_UNIFORM:
        return Scale(0.0, high)
    # A map that is uniform to the last bit has no range of its own.
    return Scale(min(low, 0.99), max(high, 1.01))
