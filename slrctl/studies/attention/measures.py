"""Numbers of one clip's maps: exchange of streams, sharpness, consistency, lag of the hands."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from slrctl.core.cmcl.consistency import HandMaps, consistency_per_clip, log_distribution
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.record import STREAMS, AttentionMap, InspectedClip

MIN_PAIRS = 4
"""Fewest pairs of frames that a lag is read from."""
CLEAR = 1.1
"""A diagonal that gets less than this many times uniform attention is noise."""


class Lag(NamedTuple):
    """The shift at which the hands attend to each other most.

    `frames`: frame i of the left hand attends most to frame i + frames of the right hand.
    `strength`: attention along that diagonal over uniform attention; at 1 there is no preferred
    shift, and `frames` is noise.
    """

    frames: int
    strength: float

    @property
    def is_clear(self) -> bool:
        return self.strength >= CLEAR


@dataclass(frozen=True, eq=False)
class ClipMeasures:
    """Numbers of one clip; NaN where there is nothing to measure.

    `exchange[s, t]`: share of stream s after fusion that came from t, its own features on the
    diagonal; rows sum to 1, a row of NaN is a hand that is never present. `entropy`: of each head
    of each map of fusion, relative to uniform attention, 0 to 1. `divergence`: the consistency term
    of CMCL, in nats, with the heads averaged as in the loss; `head_divergence`: of each head.
    `redundancy`: 1 where all heads of a map agree, 0 where no two overlap.
    """

    exchange: Float[np.ndarray, "3 3"]
    entropy: dict[str, Float[np.ndarray, " H"]]
    divergence: float
    head_divergence: Float[np.ndarray, " H"]
    redundancy: dict[str, float]
    lag: Lag | None

    def to_json(self) -> dict[str, Any]:
        return {
            "exchange": {"parts": list(STREAMS), "shares": as_json(self.exchange)},
            "relative_entropy": {name: as_json(values) for name, values in self.entropy.items()},
            "consistency": {
                "mean_of_heads": as_json(self.divergence),
                "heads": as_json(self.head_divergence),
            },
            "redundancy": {name: as_json(value) for name, value in self.redundancy.items()},
            "lag": None if self.lag is None else self.lag._asdict(),
        }


def as_json(value: Any) -> Any:
    """Turn arrays into lists fit for JSON: NaN becomes None, float32 its shortest decimal form."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.float32:
            # Ten digits hide what float32 does not know; the shortest form reads back to the bit.
            value = value.astype(np.str_).astype(np.float64)
        if value.dtype.kind == "f" and np.isnan(value).any():
            value = np.where(np.isnan(value), np.array(None), value)
        return value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


class MeasuredClip(NamedTuple):
    """An inspected clip and its numbers."""

    inspected: InspectedClip
    measures: ClipMeasures


def measure(inspected: InspectedClip, cmcl: CMCLSettings) -> ClipMeasures:
    """Measure the maps of fusion, which must have been kept; without fusion all is NaN."""
    maps = inspected.fusion
    if not maps:
        nothing = np.full((3, 3), np.nan)
        return ClipMeasures(nothing, {}, math.nan, np.full(0, np.nan), {}, None)
    hands = maps["left_to_right"], maps["right_to_left"]
    of_average, *of_heads = divergences(*hands, cmcl)
    return ClipMeasures(
        exchange=exchange_table(inspected),
        entropy={name: relative_entropy(found) for name, found in maps.items()},
        divergence=float(of_average),
        head_divergence=np.array(of_heads),
        redundancy={name: redundancy(found) for name, found in maps.items()},
        lag=read_lag(*hands),
    )


def exchange_table(inspected: InspectedClip) -> Float[np.ndarray, "3 3"]:
    """Return norms of own features and of gate x message from each other stream, over their sum.

    A mean over the frames in which the stream is present.
    """
    table = np.full((3, 3), np.nan)
    for place, stream in enumerate(STREAMS):
        is_present = inspected.is_present[stream]
        if inspected.norms is not None and is_present.any():
            norms = inspected.norms[stream][is_present].astype(np.float64)
            table[place] = (norms / norms.sum(axis=-1, keepdims=True)).mean(axis=0)
    return table


