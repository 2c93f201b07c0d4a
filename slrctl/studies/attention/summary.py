"""Attention over a data set: means with intervals, by handedness, correctness and gloss."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.seeding import stable_seed
from slrctl.evaluation.bootstrap import CIUnit, draw_counts, resampling_units
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import measure
from slrctl.studies.attention.record import STREAMS, AttentionMap, InspectedClip


class MeanInterval(NamedTuple):
    """A mean over `clips` clips and the middle 95 % of its resamples; NaN where there is none."""

    mean: float
    low: float
    high: float
    clips: int

    def to_json(self) -> dict[str, Any]:
        if not self.clips:
            return {"mean": None, "ci95": None, "clips": 0}
        return {"mean": self.mean, "ci95": [self.low, self.high], "clips": self.clips}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resamples of the units of a set of clips; the same seed draws the same units.

    `kind` is the unit, `unit_of_clip` numbers that of each clip from 0.
    """

    kind: CIUnit
    unit_of_clip: Int64[np.ndarray, " N"]
    resamples: int
    seed: int

    @classmethod
    def of_clips(cls, clips: Sequence[Clip], *, resamples: int, seed: int) -> "Bootstrap":
        """Choose the unit by the signers and sessions of the clips, as `evaluate` does."""
        names = [(one.clip_id, one.signer, one.session) for one in clips]
        return cls(*resampling_units(*zip(*names, strict=True)), resamples, seed)

    def mean(self, values: Float[np.ndarray, " N"]) -> MeanInterval:
        """Average the known values."""
        return self._signed_sum(values[:, None], np.ones(1))

    def difference(
        self, values: Float[np.ndarray, " N"], is_first: Bool[np.ndarray, " N"]
    ) -> MeanInterval:
        """Subtract the mean of the other clips from that of the first; both are resampled."""
        groups = [np.where(chosen, values, np.nan) for chosen in (is_first, ~is_first)]
        return self._signed_sum(np.stack(groups, axis=1), np.array([1.0, -1.0]))

    def _signed_sum(
        self, columns: Float[np.ndarray, "N M"], signs: Float[np.ndarray, " M"]
    ) -> MeanInterval:
        is_known = np.isfinite(columns)
        if not is_known.any(axis=0).all():
            return MeanInterval(np.nan, np.nan, np.nan, 0)
        low, high = np.nanquantile(signs @ self.means(columns), [0.025, 0.975])
        mean = signs @ np.nanmean(columns, axis=0)
        return MeanInterval(float(mean), float(low), float(high), int(is_known.sum()))

    def means(self, columns: Float[np.ndarray, "N M"]) -> Float[np.ndarray, "M R"]:
        """Return each column's mean in every resample, without the clips where it is NaN."""
        is_known = np.isfinite(columns)
        num_units = int(self.unit_of_clip.max()) + 1
        sums, counts = np.zeros((2, num_units, columns.shape[1]))
        np.add.at(sums, self.unit_of_clip, np.where(is_known, columns, 0.0))
        np.add.at(counts, self.unit_of_clip, is_known)
        generator = np.random.default_rng(stable_seed(self.seed, "inspection"))
        blocks = [
            _ratio(sums.T @ drawn, counts.T @ drawn)
            for drawn in draw_counts(num_units, self.resamples, generator)
        ]
        return np.concatenate(blocks, axis=1)


