"""Copies between the splits of a set, and clips interpolated between two others.

Every clip is expressed in the frame of its own torso. A short vector for each, its fingerprint,
gives candidates among the clips of other splits; those roughly most alike are laid over one another
(`matching.py`).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float16, Float32, Int64
from sklearn.neighbors import NearestNeighbors

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.audit.matching import (
    ARMS,
    FEW_LANDMARKS,
    LEAST_REPEATED,
    LINES,
    MOVING,
    blend_unexplained,
    unexplained,
)
from slrctl.core.data.cache import landmarks_digest

COPY_THRESHOLD = 0.015
"""Clips that leave less of each other's movement unexplained are copies (`docs/audit.md`)."""
INTERPOLATION_THRESHOLD = 0.015
"""A clip of whose movement two others leave less unexplained is interpolated between them."""

Kind = Literal["exact", "near", "mirrored", "interpolated"]


class Leak(NamedTuple):
    """Two clips, by row, in two splits, one of which is derived from the other.

    `first` is an interpolated clip, `second` one of the two that it lies between.
    `unexplained` is the share of the movement by which they differ; 0 where they are bit-identical.
    """

    kind: Kind
    first: int
    second: int
    unexplained: float
    third: int | None = None
    """The other parent of an interpolated clip; `second` is the one in another split."""

    @property
    def rows(self) -> tuple[int, ...]:
        return (self.first, self.second, *(() if self.third is None else (self.third,)))


# --- exact copies ---------------------------------------------------------------------------------


def digest(clip: Clip) -> int:
    """Hash the landmarks of a clip, whatever else is known of it."""
    # NaN and 0 have several bit patterns each.
    values = np.where(np.isnan(clip.landmarks), np.float32(np.nan), clip.landmarks + 0)
    return landmarks_digest(values)


def exact_copies(clips: Sequence[Clip], splits: Int64[np.ndarray, " N"]) -> list[Leak]:
    """Pair each clip with the first identical clip of every other split."""
    rows_of: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, clip in enumerate(clips):
        if not np.isnan(clip.landmarks).all():
            rows_of[digest(clip)][int(splits[row])].append(row)
    pairs = {
        (min(row, others[0]), max(row, others[0]))
        for by_split in rows_of.values()
        for split, rows in by_split.items()
        for other, others in by_split.items()
        if other != split
        for row in rows
    }
    return [Leak("exact", *pair, 0.0) for pair in sorted(pairs)]


# --- the frame of the torso -----------------------------------------------------------------------

_HEAD = [
    skeleton.NOSE,
    skeleton.RIGHT_EYE,
    skeleton.LEFT_EYE,
    skeleton.BODY_NAMES.index("rightEar"),
    skeleton.BODY_NAMES.index("leftEar"),
]
# The height of the nose above the neck in shoulder distances, on people, so that both axes keep
# their natural proportion.
_HEAD_HEIGHT = 0.7
# Shoulders and head that nearly lie on one line span no frame.
_LEAST_SINE = 0.1
# Neighbouring pairs need the same clips; so many take less than 100 MB.
_MOST_KEPT = 4096

Landmarks = Float32[np.ndarray, "T 54 2"]


def in_torso_frame(landmarks: Float[np.ndarray, "T 54 2"], aspect: float) -> Landmarks:
    """Return the landmarks in shoulder distances from the neck; missing ones stay missing.

    A clip without shoulders, or without both neck and head, is measured by the spread of all its
    landmarks instead: that is independent of place and scale, but not of rotation.
    """
    points = landmarks.astype(np.float64) * [aspect, 1.0]
    if np.isnan(points).all():
        return points.astype(np.float32)
    across = points[:, skeleton.LEFT_SHOULDER] - points[:, skeleton.RIGHT_SHOULDER]
    across, neck, *head = _medians(
        np.stack([across, points[:, skeleton.NECK], *points[:, _HEAD].swapaxes(0, 1)], axis=1)
    )
    known = [place for place in head if not np.isnan(place).any()]
    down = (neck - np.mean(known, axis=0)) / _HEAD_HEIGHT if known else np.full(2, np.nan)
    axes = np.stack([across, down], axis=1)
    size = math.hypot(*across) * math.hypot(*down)
    area = across[0] * down[1] - across[1] * down[0]
    if not abs(area) > _LEAST_SINE * size:  # one of them may be NaN
        neck = np.nanmean(points, axis=(0, 1))
        axes = np.eye(2) * max(np.nanstd(points - neck), 1e-12)
    return ((points - neck) @ np.linalg.inv(axes).T).astype(np.float32)