def relative_entropy(found: AttentionMap) -> Float[np.ndarray, " H"]:
    """Return the entropy of each head's rows over that of uniform attention.

    A mean over rows that count; NaN where there is none, or where fewer than two frames are read.
    """
    num_keys = int(found.keys_count.sum())
    if num_keys < 2 or not found.rows_count.any():
        return np.full(len(found.weights), np.nan)
    return _entropy(_rows(found)).mean(axis=-1) / math.log(num_keys)


def redundancy(found: AttentionMap) -> float:
    """Return 1 minus the Jensen-Shannon divergence of two heads' rows in bits.

    A mean over all pairs of heads and rows that count; NaN where there is one head, or no row or
    key.
    """
    if len(found.weights) < 2 or not (found.rows_count.any() and found.keys_count.any()):
        return math.nan
    entropy = _entropy(_rows(found))
    rows = _rows(found)
    divergences = [
        _entropy((rows[a] + rows[b]) / 2) - (entropy[a] + entropy[b]) / 2
        for a, b in combinations(range(len(rows)), 2)
    ]
    return 1.0 - float(np.mean(divergences)) / math.log(2)


def _rows(found: AttentionMap) -> Float[np.ndarray, "H R T"]:
    return found.weights[:, found.rows_count].astype(np.float64)


def _entropy(rows: Float[np.ndarray, "*R T"]) -> Float[np.ndarray, "*R"]:
    return -(rows * np.log(rows, out=np.zeros_like(rows), where=rows > 0)).sum(axis=-1)


def divergences(
    left_to_right: AttentionMap, right_to_left: AttentionMap, cmcl: CMCLSettings
) -> Float[np.ndarray, " 1+H"]:
    """Return the consistency term of the heads' average, as in the loss, and of each head.

    NaN where a hand is never present.
    """
    hands = left_to_right, right_to_left
    maps = [np.concatenate([found.mean[None], found.weights]) for found in hands]
    presence = left_to_right.rows_count, left_to_right.keys_count
    if not all(mask.any() for mask in presence):
        return np.full(len(maps[0]), np.nan)
    masks = [np.tile(mask, (len(maps[0]), 1)) for mask in presence]
    as_clips = HandMaps(*(torch.from_numpy(array) for array in (*maps, *masks)))
    return consistency_per_clip(as_clips, cmcl.temperature, cmcl.divergence).double().numpy()


def compared_distributions(
    left_to_right: Float[np.ndarray, "T T"],
    right_to_left: Float[np.ndarray, "T T"],
    keys_count: Bool[np.ndarray, " T"],
    temperature: float,
) -> list[Float[np.ndarray, "T T"]]:
    """Return the two distributions over right-hand frames whose divergence CMCL takes.

    They are left-to-right weights, and right-to-left weights transposed and renormalised. Rows sum
    to 1 over `keys_count`, the frames where the right hand is present, and are 0 beside it.
    """
    support = torch.from_numpy(keys_count)[None]
    maps = left_to_right, right_to_left.T
    weights = [torch.from_numpy(one.astype(np.float64))[None] for one in maps]
    return [log_distribution(one, support, temperature)[0].exp().numpy() for one in weights]


def read_lag(left_to_right: AttentionMap, right_to_left: AttentionMap) -> Lag | None:
    """Find the shift of the strongest diagonal, both directions taken together.

    Only shifts that at least a third of the shorter hand's frames can take are compared, so that a
    corner of the map, where a diagonal has few cells, does not win by chance.

    Returns:
        None where the hands share too few frames.
    """
    left, right = left_to_right.rows_count, left_to_right.keys_count
    needed = max(MIN_PAIRS, -(-int(min(left.sum(), right.sum())) // 3))
    relative = left_to_right.mean.astype(np.float64) * right.sum()
    reverse = right_to_left.mean.astype(np.float64) * left.sum()
    both, counts = (relative + reverse.T) / 2, np.outer(left, right)
    num_frames = len(left)
    strengths = {
        shift: float(both.diagonal(shift)[counts.diagonal(shift)].mean())
        for shift in range(1 - num_frames, num_frames)
        if counts.diagonal(shift).sum() >= needed
    }
    if not strengths:
        return None
    frames = max(strengths, key=lambda shift: (strengths[shift], -abs(shift)))
    return Lag(frames, strengths[frames])
