"""Find clips that were interpolated between two others: oversampling that ran before the split.

Such a clip is x = a A + (1 - a) B, with A and B of one gloss. Seen from x, A and B lie in opposite
directions; that is looked for among the fingerprints, which are averages and so keep straight lines
nearly straight, and then confirmed frame by frame.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int64

from slrctl.core.data.audit.duplicates import Leak
from slrctl.core.data.audit.fingerprint import body_fingerprint, neighbours
from slrctl.core.data.audit.framed import FramedClips
from slrctl.core.data.audit.matching import blend_unexplained

LINEAGE_THRESHOLD = 0.015
"""A clip that two others leave less of its movement unexplained was made of them."""
# Parents are looked for among so many clips of the gloss that are nearest to the made one.
_MOST_PARENTS = 256
_LINES = 8
# Cosine between the ways to both parents: -1 is a straight line.
_STRAIGHT = -0.9
_BATCH = 256


def interpolated(
    clips: FramedClips,
    glosses: Sequence[str],
    parts: Int64[np.ndarray, " N"],
) -> list[Leak]:
    """Clips made of two others, at least one of which is in another part.

    Args:
        clips: as they stand in their file, where blending is done; the torso's frame bends lines.
        glosses: of each clip.
        parts: the part of each clip.
    """
    prints = body_fingerprint(clips)
    triples = np.concatenate([np.zeros((0, 3), np.int64), *_triples(glosses, prints, parts)])
    best: dict[int, Leak] = {}
    for start in range(0, len(triples), _BATCH):
        batch = triples[start : start + _BATCH]
        made, one, other = ([clips[row] for row in column.tolist()] for column in batch.T)
        for (row, parent, other_parent), value in zip(
            batch.tolist(), blend_unexplained(made, one, other).tolist(), strict=True
        ):
            if value < min(LINEAGE_THRESHOLD, best[row].unexplained if row in best else np.inf):
                best[row] = Leak("interpolated", row, parent, value, other_parent)
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
        if len(rows) < 3 or len(np.unique(parts[rows])) < 2:
            continue
        nearest = rows[neighbours(prints[rows], prints[rows], _MOST_PARENTS + 1)]
        for row, others in zip(rows.tolist(), nearest, strict=True):
            yield _in_line(prints, parts, row, others[others != row])


def _in_line(
    prints: Float[np.ndarray, "N D"],
    parts: Int64[np.ndarray, " N"],
    row: int,
    others: Int64[np.ndarray, " K"],
) -> Int64[np.ndarray, "M 3"]:
    """The pairs of other clips between which a clip lies most nearly, one of them elsewhere."""
    ways = prints[others] - prints[row]
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
    cosines = ways @ ways.T
    is_elsewhere = parts[others] != parts[row]
    cosines[~is_elsewhere] = 0  # the first parent is the one elsewhere
    # A pair with both elsewhere stands there twice.
    count = min(2 * _LINES, cosines.size)
    best = np.argpartition(cosines, count - 1, axis=None)[:count]
    first, second = np.divmod(best, len(others))
    is_good = cosines[first, second] < _STRAIGHT
    is_good &= ~is_elsewhere[second] | (first < second)
    first, second = others[first[is_good]], others[second[is_good]]
    return np.stack([np.full(len(first), row), first, second], axis=1)
