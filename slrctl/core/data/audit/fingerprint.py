"""A short vector per clip: copies of one recording lie close together.

Arms and hands in the torso's frame are averaged within overlapping windows of time, the hands
about their wrists, and reduced to the directions in which the clips of a set differ. Averaging
makes the vector indifferent to the number of frames and to noise, and forgiving about the ends of
a clip.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int64
from sklearn.neighbors import NearestNeighbors

from slrctl.core import skeleton
from slrctl.core.clip import Clip

_HEAD = [
    skeleton.NOSE,
    skeleton.RIGHT_EYE,
    skeleton.LEFT_EYE,
    skeleton.BODY_NAMES.index("rightEar"),
    skeleton.BODY_NAMES.index("leftEar"),
]
# What the second axis is in shoulder distances: on people the nose lies about so far above the
# neck, so that both axes keep their natural proportion.
_HEAD_HEIGHT = 0.7
# Shoulders and head that nearly lie on one line span no frame.
_LEAST_SINE = 0.1


def in_torso_frame(
    landmarks: Float[np.ndarray, "T 54 2"], aspect: float
) -> Float32[np.ndarray, "T 54 2"]:
    """Return the landmarks in shoulder distances from the neck; missing ones stay missing.

    A clip that shows no shoulders, or neither neck nor head, is measured by the spread of all its
    landmarks instead: that leaves it independent of place and scale, and of nothing more.
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
    """Medians over time of what is known; several times as fast as numpy's for short clips."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    count = (~np.isnan(values)).sum(axis=0)[None]
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=0)
    high = np.take_along_axis(ordered, np.minimum(count // 2, len(values) - 1), axis=0)
    return ((low + high) / 2)[0]


def mirrored(clip: Float32[np.ndarray, "T 54 2"]) -> Float32[np.ndarray, "T 54 2"]:
    """The mirror image of a clip in its torso's frame."""
    return clip[:, skeleton.MIRROR] * np.array([-1, 1], dtype=np.float32)


# Neighbouring pairs ask for the same clips; a few thousand take less than 100 MB.
_MOST_KEPT = 4096


Frame = Callable[[Float32[np.ndarray, "T 54 2"], float], Float32[np.ndarray, "T 54 2"]]


def in_image_frame(
    landmarks: Float32[np.ndarray, "T 54 2"], aspect: float
) -> Float32[np.ndarray, "T 54 2"]:
    """The coordinates as they stand in the file, whatever the aspect."""
    return landmarks


class FramedClips:
    """A sequence of framed clips that remembers only the last few thousand."""

    def __init__(self, clips: Sequence[Clip], frame: Frame = in_torso_frame) -> None:
        self._clips = clips
        self._frame = frame
        self._kept: dict[int, Float32[np.ndarray, "T 54 2"]] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: int) -> Float32[np.ndarray, "T 54 2"]:
        if row not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]  # the oldest
            clip = self._clips[row]
            self._kept[row] = self._frame(clip.landmarks, clip.aspect)
        return self._kept[row]

    def length(self, row: int) -> int:
        """The number of frames, which takes no framing."""
        return self._clips[row].num_frames


NUM_WINDOWS = 8
NUM_DIMENSIONS = 48
# More clips hardly turn the directions, but take memory: 750 numbers each.
_MOST_SAMPLED = 4000
NUM_NEIGHBOURS = 12

ARMS = [
    skeleton.RIGHT_ELBOW,
    skeleton.LEFT_ELBOW,
    skeleton.RIGHT_WRIST,
    skeleton.LEFT_WRIST,
]
# Wrists say where a sign is made; the many landmarks of a hand count together about as much.
_WEIGHTS = np.concatenate([[1.0, 1.0, 3.0, 3.0], np.full(2 * skeleton.NUM_HAND, 0.5)])
_PRESENCE_WEIGHT = 0.5


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """A vector for each clip as it is, and one for its mirror image, in the same order."""

    plain: Float32[np.ndarray, "N D"]
    mirrored: Float32[np.ndarray, "N D"]


def describe(clip: Float32[np.ndarray, "T 54 2"]) -> Float32[np.ndarray, " D"]:
    """Average arms, hands and their presence within windows of time; 0 where there is nothing."""
    hands = clip[:, skeleton.NUM_BODY :].reshape(-1, 2, skeleton.NUM_HAND, 2)
    wrists = clip[:, [skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST], None]
    about_wrists = (hands - wrists).reshape(len(clip), -1, 2)
    points = np.concatenate([clip[:, ARMS], about_wrists], axis=1)
    has_hand = ~np.isnan(hands).any(-1).all(-1)
    kernel = _windows(len(clip))
    means = _averages(kernel, points) * _WEIGHTS[:, None]
    presence = kernel @ has_hand / kernel.sum(1, keepdims=True) * _PRESENCE_WEIGHT
    return np.concatenate([means.ravel(), presence.ravel()]).astype(np.float32)


