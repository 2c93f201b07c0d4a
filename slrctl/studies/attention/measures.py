"""The numbers of one clip's maps: who takes how much from whom, how sharply, how consistently."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.cmcl.consistency import FLOOR, consistency_loss
from slrctl.core.seeding import stable_seed
from slrctl.evaluation.bootstrap import CIUnit, draw_counts, resampling_units
from slrctl.evaluation.predictions import Predictions
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.record import PARTS, AttentionMap, InspectedClip

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


@dataclass(frozen=True, eq=False)
class ClipMeasures:
    """Numbers of one clip; NaN where there is nothing to measure.

    `exchange[s, t]`: share of what stream s holds after fusion that came from t, its own features
    on the diagonal; rows sum to 1, a row of NaN is a hand that never shows. `entropy`: of each
    head of each map of fusion, relative to uniform attention, 0 to 1. `divergence`: what CMCL
    compares, in nats, with the heads averaged as in the loss; `head_divergence`: of each head.
    `redundancy`: 1 where all heads of a map agree, 0 where no two overlap.
    """

    exchange: Float[np.ndarray, "3 3"]
    entropy: dict[str, Float[np.ndarray, " H"]]
    divergence: float
    head_divergence: Float[np.ndarray, " H"]
    redundancy: dict[str, float]
    lag: Lag | None


class MeasuredClip(NamedTuple):
    """A clip that was looked into, and its numbers."""

    inspected: InspectedClip
    measures: ClipMeasures


def measure(inspected: InspectedClip, cmcl: CMCLSettings) -> ClipMeasures:
    """Measure the maps of fusion, which must have been kept; the rest of the table is NaN."""
    maps = inspected.fusion
    if not maps:
        nothing = np.full((3, 3), np.nan)
        return ClipMeasures(nothing, {}, math.nan, np.full(0, np.nan), {}, None)
    there, back = maps["left_to_right"], maps["right_to_left"]
    num_heads = len(there.weights)
    return ClipMeasures(
        exchange=exchange_table(inspected),
        entropy={name: relative_entropy(found) for name, found in maps.items()},
        divergence=divergence(there.weights, back.weights, there, cmcl),
        head_divergence=np.array(
            [
                divergence(there.weights[head, None], back.weights[head, None], there, cmcl)
                for head in range(num_heads)
            ]
        ),
        redundancy={name: redundancy(found) for name, found in maps.items()},
        lag=read_lag(there, back),
    )


def exchange_table(inspected: InspectedClip) -> Float[np.ndarray, "3 3"]:
    """Norm of gate * message over the sum of the norms of own features and both gated messages.

    A mean over the frames in which the stream's part is present.
    """
    table = np.full((3, 3), np.nan)
    for place, part in enumerate(PARTS):
        is_present = inspected.is_present[part]
        if inspected.norms is not None and is_present.any():
            norms = inspected.norms[part][is_present].astype(np.float64)
            table[place] = (norms / norms.sum(axis=-1, keepdims=True)).mean(axis=0)
    return table


def relative_entropy(found: AttentionMap) -> Float[np.ndarray, " H"]:
    """Entropy of each head's rows over that of uniform attention, a mean over rows that count.

    NaN where no row counts, or where there are fewer than two frames to attend to.
    """
    num_keys = int(found.keys_count.sum())
    if num_keys < 2 or not found.rows_count.any():
        return np.full(len(found.weights), np.nan)
    rows = found.weights[:, found.rows_count].astype(np.float64)
    logs = np.log(rows, out=np.zeros_like(rows), where=rows > 0)
    return -(rows * logs).sum(axis=-1).mean(axis=-1) / math.log(num_keys)


def divergence(
    there: Float[np.ndarray, "H T T"],
    back: Float[np.ndarray, "H T T"],
    mask: AttentionMap,
    cmcl: CMCLSettings,
) -> float:
    """The consistency term of one clip as the run's loss computes it; NaN without both hands."""
    if not (mask.rows_count.any() and mask.keys_count.any()):
        return math.nan
    term = consistency_loss(
        torch.from_numpy(there)[None],
        torch.from_numpy(back)[None],
        torch.from_numpy(mask.rows_count)[None],
        torch.from_numpy(mask.keys_count)[None],
        temperature=cmcl.temperature,
        divergence=cmcl.divergence,
    )
    return float(term)


def redundancy(found: AttentionMap) -> float:
    """1 minus the Jensen-Shannon divergence of two heads' rows in bits, over all pairs of heads.

    A mean over rows that count; NaN where there is one head, or no row or key.
    """
    if len(found.weights) < 2 or not (found.rows_count.any() and found.keys_count.any()):
        return math.nan
    rows = found.weights[:, found.rows_count].astype(np.float64)
    return 1.0 - float(
        np.mean([_jensen_shannon(rows[a], rows[b]) for a, b in combinations(range(len(rows)), 2)])
    )


def _jensen_shannon(
    first: Float[np.ndarray, "Q T"], second: Float[np.ndarray, "Q T"]
) -> Float[np.ndarray, " Q"]:
    middle = (first + second) / 2
    return _entropy_bits(middle) - (_entropy_bits(first) + _entropy_bits(second)) / 2


