"""Lay one clip over another: a line maps the time of one to the other, an affine map the image.

Pairs are laid over one another in batches: P pairs, Q frames of the first clip, T frames of the
second, V landmarks. NaN stands for missing landmarks and for padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core import skeleton
from slrctl.core.data.audit.fingerprint import ARMS

MOVING = np.array([*ARMS, *range(skeleton.NUM_BODY, skeleton.NUM_LANDMARKS)])
"""The landmarks that are compared; torso and head hardly move."""
MOST_FRAMES = 32
"""Frames of the first clip that are laid on the second; of more, as many are picked evenly."""
LEAST_REPEATED = 0.05
"""How far a signer strays who takes up a posture anew, in shoulder distances, however little the
sign moves: docs/audit.md."""
# Where a copy may begin and end in the other clip, in shares of its length.
SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)
_FARTHEST = 0.45
_LONGEST_STEP = 0.1
_ROUNDS = 8
# To find the place in time roughly, a few frames, the arms and five landmarks a hand will do.
_FEW_FRAMES = 16
FEW_LANDMARKS = [0, 1, 2, 3, 4, 5, 12, 17, 21, 25, 26, 33, 38, 42]
# To lay one clip over another exactly, every third landmark of a hand.
SOME_LANDMARKS = [0, 1, 2, 3, *range(4, len(MOVING), 3)]

Moving = Float[np.ndarray, "P _ V 2"]
Image = Float[np.ndarray, "P 3 2"]


class Laid(NamedTuple):
    """Frames of the first clips, moved onto the second, and where in the second they lie.

    `ends` are the places of the first and the last frame, 0 being the first and 1 the last frame of
    the second clip; `positions` count its frames, NaN where the first clip is padded.
    """

    points: Float[np.ndarray, "P Q V 2"]
    ends: Float[np.ndarray, "P 2"]
    positions: Float[np.ndarray, "P Q"]


class Pairs(NamedTuple):
    """Clips to compare, padded: picked frames of the first with their times, the second whole."""

    first: Float[np.ndarray, "P Q V 2"]
    times: Float[np.ndarray, "P Q"]
    second: Float[np.ndarray, "P T V 2"]
    lengths: Int64[np.ndarray, " P"]


def pair_up(
    first: Sequence[Float[np.ndarray, "_ 54 2"]], second: Sequence[Float[np.ndarray, "_ 54 2"]]
) -> Pairs:
    """Pad clips in the frame of their torso; of long first clips, pick frames evenly."""
    picks = [
        np.rint(np.linspace(0, len(clip) - 1, min(len(clip), MOST_FRAMES))).astype(np.int64)
        for clip in first
    ]
    times = np.full((len(first), max(map(len, picks))), np.nan)
    for row, chosen, clip in zip(times, picks, first, strict=True):
        row[: len(chosen)] = chosen / max(len(clip) - 1, 1)
    return Pairs(
        _padded([clip[chosen] for clip, chosen in zip(first, picks, strict=True)]),
        times,
        _padded(second),
        np.array([len(clip) for clip in second]),
    )


def _padded(clips: Sequence[Float[np.ndarray, "_ 54 2"]]) -> Moving:
    shape = (len(clips), max(map(len, clips)), len(MOVING), 2)
    points = np.full(shape, np.nan, np.float32)
    for row, clip in zip(points, clips, strict=True):
        row[: len(clip)] = clip[:, MOVING]
    return points


def lay_over(pairs: Pairs) -> Laid:
    """Find the line and the affine map under which the first clips differ least from the second."""
    ends, image = _rough_ends(pairs), identity_image(len(pairs.first))
    some = with_landmarks(pairs, SOME_LANDMARKS)
    least = np.full(len(ends), np.inf)
    best_ends, best_image = ends, image
    for _ in range(_ROUNDS + 1):
        cost, next_ends, next_image = _refined(some, ends, image)
        # A step in the dark, where hardly anything moves, may lead away.
        is_better = cost < least
        least = np.where(is_better, cost, least)
        best_ends = np.where(is_better[:, None], ends, best_ends)
        best_image = np.where(is_better[:, None, None], image, best_image)
        ends, image = next_ends, next_image
    ends, image = best_ends, best_image
    return Laid(moved(pairs.first, image), ends, _positions(pairs, ends))


def with_landmarks(pairs: Pairs, landmarks: list[int]) -> Pairs:
    """The same pairs with some of their landmarks."""
    return pairs._replace(first=pairs.first[:, :, landmarks], second=pairs.second[:, :, landmarks])


def is_there(points: Float[np.ndarray, "P Q V 2"]) -> Bool[np.ndarray, "P Q V"]:
    """True where a landmark is known."""
    return ~np.isnan(points[..., 0] + points[..., 1])


def identity_image(count: int) -> Image:
    image = np.zeros((count, 3, 2), np.float32)
    image[:, [0, 1], [0, 1]] = 1
    return image


def moved(points: Moving, image: Image) -> Moving:
    return points @ image[:, None, :2] + image[:, None, 2:]


def fit_image(points: Moving, target: Moving) -> Image:
    """The affine map that brings points nearest to their targets."""
    is_known = is_there(points + target)
    weight = is_known[..., None].astype(np.float64)
    known = np.where(is_known[..., None], points, 0)
    rows = np.concatenate([known, weight], axis=-1).reshape(len(points), -1, 3)
    wanted = np.where(is_known[..., None], target, 0).reshape(len(points), -1, 2)
    normal = rows.swapaxes(1, 2) @ rows
    return solved(normal, rows.swapaxes(1, 2) @ wanted, 1e-9).astype(np.float32)


def frames_at(
    pairs: Pairs, positions: Float[np.ndarray, "P Q"]
) -> tuple[Float[np.ndarray, "P Q V 2"], Float[np.ndarray, "P Q V 2"]]:
    """The second clips between their frames, and their slope there; NaN beyond their ends."""
    last = (pairs.lengths - 1)[:, None]
    known = np.nan_to_num(positions, nan=-9.0)
    low = np.clip(np.floor(known), 0, np.maximum(last - 1, 0)).astype(np.int64)
    share = np.clip(known - low, 0, 1)[..., None, None].astype(np.float32)
    rows = np.arange(len(last))[:, None]
    below, above = pairs.second[rows, low], pairs.second[rows, np.minimum(low + 1, last)]
    slope = above - below
    # On a recorded frame its neighbour may be missing.
    values = np.where(share == 0, below, np.where(share == 1, above, below + share * slope))
    values[(known < -0.5) | (known > last + 0.5)] = np.nan
    return values, slope


def _positions(pairs: Pairs, ends: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P Q"]:
    start, end = ends[:, :1], ends[:, 1:]
    return (start + (end - start) * pairs.times) * (pairs.lengths - 1)[:, None]


def gap_per_frame(points: Moving, values: Moving) -> Float[np.ndarray, "P Q"]:
    """Mean squared gap over the landmarks both show, the dearer the fewer of them there are."""
    gap = points - values
    is_both = is_there(gap)
    num_both, num_known = is_both.sum(-1), is_there(points).sum(-1)
    squares = np.where(is_both[..., None], gap * gap, 0).sum((-2, -1))
    share = num_both / np.maximum(num_known, 1)
    cost = squares / np.maximum(num_both, 1) / np.maximum(share, 0.1)
    return np.where(num_both > 0, cost, np.inf)


def _rough_ends(pairs: Pairs) -> Float[np.ndarray, "P 2"]:
    """The best of a grid of places in time, on a few frames and landmarks."""
    count = pairs.first.shape[1]
    picks = np.unique(np.rint(np.linspace(0, count - 1, min(count, _FEW_FRAMES))).astype(int))
    few = with_landmarks(
        pairs._replace(first=pairs.first[:, picks], times=pairs.times[:, picks]), FEW_LANDMARKS
    )
    least = np.full(len(pairs.first), np.inf)
    ends = np.tile([0.0, 1.0], (len(pairs.first), 1))
    merged = (len(ends), 1, -1, 2)  # all frames count as one
    for start in SHIFTS:
        for shift in SHIFTS:
            place = np.tile([start, 1 + shift], (len(ends), 1))
            values = recorded_at(few, _positions(few, place))
            cost = gap_per_frame(few.first.reshape(merged), values.reshape(merged))[:, 0]
            is_better = cost < least
            least = np.where(is_better, cost, least)
            ends[is_better] = place[is_better]
    return ends


def recorded_at(pairs: Pairs, positions: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "P Q V 2"]:
    """The recorded frames of the second clips nearest to these places; NaN beyond their ends."""
    index = np.rint(np.nan_to_num(positions, nan=-9.0)).astype(np.int64)
    last = (pairs.lengths - 1)[:, None]
    values = pairs.second[np.arange(len(last))[:, None], np.clip(index, 0, last)]
    values[(index < 0) | (index > last)] = np.nan
    return values


def _refined(
    pairs: Pairs, ends: Float[np.ndarray, "P 2"], image: Image
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P 2"], Image]:
    """One Gauss-Newton step in the two ends and the six numbers of the affine map.

    Returns:
        What remained before the step, and the ends and the map after it.
    """
    values, slope = frames_at(pairs, _positions(pairs, ends))
    points = moved(pairs.first, image)
    gap = points - values
    merged = (len(ends), 1, -1, 2)
    cost = gap_per_frame(points.reshape(merged), values.reshape(merged))[:, 0]
    is_known = is_there(gap + slope)[..., None]
    point, slope, gap = (np.where(is_known, a, 0) for a in (pairs.first, slope, gap))
    one = is_known.astype(np.float32)
    zero = np.zeros_like(one)
    time = np.nan_to_num(pairs.times)[:, :, None, None]
    along = slope * (pairs.lengths - 1)[:, None, None, None]
    rows = []
    for axis in (0, 1):
        affine = [zero] * 6
        affine[3 * axis : 3 * axis + 3] = [-point[..., :1], -point[..., 1:], -one]
        both_ends = along[..., axis, None] * np.concatenate([1 - time, time], axis=-1)
        row = np.concatenate([both_ends, *affine], axis=-1, dtype=np.float32)
        rows.append(row.reshape(len(ends), -1, 8))
    jacobian = np.concatenate(rows, axis=1)
    rest = gap.transpose(0, 3, 1, 2).reshape(len(ends), -1, 1)
    transposed = jacobian.swapaxes(1, 2)
    step = solved(transposed @ jacobian, transposed @ rest, 1e-6)[..., 0]
    ends = ends + np.clip(step[:, :2], -_LONGEST_STEP, _LONGEST_STEP)
    ends = np.clip(ends, [-_FARTHEST, 1 - _FARTHEST], [_FARTHEST, 1 + _FARTHEST])
    return cost, ends, image + step[:, 2:].reshape(-1, 2, 3).swapaxes(1, 2).astype(np.float32)


def solved(normal: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solve normal equations that a still clip leaves singular."""
    normal = normal.astype(np.float64)
    diagonal = np.arange(normal.shape[1])
    trace = np.maximum(np.trace(normal, axis1=1, axis2=2), 1e-9)
    normal[:, diagonal, diagonal] += ridge * trace[:, None]
    return np.linalg.solve(normal, right.astype(np.float64))
