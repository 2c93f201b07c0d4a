"""Means over clips with 95 % bootstrap intervals, resampled by whoever made the clips.

The units are those of `evaluate`: signers from ten up, else sessions from ten up, else clips.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.seeding import stable_seed
from slrctl.engine.bootstrap import CIUnit, draw_counts, resampling_units
from slrctl.engine.predictions import Predictions


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