def _medians(values: Float[np.ndarray, "T N 2"]) -> Float[np.ndarray, "N 2"]:
    """Return medians over time of known values; several times as fast as numpy's on short clips."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    count = (~np.isnan(values)).sum(axis=0)[None]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=0)
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1), axis=0)
    return ((low + high) / 2)[0]


def mirrored(clip: Landmarks) -> Landmarks:
    """Return the mirror image of a clip in its torso's frame."""
    return clip[:, skeleton.MIRROR] * np.array([-1, 1], dtype=np.float32)


# --- fingerprints ---------------------------------------------------------------------------------

_NUM_WINDOWS, _NUM_DIMENSIONS = 8, 48
# More clips hardly turn the directions, but take memory: 750 numbers each.
_MOST_SAMPLED = 4000
# Wrists give the place of a sign; the many landmarks of a hand count together about as much.
_WEIGHTS = np.concatenate([[1.0, 1.0, 3.0, 3.0], np.full(2 * skeleton.NUM_HAND, 0.5)])
_PRESENCE_WEIGHT = 0.5


Vector = Float32[np.ndarray, " D"]


def describe(clip: Landmarks) -> Vector:
    """Average arms, hands about their wrists, and presence within windows of time; 0 if missing.

    Averages depend little on the number of frames, on noise and on the ends of a clip.
    """
    hands = clip[:, skeleton.NUM_BODY :].reshape(-1, 2, skeleton.NUM_HAND, 2)
    wrists = clip[:, [skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST], None]
    about_wrists = (hands - wrists).reshape(len(clip), -1, 2)
    points = np.concatenate([clip[:, ARMS], about_wrists], axis=1)
    has_hand = ~np.isnan(hands).any(-1).all(-1)
    kernel = _windows(len(clip))
    means = _averages(kernel, points) * _WEIGHTS[:, None]
    presence = kernel @ has_hand / kernel.sum(1, keepdims=True) * _PRESENCE_WEIGHT
    return np.concatenate([means.ravel(), presence.ravel()]).astype(np.float32)


def _describe_body(clip: Landmarks) -> Vector:
    """Average the body within windows of time.

    It is nearly always present, so the averages of a blend are the blend of the averages.
    """
    return _averages(_windows(len(clip)), clip[:, skeleton.BODY]).ravel().astype(np.float32)


def _windows(num_frames: int) -> Float[np.ndarray, "W T"]:
    """Return the weight of each frame in each window; they overlap by half."""
    times, centers = np.linspace(0, 1, num_frames), np.linspace(0, 1, _NUM_WINDOWS)
    distance = np.abs(times - centers[:, None]) * (_NUM_WINDOWS - 1)
    return np.maximum(1 - distance, 1e-6)  # a window without a frame takes the nearest


def _averages(
    kernel: Float[np.ndarray, "W T"], points: Float32[np.ndarray, "T V 2"]
) -> Float[np.ndarray, "W V 2"]:
    is_known = ~np.isnan(points[..., 0] + points[..., 1])
    known = np.where(is_known[..., None], points, 0)
    totals = kernel @ known.reshape(len(points), -1)
    counts = kernel @ is_known
    means = totals.reshape(len(kernel), -1, 2) / np.maximum(counts, 1e-9)[..., None]
    return np.where(counts[..., None] > 1e-3, means, 0)


