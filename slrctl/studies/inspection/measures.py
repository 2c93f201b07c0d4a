"""The numbers of one clip's maps: who takes how much from whom, how sharply, how consistently."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from slrctl.core.cmcl.consistency import FLOOR, consistency_loss
from slrctl.settings import CMCLSettings
from slrctl.studies.inspection.lag import Lag, read_lag
from slrctl.studies.inspection.record import PARTS, AttentionMap, InspectedClip


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