def _ratio(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


GRID = 20
"""Cells a side of a mean map: a twentieth of the clip each."""


def on_grid(found: AttentionMap, grid: int = GRID) -> Float[np.ndarray, "G G"]:
    """Return a head-averaged map in relative time, over uniform attention: 1 is uniform.

    Missing frames of the hands differ from clip to clip, and without the division a mean over clips
    would mostly show those. NaN where the reader or what it reads is missing throughout a cell.
    """
    if not found.keys_count.any():
        return np.full((grid, grid), np.nan)
    shares = overlap(len(found.rows_count), grid)
    rows, per_frame = shares * found.rows_count, (shares / shares.sum(axis=0)).T
    uniform = np.tile(found.keys_count / found.keys_count.sum(), (len(found.rows_count), 1))
    expected = rows @ uniform @ per_frame
    received = rows @ found.mean.astype(np.float64) @ per_frame
    # Below this a cell holds a sliver of a frame only.
    return _ratio(received, np.where(expected > 1e-9, expected, 0.0))


def overlap(num_frames: int, grid: int) -> Float[np.ndarray, "G T"]:
    """Return the overlap of each frame with each of `grid` equal cells, in clip lengths."""
    cells, frames = np.arange(grid + 1) / grid, np.arange(num_frames + 1) / num_frames
    begin = np.maximum(cells[:-1, None], frames[None, :-1])
    end = np.minimum(cells[1:, None], frames[None, 1:])
    return np.maximum(end - begin, 0.0)


BOTH_WAYS = ("left_to_right", "right_to_left")
TWO_HANDED = 0.5
"""A clip is two-handed if both hands are present in this share of the frames with any."""


class ClipSummary(NamedTuple):
    """Numbers of a clip; NaN where it cannot be measured. `maps`: both ways, on the grid."""

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
class AttentionSummary:
    """Attention over a data set; tables map the name of a measure to intervals.

    `handedness` has `one_handed`, `two_handed` and their `difference` (two-handed minus one-handed)
    for each measure; `correctness` has `wrong`, `right` and their `difference`. `misplaced` is the
    largest share of attention that any row spends on missing or padded frames.
    """

    clips: tuple[ClipSummary, ...]
    bootstrap: Bootstrap
    overall: dict[str, MeanInterval]
    handedness: dict[str, dict[str, MeanInterval]]
    correctness: dict[str, dict[str, MeanInterval]]
    glosses: tuple[GlossSummary, ...]
    misplaced: float


def summarise(
    inspected: Iterable[InspectedClip], cmcl: CMCLSettings, *, resamples: int, seed: int
) -> AttentionSummary:
    """Summarise clips whose maps of fusion were kept; the maps themselves are let go at once."""
    summaries = [_summary_of(one, cmcl) for one in inspected]
    # The order of inspection depends on lengths; the resamples must not.
    clips = tuple(sorted(summaries, key=lambda one: one.inspected.clip.clip_id))
    bootstrap = Bootstrap.of_clips(
        [one.inspected.clip for one in clips], resamples=resamples, seed=seed
    )
    columns = {name: np.array([one.values[name] for one in clips]) for name in clips[0].values}

    def by_group(
        names: tuple[str, str], is_second: Callable[[ClipSummary], bool]
    ) -> dict[str, dict[str, MeanInterval]]:
        chosen = np.array([is_second(one) for one in clips])
        return {
            measured: {
                names[0]: bootstrap.mean(np.where(chosen, np.nan, values)),
                names[1]: bootstrap.mean(np.where(chosen, values, np.nan)),
                "difference": bootstrap.difference(values, chosen),
            }
            for measured, values in columns.items()
        }

    return AttentionSummary(
        clips=clips,
        bootstrap=bootstrap,
        overall={name: bootstrap.mean(values) for name, values in columns.items()},
        handedness=by_group(("one_handed", "two_handed"), lambda one: one.is_two_handed),
        correctness=by_group(("wrong", "right"), lambda one: one.inspected.is_right),
        glosses=tuple(_gloss_summaries(clips, bootstrap)),
        misplaced=max(one.inspected.misplaced for one in clips),
    )


def _summary_of(inspected: InspectedClip, cmcl: CMCLSettings) -> ClipSummary:
    maps, measures = inspected.fusion, measure(inspected, cmcl)
    lag = measures.lag
    left, right = inspected.is_present["left_hand"], inspected.is_present["right_hand"]
    values = {
        "divergence": measures.divergence,
        **{f"entropy {way}": float(measures.entropy[way].mean()) for way in BOTH_WAYS},
        "redundancy": float(np.mean([measures.redundancy[way] for way in BOTH_WAYS])),
        **{
            f"{reader} from {read}": float(measures.exchange[row, column])
            for row, reader in enumerate(STREAMS)
            for column, read in enumerate(STREAMS)
        },
        "lag strength": np.nan if lag is None else lag.strength,
    }
    return ClipSummary(
        inspected=inspected.with_layers(()),
        values=values,
        lag=np.nan if lag is None else lag.frames,
        is_two_handed=bool((left & right).sum() >= TWO_HANDED * max((left | right).sum(), 1)),
        maps=np.stack([on_grid(maps[way]) for way in BOTH_WAYS]).astype(np.float32),
    )


def _gloss_summaries(clips: Sequence[ClipSummary], bootstrap: Bootstrap) -> Iterator[GlossSummary]:
    places: dict[str, list[int]] = {gloss: [] for gloss in clips[0].inspected.classes}
    for place, one in enumerate(clips):
        places[one.inspected.clip.gloss].append(place)
    for gloss, own_places in places.items():
        if not own_places:
            continue
        own = [clips[place] for place in own_places]
        flat = np.stack([one.maps.ravel() for one in own]).astype(np.float64)
        # Units without a clip of this gloss would leave resamples empty.
        _, units = np.unique(bootstrap.unit_of_clip[own_places], return_inverse=True)
        of_gloss = Bootstrap(bootstrap.kind, units, bootstrap.resamples, bootstrap.seed)
        is_known, bounds = np.isfinite(flat), np.full((2, flat.shape[1]), np.nan)
        if (seen := is_known.any(axis=0)).any():
            drawn = of_gloss.means(flat[:, seen])
            bounds[:, seen] = np.nanquantile(drawn, [0.025, 0.975], axis=1)
        mean = _ratio(np.where(is_known, flat, 0.0).sum(axis=0), is_known.sum(axis=0))
        shape = (2, GRID, GRID)
        yield GlossSummary(
            gloss=gloss,
            clips=len(own),
            two_handed=float(np.mean([one.is_two_handed for one in own])),
            lags=tuple(int(one.lag) for one in own if np.isfinite(one.lag)),
            strengths=tuple(one.values["lag strength"] for one in own if np.isfinite(one.lag)),
            mean=mean.reshape(shape),
            low=bounds[0].reshape(shape),
            high=bounds[1].reshape(shape),
        )


def compare(first: AttentionSummary, second: AttentionSummary) -> dict[str, MeanInterval]:
    """Subtract each measure of the first run from the second's, clip by clip."""
    pairs = list(zip(first.clips, second.clips, strict=True))
    return {
        name: first.bootstrap.mean(np.array([b.values[name] - a.values[name] for a, b in pairs]))
        for name in first.overall
    }


def summary_json(summary: AttentionSummary) -> dict[str, Any]:
    """Return every number but the maps, fit for JSON."""
    return {
        "clips": len(summary.clips),
        "ci_unit": summary.bootstrap.kind,
        "misplaced": summary.misplaced,
        "overall": intervals_json(summary.overall),
        "handedness": {key: intervals_json(found) for key, found in summary.handedness.items()},
        "correctness": {key: intervals_json(found) for key, found in summary.correctness.items()},
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


def intervals_json(intervals: Mapping[str, MeanInterval]) -> dict[str, Any]:
    return {name: found.to_json() for name, found in intervals.items()}
