"""Numbers of one clip's maps: exchange of streams, sharpness, consistency, lag of the hands."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from slrctl.core.cmcl.consistency import FLOOR, consistency_loss
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
    there, back = maps["left_to_right"], maps["right_to_left"]
    heads = [
        divergence(there._replace(weights=a[None]), back._replace(weights=b[None]), cmcl)
        for a, b in zip(there.weights, back.weights, strict=True)
    ]
    return ClipMeasures(
        exchange=exchange_table(inspected),
        entropy={name: relative_entropy(found) for name, found in maps.items()},
        divergence=divergence(there, back, cmcl),
        head_divergence=np.array(heads),
        redundancy={name: redundancy(found) for name, found in maps.items()},
        lag=read_lag(there, back),
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


def divergence(there: AttentionMap, back: AttentionMap, cmcl: CMCLSettings) -> float:
    """Return the consistency term of one clip as the run's loss computes it.

    Args:
        there: left to right.
        back: right to left.
        cmcl: form and temperature of the term.

    Returns:
        NaN where a hand is never present.
    """
    if not (there.rows_count.any() and there.keys_count.any()):
        return math.nan
    arrays = (there.weights, back.weights, there.rows_count, there.keys_count)
    term = consistency_loss(
        *(torch.from_numpy(array)[None] for array in arrays),
        temperature=cmcl.temperature,
        divergence=cmcl.divergence,
    )
    return float(term)


def compared_distributions(
    there: Float[np.ndarray, "T T"],
    back: Float[np.ndarray, "T T"],
    keys_count: Bool[np.ndarray, " T"],
    temperature: float,
) -> tuple[Float[np.ndarray, "T T"], Float[np.ndarray, "T T"]]:
    """Return the two distributions over right-hand frames whose divergence CMCL takes.

    Args:
        there: left-to-right weights.
        back: right-to-left weights, which are transposed and renormalised.
        keys_count: frames where the right hand is present: the support.
        temperature: of the loss.

    Returns:
        Rows that sum to 1 over the support and are 0 beside it.
    """

    def softened(weights: Float[np.ndarray, "T T"]) -> Float[np.ndarray, "T T"]:
        powers = np.maximum(weights.astype(np.float64), FLOOR) ** (1 / temperature) * keys_count
        return powers / np.maximum(powers.sum(axis=-1, keepdims=True), np.finfo(np.float64).tiny)

    return softened(there), softened(back.T)


def read_lag(there: AttentionMap, back: AttentionMap) -> Lag | None:
    """Find the shift of the strongest diagonal, both directions taken together.

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
    both, counts = (forward + backward.T) / 2, np.outer(left, right)
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