def describe_body(clip: Float32[np.ndarray, "T 54 2"]) -> Float32[np.ndarray, " D"]:
    """Average the body within windows of time.

    It is nearly always there, so the averages of a blend are the blend of the averages.
    """
    return _averages(_windows(len(clip)), clip[:, skeleton.BODY]).ravel().astype(np.float32)


def _windows(num_frames: int) -> Float[np.ndarray, "W T"]:
    """The weight of each frame in each window; they overlap by half."""
    times, centers = np.linspace(0, 1, num_frames), np.linspace(0, 1, NUM_WINDOWS)
    distance = np.abs(times - centers[:, None]) * (NUM_WINDOWS - 1)
    return np.maximum(1 - distance, 1e-6)  # a window without a frame takes what is nearest


def _averages(
    kernel: Float[np.ndarray, "W T"], points: Float32[np.ndarray, "T V 2"]
) -> Float[np.ndarray, "W V 2"]:
    is_known = ~np.isnan(points[..., 0] + points[..., 1])
    known = np.where(is_known[..., None], points, 0)
    totals = kernel @ known.reshape(len(points), -1)
    counts = kernel @ is_known
    means = totals.reshape(len(kernel), -1, 2) / np.maximum(counts, 1e-9)[..., None]
    return np.where(counts[..., None] > 1e-3, means, 0)


def fingerprint(clips: FramedClips) -> Fingerprints:
    """Describe every clip and its mirror image in the directions in which the clips differ most."""
    mean, basis = main_directions(clips, describe)
    size = (len(clips), basis.shape[1])
    plain, mirror = np.empty(size, np.float32), np.empty(size, np.float32)
    for row in range(len(clips)):
        plain[row] = (describe(clips[row]) - mean) @ basis
        mirror[row] = (describe(mirrored(clips[row])) - mean) @ basis
    return Fingerprints(plain, mirror)


def body_fingerprint(clips: FramedClips) -> Float32[np.ndarray, "N D"]:
    """Describe the body of every clip in the directions in which the set differs most."""
    mean, basis = main_directions(clips, describe_body)
    return np.stack([(describe_body(clips[row]) - mean) @ basis for row in range(len(clips))])


def main_directions(
    clips: FramedClips, describe: Callable[[Float32[np.ndarray, "T 54 2"]], np.ndarray]
) -> tuple[Float32[np.ndarray, " D"], Float32[np.ndarray, "D K"]]:
    """Mean and main directions of a sample of the clips."""
    step = -(-len(clips) // _MOST_SAMPLED)
    sample = np.stack([describe(clips[row]) for row in range(0, len(clips), step)])
    mean = sample.mean(axis=0)
    _, _, directions = np.linalg.svd(sample - mean, full_matrices=False)
    return mean, directions[:NUM_DIMENSIONS].T


def neighbours(
    queries: Float32[np.ndarray, "Q D"], clips: Float32[np.ndarray, "N D"], count: int
) -> Int64[np.ndarray, "Q K"]:
    """Rows of the nearest clips of each query, the nearest first."""
    index = NearestNeighbors(n_neighbors=min(count, len(clips)), algorithm="brute").fit(clips)
    return index.kneighbors(queries, return_distance=False)


def candidates_across(
    prints: Fingerprints, parts: Int64[np.ndarray, " N"], count: int = NUM_NEIGHBOURS
) -> Iterator[tuple[bool, Int64[np.ndarray, "M 2"]]]:
    """Pairs of clips from two parts that may be copies, first as they are, then mirrored.

    Every clip is looked for in every other part, so a part cannot hide behind a larger one. Each
    pair comes once, the lower row first.
    """
    for is_mirrored, vectors in ((False, prints.plain), (True, prints.mirrored)):
        found = []
        for part in np.unique(parts):
            inside, outside = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
            if len(outside) == 0:
                continue
            nearest = neighbours(vectors[outside], prints.plain[inside], count)
            pairs = np.stack(
                [np.repeat(outside, nearest.shape[1]), inside[nearest].ravel()], axis=1
            )
            found.append(np.sort(pairs, axis=1))
        empty = np.zeros((0, 2), np.int64)
        yield is_mirrored, np.unique(np.concatenate([empty, *found]), axis=0)
