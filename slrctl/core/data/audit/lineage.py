"""Find clips that were interpolated between two others: oversampling that ran before the split.

On such a clip x = a A + (1 - a) B, with A and B of one gloss. Seen from A, x and B lie in one
direction; that is looked for among the fingerprints, which are averages and so keep straight lines
nearly straight, and then confirmed frame by frame.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

from slrctl.core.data.audit.duplicates import Leak
from slrctl.core.data.audit.fingerprint import Fingerprints, neighbours
from slrctl.core.data.audit.framed import FramedClips
from slrctl.core.data.audit.matching import blend_unexplained

LINEAGE_THRESHOLD = 0.015
"""A clip that two others leave less of its movement unexplained was made of them."""
_NEAREST = 4
_DIRECTIONS = 2
# How far off the line from A to B a fingerprint may lie, as a share of its way from A.
_FARTHEST_OFF = 0.5
_BATCH = 256


def interpolated(
    clips: FramedClips,
    glosses: Sequence[str],
    prints: Fingerprints,
    parts: Int64[np.ndarray, " N"],
) -> list[Leak]:
    """Clips made of two others, at least one of which is in another part."""
    triples = np.concatenate([np.zeros((0, 3), np.int64), *_triples(glosses, prints.plain, parts)])
    best: dict[int, Leak] = {}
    for start in range(0, len(triples), _BATCH):
        batch = triples[start : start + _BATCH]
        made, one, other = ([clips[row] for row in column.tolist()] for column in batch.T)
        for (row, parent, _), value in zip(
            batch.tolist(), blend_unexplained(made, one, other).tolist(), strict=True
        ):
            if value < min(LINEAGE_THRESHOLD, best[row].unexplained if row in best else np.inf):
                best[row] = Leak("interpolated", row, parent, value)
    return list(best.values())


def _triples(
    glosses: Sequence[str], prints: Float[np.ndarray, "N D"], parts: Int64[np.ndarray, " N"]
) -> Iterator[Int64[np.ndarray, "M 3"]]:
    """Rows of clips that may lie between two others of their gloss: itself, A elsewhere, B."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, gloss in enumerate(glosses):
        rows_of[gloss].append(row)
    for gloss_rows in rows_of.values():
        rows = np.array(gloss_rows)
        for part in np.unique(parts[rows]):
            inside, outside = rows[parts[rows] == part], rows[parts[rows] != part]
            if len(outside) == 0:
                continue
            nearest = inside[neighbours(prints[outside], prints[inside], _NEAREST)]
            for row, parents in zip(outside, nearest, strict=True):
                others = rows[rows != row]
                for parent in parents:
                    yield _in_line(prints, row, parent, others[others != parent])


def _in_line(
    prints: Float[np.ndarray, "N D"], row: int, parent: int, others: Int64[np.ndarray, " K"]
) -> Int64[np.ndarray, "M 3"]:
    """The clips towards which `row` lies, seen from `parent`."""
    way, ways = prints[row] - prints[parent], prints[others] - prints[parent]
    lengths = np.maximum((ways * ways).sum(1), 1e-12)
    share = ways @ way / lengths  # of the way to the other clip
    off = np.maximum(way @ way - share * share * lengths, 0)
    is_near = (share > 0.02) & (share < 0.98) & (off < _FARTHEST_OFF**2 * (way @ way))
    chosen = np.flatnonzero(is_near)
    chosen = chosen[np.argsort(off[chosen])][:_DIRECTIONS]
    return np.stack(
        [np.full(len(chosen), row), np.full(len(chosen), parent), others[chosen]], axis=1
    )
