"""Attention over a whole data set: what is typical, of which signs, and does it go with success?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import (
    ClipMeasures,
    Interval,
    Units,
    difference_interval,
    mean_interval,
    measure,
    middle_95,
    resampled_means,
    units_of,
)
from slrctl.studies.attention.record import PARTS, AttentionMap, InspectedClip

GRID = 20
"""Cells a side: a twentieth of the clip each."""


def on_grid(found: AttentionMap, grid: int = GRID) -> Float[np.ndarray, "G G"]:
    """A head-averaged map in relative time, over what uniform attention would be: 1 is uniform.

    Where hands are missing differs from clip to clip, and without the division a mean over clips
    would mostly show that. NaN where the reader or what it reads is missing throughout a part.
    """
    if not found.keys_count.any():
        return np.full((grid, grid), np.nan)
    shares = overlap(len(found.rows_count), grid)
    rows = shares * found.rows_count
    per_frame = (shares / shares.sum(axis=0)).T
    uniform = np.tile(found.keys_count / found.keys_count.sum(), (len(found.rows_count), 1))
    expected = rows @ uniform @ per_frame
    received = rows @ found.mean.astype(np.float64) @ per_frame
    # Below this a part of the clip holds a sliver of a frame only.
    is_there = expected > 1e-9
    return np.divide(received, expected, out=np.full_like(received, np.nan), where=is_there)


def overlap(num_frames: int, grid: int) -> Float[np.ndarray, "G T"]:
    """How much of each frame lies in each of `grid` equal parts of the clip, in clip lengths."""
    parts, frames = np.arange(grid + 1) / grid, np.arange(num_frames + 1) / num_frames
    begin = np.maximum(parts[:-1, None], frames[None, :-1])
    end = np.minimum(parts[1:, None], frames[None, 1:])
    return np.maximum(end - begin, 0.0)


BOTH_WAYS = ("left_to_right", "right_to_left")
TWO_HANDED = 0.5
"""A clip counts as two-handed if both hands are there in this share of the frames with any."""


class ClipSummary(NamedTuple):
    """What is kept of a clip; NaN where it cannot be measured. `maps`: both ways, on the grid."""

    inspected: InspectedClip
    values: dict[str, float]
    lag: float
    is_two_handed: bool
    maps: Float[np.ndarray, "2 G G"]


@dataclass(frozen=True, eq=False)
class GlossSummary:
    """A gloss: its clips, the lags read off them, and its mean maps with intervals, both ways.

    `strengths`: of the diagonal each lag was read from, in times uniform attention.
    """

    gloss: str
    clips: int
    two_handed: float
    lags: tuple[int, ...]
    strengths: tuple[float, ...]
    mean: Float[np.ndarray, "2 G G"]
    low: Float[np.ndarray, "2 G G"]
    high: Float[np.ndarray, "2 G G"]


@dataclass(frozen=True, eq=False)
class Summary:
    """Attention over a data set; every table maps the name of a measure to its interval.

    `two_handed` holds one-handed clips, two-handed ones and the second minus the first;
    `correctness` wrong ones, right ones and right minus wrong. `misplaced` is the largest share of
    attention that any row spends on missing or padded frames.
    """

    clips: tuple[ClipSummary, ...]
    units: Units
    overall: dict[str, Interval]
    two_handed: dict[str, tuple[Interval, Interval, Interval]]
    correctness: dict[str, tuple[Interval, Interval, Interval]]
    glosses: tuple[GlossSummary, ...]
    misplaced: float


def summarise(
    inspected: Iterable[InspectedClip], cmcl: CMCLSettings, *, resamples: int, seed: int
) -> Summary:
    """Summarise clips whose maps of fusion were kept; the maps themselves are let go at once."""
    kept = [_summary_of(one, measure(one, cmcl)) for one in inspected]
    # The order of reading depends on lengths, what is drawn must not.
    clips = tuple(sorted(kept, key=lambda one: one.inspected.clip.clip_id))
    units = units_of([one.inspected.clip for one in clips], clips[0].inspected.classes)
    options = {"resamples": resamples, "seed": seed}
    names = list(clips[0].values)
    columns = {name: np.array([one.values[name] for one in clips]) for name in names}
    is_two_handed = np.array([one.is_two_handed for one in clips])
    is_right = np.array([one.inspected.is_right for one in clips])

    def split(name: str, is_first: np.ndarray) -> tuple[Interval, Interval, Interval]:
        values = columns[name]
        return (
            mean_interval(np.where(is_first, np.nan, values), units, **options),
            mean_interval(np.where(is_first, values, np.nan), units, **options),
            difference_interval(values, is_first, units, **options),
        )

    return Summary(
        clips=clips,
        units=units,
        overall={name: mean_interval(columns[name], units, **options) for name in names},
        two_handed={name: split(name, is_two_handed) for name in names},
        correctness={name: split(name, is_right) for name in names},
        glosses=tuple(_gloss_summaries(clips, units, **options)),
        misplaced=max(one.inspected.misplaced for one in clips),
    )


def _summary_of(inspected: InspectedClip, measures: ClipMeasures) -> ClipSummary:
    maps = inspected.fusion
    lag = measures.lag
    left, right = inspected.is_present["left_hand"], inspected.is_present["right_hand"]
    any_hand = max(int((left | right).sum()), 1)
    values = {
        "divergence": measures.divergence,
        **{f"entropy {way}": _mean(measures.entropy[way]) for way in BOTH_WAYS},
        "redundancy": _mean(np.array([measures.redundancy[way] for way in BOTH_WAYS])),
        **{
            f"{reader} from {read}": float(measures.exchange[row, column])
            for row, reader in enumerate(PARTS)
            for column, read in enumerate(PARTS)
        },
        "lag strength": np.nan if lag is None else lag.strength,
    }
    return ClipSummary(
        inspected=inspected.with_layers(()),
        values=values,
        lag=np.nan if lag is None else lag.frames,
        is_two_handed=int((left & right).sum()) / any_hand >= TWO_HANDED,
        maps=np.stack([on_grid(maps[way]) for way in BOTH_WAYS]).astype(np.float32),
    )


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean())


def _gloss_summaries(
    clips: Sequence[ClipSummary], units: Units, *, resamples: int, seed: int
) -> Iterator[GlossSummary]:
    by_gloss: dict[str, list[int]] = {}
    for number, one in enumerate(clips):
        by_gloss.setdefault(one.inspected.clip.gloss, []).append(number)
    for gloss in clips[0].inspected.classes:
        numbers = by_gloss.get(gloss, [])
        if not numbers:
            continue
        own = [clips[number] for number in numbers]
        flat = np.stack([one.maps.ravel() for one in own]).astype(np.float64)
        # Units without a clip of this gloss would leave resamples empty.
        _, of_clip = np.unique(units.of_clip[numbers], return_inverse=True)
        drawn = resampled_means(flat, Units(units.kind, of_clip), resamples=resamples, seed=seed)
        low, high = middle_95(drawn)
        known = np.isfinite(flat)
        counts = known.sum(axis=0)
        sums = np.where(known, flat, 0.0).sum(axis=0)
        mean = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        yield GlossSummary(
            gloss=gloss,
            clips=len(own),
            two_handed=float(np.mean([one.is_two_handed for one in own])),
            lags=tuple(int(one.lag) for one in own if np.isfinite(one.lag)),
            strengths=tuple(one.values["lag strength"] for one in own if np.isfinite(one.lag)),
            mean=mean.reshape(2, GRID, GRID),
            low=low.reshape(2, GRID, GRID),
            high=high.reshape(2, GRID, GRID),
        )


def compare(first: Summary, second: Summary, *, resamples: int, seed: int) -> dict[str, Interval]:
    """Each measure of the second run minus the first's, clip by clip."""
    names = first.overall
    pairs = zip(first.clips, second.clips, strict=True)
    differences = [[b.values[name] - a.values[name] for name in names] for a, b in pairs]
    columns = np.array(differences)
    return {
        name: mean_interval(columns[:, place], first.units, resamples=resamples, seed=seed)
        for place, name in enumerate(names)
    }


def summary_json(summary: Summary) -> dict[str, Any]:
    """Every number but the maps, fit for JSON."""
    first = ("one_handed", "two_handed", "difference")
    second = ("wrong", "right", "difference")
    return {
        "clips": len(summary.clips),
        "ci_unit": summary.units.kind,
        "misplaced": summary.misplaced,
        "overall": {name: found.to_json() for name, found in summary.overall.items()},
        "handedness": {
            name: {key: part.to_json() for key, part in zip(first, found, strict=True)}
            for name, found in summary.two_handed.items()
        },
        "correctness": {
            name: {key: part.to_json() for key, part in zip(second, found, strict=True)}
            for name, found in summary.correctness.items()
        },
        "glosses": [
            {
                "gloss": one.gloss,
                "clips": one.clips,
                "two_handed": one.two_handed,
                "lags": list(one.lags),
                "lag_strengths": list(one.strengths),
                "median_lag": float(np.median(one.lags)) if one.lags else None,
            }
            for one in summary.glosses
        ],
    }
