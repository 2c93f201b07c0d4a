"""Whether the hands attend to each other at the lag that is known to be between them.

Only made clips have a known lag: frame i of the left hand does what frame i + lag of the right hand
does. A frame is hit where its strongest left-to-right attention lies within `TOLERANCE` frames of
i + lag.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from slrctl.core.seeding import stable_seed
from slrctl.studies.attention.record import AttentionMap

TOLERANCE = 1


class LagHits(NamedTuple):
    """A clip's counted frames, and how many of them are hit.

    `attention`: by the map. `chance`: to be expected from a frame of the right hand drawn at
    random. Neither is a whole number: frames that tie for the strongest share the hit.
    """

    lag: int
    frames: int
    attention: float
    chance: float


class LagShares(NamedTuple):
    """Shares of all counted frames that are hit, 0 to 1.

    `identity`: if every frame attended to itself; `constant`: if every frame of every clip attended
    to the one `shift` later, with the shift that hits most of these very frames.
    """

    frames: int
    attention: float
    chance: float
    identity: float
    constant: float
    shift: int


def count_hits(there: AttentionMap, lag: int) -> LagHits:
    """Count the frames of one clip in which its true counterpart could be attended to.

    Those are the frames with both hands present whose frame i + lag is in the clip, with the right
    hand present.

    Args:
        there: left to right; its heads are averaged.
        lag: the known one, in frames.
    """
    keys = np.flatnonzero(there.keys_count)
    rows = _countable(there.rows_count, there.keys_count, lag)
    if not len(rows):
        return LagHits(lag, 0, 0.0, 0.0)
    weights = there.mean[np.ix_(rows, keys)]
    is_near = np.abs(keys - (rows + lag)[:, None]) <= TOLERANCE
    is_strongest = weights == weights.max(axis=1, keepdims=True)
    attention = (is_near & is_strongest).sum(axis=1) / is_strongest.sum(axis=1)
    return LagHits(lag, len(rows), float(attention.sum()), float(is_near.mean(axis=1).sum()))


def _countable(left: Bool[np.ndarray, " T"], right: Bool[np.ndarray, " T"], lag: int) -> np.ndarray:
    rows = np.flatnonzero(left & right)
    rows = rows[(rows + lag >= 0) & (rows + lag < len(right))]
    return rows[right[rows + lag]]


def lag_shares(hits: Sequence[LagHits]) -> LagShares:
    """Put clips together, every frame counting alike.

    Raises:
        ValueError: there is no frame to count.
    """
    frames = sum(one.frames for one in hits)
    if not frames:
        raise ValueError("hits: no clip has a frame whose true counterpart is present")
    shift = best_shift(hits)
    return LagShares(
        frames=frames,
        attention=sum(one.attention for one in hits) / frames,
        chance=sum(one.chance for one in hits) / frames,
        identity=_hit_by(hits, 0).sum() / frames,
        constant=_hit_by(hits, shift).sum() / frames,
        shift=shift,
    )


def best_shift(hits: Sequence[LagHits]) -> int:
    """The shift that hits most frames if all clips are given it; the smallest one of several."""
    largest = max(abs(one.lag) for one in hits)
    shifts = sorted(range(-largest, largest + 1), key=abs)
    return max(shifts, key=lambda shift: int(_hit_by(hits, shift).sum()))


def margin_95(
    runs: Sequence[Sequence[LagHits]], *, resamples: int, seed: int
) -> tuple[float, float]:
    """The middle 95 % of the share hit by attention minus that by the best shift.

    Clips are resampled, each with all its runs; the shift stays that of all clips.

    Args:
        runs: for each training, the clips in one order.
        resamples: how many.
        seed: of the resampling.
    """
    hits = runs[0]
    frames = np.array([one.frames for one in hits], np.float64)
    constant = _hit_by(hits, best_shift(hits))
    attention = np.mean([[one.attention for one in run] for run in runs], axis=0)
    generator = np.random.default_rng(stable_seed(seed, "known lag"))
    drawn = generator.integers(len(hits), size=(resamples, len(hits)))
    margins = (attention - constant)[drawn].sum(axis=1) / frames[drawn].sum(axis=1)
    low, high = np.quantile(margins, [0.025, 0.975])
    return float(low), float(high)


def _hit_by(hits: Sequence[LagHits], shift: int) -> Float[np.ndarray, " N"]:
    """The counted frames of each clip that one shift hits: all of them, or none."""
    return np.array([one.frames * (abs(shift - one.lag) <= TOLERANCE) for one in hits], np.float64)