def _entropy_bits(rows: Float[np.ndarray, "Q T"]) -> Float[np.ndarray, " Q"]:
    return -(rows * np.log2(rows, out=np.zeros_like(rows), where=rows > 0)).sum(axis=-1)


def compared_distributions(
    there: Float[np.ndarray, "T T"],
    back: Float[np.ndarray, "T T"],
    keys_count: Bool[np.ndarray, " T"],
    temperature: float,
) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    """The two distributions over the right hand's frames whose divergence CMCL takes (SPEC 5).

    Args:
        there: left-to-right weights.
        back: right-to-left weights, which are read backwards and renormalised.
        keys_count: frames where the right hand is present: the support.
        temperature: of the loss.

    Returns:
        Rows that sum to 1 over the support and are 0 beside it.
    """

    def softened(weights: Float[np.ndarray, "T T"]) -> Float[np.ndarray, "T T"]:
        powers = np.maximum(weights.astype(np.float64), FLOOR) ** (1 / temperature) * keys_count
        return powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)

    return softened(there), softened(back.T)


class Interval(NamedTuple):
    """A mean over `clips` clips and the middle 95 % of its resamples; NaN where there is none."""

    mean: float
    low: float
    high: float
    clips: int

    def to_json(self) -> dict[str, Any]:
        """The mean, its interval and the number of clips; None where there is nothing."""
        if not self.clips:
            return {"mean": None, "ci95": None, "clips": 0}
        return {"mean": self.mean, "ci95": [self.low, self.high], "clips": self.clips}


class Units(NamedTuple):
    """What is resampled, and the unit of each clip, counted from 0."""

    kind: CIUnit
    of_clip: Int64[np.ndarray, " N"]


def units_of(clips: Sequence[Clip], classes: tuple[str, ...]) -> Units:
    """Choose what is resampled from who signed the clips."""
    index = {gloss: label for label, gloss in enumerate(classes)}
    predictions = Predictions(
        clip_ids=tuple(one.clip_id for one in clips),
        classes=classes,
        log_probabilities=np.zeros((len(clips), len(classes))),
        target=np.array([index[one.gloss] for one in clips], dtype=np.int64),
        signers=tuple(one.signer for one in clips),
        sessions=tuple(one.session for one in clips),
    )
    return Units(*resampling_units(predictions))


def resampled_means(
    values: Float[np.ndarray, "N M"], units: Units, *, resamples: int, seed: int
) -> Float[np.ndarray, "M R"]:
    """Each column's mean in every resample; clips where it is NaN are left out of it."""
    is_known = np.isfinite(values)
    num_units = int(units.of_clip.max()) + 1
    sums = np.zeros((num_units, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, units.of_clip, np.where(is_known, values, 0.0))
    np.add.at(counts, units.of_clip, is_known)
    generator = np.random.default_rng(stable_seed(seed, "inspection"))
    blocks = []
    for drawn in draw_counts(num_units, resamples, generator):
        total = counts.T @ drawn
        blocks.append(
            np.divide(sums.T @ drawn, total, out=np.full_like(total, np.nan), where=total > 0)
        )
    return np.concatenate(blocks, axis=1)


def middle_95(
    drawn: Float[np.ndarray, "M R"],
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """The middle 95 % of each row's resamples; NaN where no resample has a value."""
    has_any = np.isfinite(drawn).any(axis=1)
    low, high = np.full(len(drawn), np.nan), np.full(len(drawn), np.nan)
    if has_any.any():
        low[has_any], high[has_any] = np.nanquantile(drawn[has_any], [0.025, 0.975], axis=1)
    return low, high


def mean_interval(
    values: Float[np.ndarray, " N"], units: Units, *, resamples: int, seed: int
) -> Interval:
    """The mean of the known values, with its interval."""
    known = np.isfinite(values)
    if not known.any():
        return Interval(np.nan, np.nan, np.nan, 0)
    low, high = middle_95(resampled_means(values[:, None], units, resamples=resamples, seed=seed))
    return Interval(float(values[known].mean()), float(low[0]), float(high[0]), int(known.sum()))


def difference_interval(
    values: Float[np.ndarray, " N"],
    is_first: Bool[np.ndarray, " N"],
    units: Units,
    *,
    resamples: int,
    seed: int,
) -> Interval:
    """The mean of one group minus that of the others; both are resampled together."""
    split = np.stack(
        [np.where(is_first, values, np.nan), np.where(~is_first, values, np.nan)], axis=1
    )
    known = np.isfinite(split)
    if not known.any(axis=0).all():
        return Interval(np.nan, np.nan, np.nan, 0)
    drawn = resampled_means(split, units, resamples=resamples, seed=seed)
    low, high = middle_95((drawn[0] - drawn[1])[None])
    means = np.nanmean(split, axis=0)
    return Interval(float(means[0] - means[1]), float(low[0]), float(high[0]), int(known.sum()))