def main_directions(
    vector_of: Callable[[int], Vector], num_clips: int
) -> Callable[[Vector], Vector]:
    """Return the projection onto the directions in which a sample of the clips differs most."""
    step = -(-num_clips // _MOST_SAMPLED)
    sample = np.stack([vector_of(row) for row in range(0, num_clips, step)])
    mean = sample.mean(axis=0)
    _, _, directions = np.linalg.svd(sample - mean, full_matrices=False)
    basis = directions[:_NUM_DIMENSIONS].T
    return lambda vector: (vector - mean) @ basis


def _nearest(
    queries: Float32[np.ndarray, "Q D"], clips: Float32[np.ndarray, "N D"], count: int
) -> Int64[np.ndarray, "Q K"]:
    """Return the rows of the clips nearest to each query, the nearest first."""
    index = NearestNeighbors(n_neighbors=min(count, len(clips)), algorithm="brute").fit(clips)
    return index.kneighbors(queries, return_distance=False)


# --- near copies ----------------------------------------------------------------------------------

_NUM_NEIGHBOURS = 12
# Of the neighbours of a clip, those few are laid over it that are roughly the most alike.
_WORTH_A_LOOK = 4
_ROUGHLY_ALIKE = 1.0
_BATCH = 256
_NUM_TIMES, _NUM_COMPARED = 32, 16
_MOST_REFERENCES, _NEAREST_TAKES = 400, 5

Sketches = Float16[np.ndarray, "N 32 V 2"]
Pairs = Int64[np.ndarray, "M 2"]


def _sketch(clip: Landmarks) -> Float16[np.ndarray, "32 V 2"]:
    """Return arms and five landmarks a hand at 32 even places in time: 1.8 kB."""
    picks = np.rint(np.linspace(0, len(clip) - 1, _NUM_TIMES)).astype(np.int64)
    return clip[picks][:, MOVING[FEW_LANDMARKS]].astype(np.float16)


def _rough_difference(first: Sketches, second: Sketches, pairs: Pairs) -> Float[np.ndarray, " M"]:
    """Return the gap under the best line over the movement: root mean squares of both."""
    times = np.linspace(0, 1, _NUM_COMPARED)
    points = first[pairs[:, 0]][:, np.rint(times * (_NUM_TIMES - 1)).astype(int)]
    points = points.astype(np.float32)
    others = second[pairs[:, 1]].astype(np.float32)
    num_known = np.maximum((~np.isnan(points[..., 0])).sum((1, 2)), 1)
    least = np.full(len(pairs), np.inf)
    for start, end in LINES:
        places = np.rint((start + (end - start) * times) * (_NUM_TIMES - 1)).astype(int)
        is_inside = (places >= 0) & (places < _NUM_TIMES)
        gap = points[:, is_inside] - others[:, places[is_inside]]
        squares = (gap * gap).sum(-1)
        num_both = np.maximum((~np.isnan(squares)).sum((1, 2)), 1)
        share = np.maximum(num_both / num_known, 0.1)
        least = np.fmin(least, np.nansum(squares, axis=(1, 2)) / num_both / share)
    center = np.nansum(points, axis=1) / np.maximum((~np.isnan(points)).sum(1), 1)
    movement = np.nansum((points - center[:, None]) ** 2, axis=(1, 2, 3)) / num_known
    return np.sqrt(least / (movement + LEAST_REPEATED**2))


def _rank_within(
    groups: Int64[np.ndarray, " M"], values: Float[np.ndarray, " M"]
) -> Int64[np.ndarray, " M"]:
    """Return the rank of each value among those of its group, from 0."""
    order = np.lexsort((values, groups))
    _, counts = np.unique(groups, return_counts=True)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.concatenate([np.zeros(0, np.int64), *map(np.arange, counts)])
    return ranks


class CopySearch:
    """Search for near copies, in the frame of the torso, by fingerprint, sketch and matching.

    `prints` and `sketches` hold those of all clips, then those of their mirror images.
    """

    def __init__(self, clips: Sequence[Clip], splits: Int64[np.ndarray, " N"]) -> None:
        def framed(row: int) -> Landmarks:
            return in_torso_frame(clips[row].landmarks, clips[row].aspect)

        self.splits = splits
        self.lengths = np.array([clip.num_frames for clip in clips])
        self.framed = lru_cache(_MOST_KEPT)(framed)
        project = main_directions(lambda row: describe(self.framed(row)), len(clips))
        prints, sketches = ([], []), ([], [])
        for row in range(len(clips)):
            clip = self.framed(row)
            for image, seen in enumerate((clip, mirrored(clip))):
                prints[image].append(project(describe(seen)))
                sketches[image].append(_sketch(seen))
        self.prints, self.sketches = list(map(np.stack, prints)), list(map(np.stack, sketches))

    def between_splits(self) -> tuple[list[Leak], Float[np.ndarray, " N"]]:
        """Return pairs below the threshold, and each clip's least difference to another split.

        Every clip is looked for in every other split, so a split cannot hide behind a larger one.
        The difference is inf where no candidate in another split is alike enough to be compared.
        """
        leaks, least = [], np.full(len(self.splits), np.inf)
        kinds: tuple[Kind, Kind] = ("near", "mirrored")
        for kind, queries in zip(kinds, self.prints, strict=True):
            found = []
            for split in np.unique(self.splits):
                is_inside = self.splits == split
                outside, inside = np.flatnonzero(~is_inside), np.flatnonzero(is_inside)
                found.append(self._candidates(queries, outside, inside, _NUM_NEIGHBOURS))
            pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
            for batch, values in self._compared(pairs, is_mirrored=kind == "mirrored"):
                for column in batch.T:
                    np.minimum.at(least, column, values)
                leaks += [
                    Leak(kind, int(first), int(second), float(value))
                    for (first, second), value in zip(batch, values, strict=True)
                    if value < COPY_THRESHOLD
                ]
        return leaks, least

    def within_splits(self) -> Float[np.ndarray, " M"]:
        """Return the least difference to another clip of the same split, for a sample of the clips.

        It shows how alike two takes of this set can be; copies within a split are among them.
        """
        least = np.full(len(self.splits), np.inf)
        step = -(-len(least) // _MOST_REFERENCES)
        found = [np.zeros((0, 2), np.int64)]
        for split in np.unique(self.splits):
            rows = np.flatnonzero(self.splits == split)
            asked = rows[rows % step == 0]
            if len(asked):
                found.append(self._candidates(self.prints[0], asked, rows, _NEAREST_TAKES + 1))
        pairs = np.concatenate(found)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        for batch, values in self._compared(pairs, is_mirrored=False):
            np.minimum.at(least, batch[:, 0], values)
        return least[::step]

    def _candidates(
        self,
        queries: Float32[np.ndarray, "N D"],
        rows: Int64[np.ndarray, " Q"],
        others: Int64[np.ndarray, " O"],
        count: int,
    ) -> Pairs:
        """Pair each row with those others whose fingerprints are nearest to its query."""
        nearest = others[_nearest(queries[rows], self.prints[0][others], count)]
        return np.stack([np.repeat(rows, nearest.shape[1]), nearest.ravel()], axis=1)

    def _compared(
        self, pairs: Pairs, *, is_mirrored: bool
    ) -> Iterator[tuple[Int64[np.ndarray, "K 2"], Float[np.ndarray, " K"]]]:
        """Lay the roughly most alike pairs over one another, batch by batch.

        The first clip of each pair is mirrored if `is_mirrored`.
        """
        first, second = self.sketches[is_mirrored], self.sketches[0]
        starts = range(0, len(pairs), _BATCH)
        rough = np.concatenate(
            [
                np.zeros(0),
                *(_rough_difference(first, second, pairs[s : s + _BATCH]) for s in starts),
            ]
        )
        is_near = (_rank_within(pairs[:, 0], rough) < _WORTH_A_LOOK) | (
            _rank_within(pairs[:, 1], rough) < _WORTH_A_LOOK
        )
        pairs = pairs[is_near & (rough < _ROUGHLY_ALIKE)]
        # Clips of like length share a batch, so that little is padded.
        pairs = pairs[np.argsort(self.lengths[pairs].max(axis=1), kind="stable")]
        for start in range(0, len(pairs), _BATCH):
            batch = pairs[start : start + _BATCH]
            ones, others = ([self.framed(row) for row in column.tolist()] for column in batch.T)
            yield batch, unexplained([mirrored(c) for c in ones] if is_mirrored else ones, others)


# --- interpolated clips ---------------------------------------------------------------------------

# Parents are looked for among so many clips of the gloss that are nearest to the clip.
_MOST_PARENTS = 256
_MOST_LINES = 8
# Cosine between the directions to both parents: -1 is a straight line.
_STRAIGHT = -0.9


def interpolated(clips: Sequence[Clip], splits: Int64[np.ndarray, " N"]) -> list[Leak]:
    """Find clips between two others of their gloss, at least one of which is in another split.

    They are compared in the coordinates of their file, in which they were interpolated; the
    torso's frame bends lines.
    """

    def described(row: int) -> Vector:
        return _describe_body(clips[row].landmarks)

    project = main_directions(described, len(clips))
    prints = np.stack([project(described(row)) for row in range(len(clips))])
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, clip in enumerate(clips):
        rows_of[clip.gloss].append(row)
    found = [np.zeros((0, 3), np.int64)]
    for rows in map(np.array, rows_of.values()):
        if len(rows) < 3 or len(np.unique(splits[rows])) < 2:
            continue
        nearest = rows[_nearest(prints[rows], prints[rows], _MOST_PARENTS + 1)]
        for row, others in zip(rows.tolist(), nearest, strict=True):
            found.append(_in_line(prints, splits, row, others[others != row]))
    triples = np.concatenate(found)
    best: dict[int, Leak] = {}
    for start in range(0, len(triples), _BATCH):
        batch = triples[start : start + _BATCH]
        shares = blend_unexplained(*([clips[r].landmarks for r in column] for column in batch.T))
        for (row, parent, other_parent), value in zip(batch.tolist(), shares.tolist(), strict=True):
            if value < min(INTERPOLATION_THRESHOLD, best[row].unexplained if row in best else 1.0):
                best[row] = Leak("interpolated", row, parent, value, other_parent)
    return list(best.values())


def _in_line(
    prints: Float[np.ndarray, "N D"],
    splits: Int64[np.ndarray, " N"],
    row: int,
    others: Int64[np.ndarray, " K"],
) -> Int64[np.ndarray, "M 3"]:
    """Return the clip with the pairs that it lies most nearly between, the first one elsewhere."""
    ways = prints[others] - prints[row]
    ways /= np.maximum(np.linalg.norm(ways, axis=1, keepdims=True), 1e-9)
    cosines = ways @ ways.T
    is_elsewhere = splits[others] != splits[row]
    cosines[~is_elsewhere] = 0
    # A pair with both elsewhere stands there twice.
    count = min(2 * _MOST_LINES, cosines.size)
    best = np.argpartition(cosines, count - 1, axis=None)[:count]
    first, second = np.divmod(best, len(others))
    is_good = cosines[first, second] < _STRAIGHT
    is_good &= ~is_elsewhere[second] | (first < second)
    first, second = others[first[is_good]], others[second[is_good]]
    return np.stack([np.full(len(first), row), first, second], axis=1)
