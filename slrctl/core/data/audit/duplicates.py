"""Find clips that are copies of one another in two parts of a set."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.audit.fingerprint import (
    Fingerprints,
    FramedClips,
    body_fingerprint,
    candidates_across,
    mirrored,
    neighbours,
)
from slrctl.core.data.audit.matching import blend_unexplained, rough_difference, sketch, unexplained

COPY_THRESHOLD = 0.015
"""Clips that leave less of each other's movement unexplained are copies (docs/audit.md)."""
# Of the neighbours of a clip, those few are laid over it that are roughly the most alike.
_WORTH_A_LOOK = 4
_ROUGHLY_ALIKE = 1.0
_BATCH = 256
_MOST_REFERENCES = 400
_NEAREST_TAKES = 5

Kind = Literal["exact", "near", "mirrored", "interpolated"]


class Leak(NamedTuple):
    """Two clips, by row, in two parts, one of which tells of the other.

    `first` is an interpolated clip, `second` one that it was made of.
    `unexplained` is the share of the movement by which they differ; 0 where they are the same to
    the bit.
    """

    kind: Kind
    first: int
    second: int
    unexplained: float
    third: int | None = None
    """The other parent of an interpolated clip; `second` is the one in another part."""

    @property
    def rows(self) -> tuple[int, ...]:
        return (self.first, self.second, *(() if self.third is None else (self.third,)))


def digest(clip: Clip) -> bytes:
    """Equal for clips that are the same landmark for landmark, whatever else is said of them."""
    # NaN and 0 have several bit patterns each.
    values = np.where(np.isnan(clip.landmarks), np.float32(np.nan), clip.landmarks + 0)
    return blake2b(values.tobytes(), digest_size=16).digest()


def exact_copies(clips: Sequence[Clip], parts: Int64[np.ndarray, " N"]) -> list[Leak]:
    """Clips that another part shows too: each with the first such clip of every other part."""
    rows_of: dict[bytes, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, clip in enumerate(clips):
        if np.isnan(clip.landmarks).all():
            continue  # shows nothing that could be told
        rows_of[digest(clip)][int(parts[row])].append(row)
    pairs = {
        (min(row, others[0]), max(row, others[0]))
        for by_part in rows_of.values()
        for part, rows in by_part.items()
        for other, others in by_part.items()
        if other != part
        for row in rows
    }
    return [Leak("exact", *pair, 0.0) for pair in sorted(pairs)]


def near_copies(
    clips: FramedClips, prints: Fingerprints, parts: Int64[np.ndarray, " N"]
) -> tuple[list[Leak], Float[np.ndarray, " N"]]:
    """Pairs below the threshold, and for each clip the least difference to another part.

    That is inf where nothing in another part is alike enough to be laid over it.
    """
    leaks, least = [], np.full(len(clips), np.inf)
    for is_mirrored, pairs in candidates_across(prints, parts):
        kind: Kind = "mirrored" if is_mirrored else "near"
        for some, values in compared(clips, pairs, is_mirrored=is_mirrored):
            for column in (0, 1):
                np.minimum.at(least, some[:, column], values)
            leaks += [
                Leak(kind, int(first), int(second), float(value))
                for (first, second), value in zip(some, values, strict=True)
                if value < COPY_THRESHOLD
            ]
    return leaks, least


def compared(
    clips: FramedClips, pairs: Int64[np.ndarray, "M 2"], *, is_mirrored: bool = False
) -> Iterator[tuple[Int64[np.ndarray, "K 2"], Float[np.ndarray, " K"]]]:
    """Lay pairs over one another, batch by batch; leave out those that others are nearer than.

    `is_mirrored` says that the first clip of each pair is to be seen in a mirror.
    """
    plain = sketch(clips)
    first = sketch(clips, is_mirrored=True) if is_mirrored else plain
    rough = np.concatenate(
        [
            np.zeros(0),
            *(
                rough_difference(first, plain, pairs[start : start + _BATCH])
                for start in range(0, len(pairs), _BATCH)
            ),
        ]
    )
    is_near = (_rank_within(pairs[:, 0], rough) < _WORTH_A_LOOK) | (
        _rank_within(pairs[:, 1], rough) < _WORTH_A_LOOK
    )
    pairs = pairs[is_near & (rough < _ROUGHLY_ALIKE)]
    # Clips of like length share a batch, so that little is padded.
    longest = np.array([max(clips.length(a), clips.length(b)) for a, b in pairs.tolist()], int)
    pairs = pairs[np.argsort(longest, kind="stable")]
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        shown = [clips[row] for row in batch[:, 0].tolist()]
        if is_mirrored:
            shown = [mirrored(clip) for clip in shown]
        yield batch, unexplained(shown, [clips[row] for row in batch[:, 1].tolist()])


def _rank_within(
    groups: Int64[np.ndarray, " M"], values: Float[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"]:
    """The rank of each value among those of its group, from 0."""
    order = np.lexsort((values, groups))
    ordered = groups[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else order
    starts = np.repeat(begins, np.diff(np.append(begins, len(ordered))))
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts
    return ranks


def nearest_takes(
    clips: FramedClips, prints: Fingerprints, parts: Int64[np.ndarray, " N"]
) -> Float[np.ndarray, " M"]:
    """The least difference to another clip of the same part, for an even sample of the clips.

    This is how alike two takes of this set can be; where a part holds copies of its own clips,
    those are among them.
    """
    step = -(-len(clips) // _MOST_REFERENCES)
    pairs = [np.zeros((0, 2), np.int64)]
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        asked = rows[rows % step == 0]
        if len(asked) == 0:
            continue
        nearest = rows[neighbours(prints.plain[asked], prints.plain[rows], _NEAREST_TAKES + 1)]
        pairs.append(np.stack([np.repeat(asked, nearest.shape[1]), nearest.ravel()], axis=1))
    joined = np.concatenate(pairs)
    least = dict.fromkeys(range(0, len(clips), step), np.inf)
    for some, values in compared(clips, joined[joined[:, 0] != joined[:, 1]]):
        for row, value in zip(some[:, 0].tolist(), values.tolist(), strict=True):
            least[row] = min(least[row], value)
    return np.array(list(least.values()))


LINEAGE_THRESHOLD = 0.015
"""A clip that two others leave less of its movement unexplained was made of them."""
# Parents are looked for among so many clips of the gloss that are nearest to the made one.
_MOST_PARENTS = 256
_LINES = 8
# Cosine between the ways to both parents: -1 is a straight line.
_STRAIGHT = -0.9
_BATCH_lineage = 256


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
    for start in range(0, len(triples), _BATCH_lineage):
        batch = triples[start : start + _BATCH_lineage]
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
