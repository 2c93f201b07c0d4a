"""The share of the movement of one clip that another clip leaves unexplained.

One clip is laid over the other: a line maps the time of one to the other, an affine map the image.
Nothing remains of a copy but noise, whatever was done to it, and noise does not last from one frame
to the next. Between two takes of a sign, by the same person too, differences of posture and timing
remain, and they last. So the remainder is measured by the product of neighbouring frames, in which
independent noise averages out:

    unexplained = (lasting / rest^2)^1.5 * rest / movement

`lasting` is the mean of r(t) r(t+k) over frames and landmarks, its size plus two standard errors, r
being the remainder, and of k = 1, 2, 4 the largest. `rest` is the typical size of r: the root of
the median over frames of its mean square, so that one bad frame is not taken for noise. `movement`
is the root of the same product for the clip itself about its mean, and at least the distance by
which signers miss a posture that they repeat.

Where frames were dropped unevenly no line maps time to time. Recorded frames near the line are
tried instead, and then the size of r over `movement` counts, since a choice of frames looks like
noise too.

Pairs are compared in batches: P pairs, Q frames of the first clip, T frames of the second, V
landmarks. NaN stands for missing landmarks and for padding.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from slrctl.core import skeleton

ARMS = [
    skeleton.RIGHT_ELBOW,
    skeleton.LEFT_ELBOW,
    skeleton.RIGHT_WRIST,
    skeleton.LEFT_WRIST,
]
MOVING = np.array([*ARMS, *range(skeleton.NUM_BODY, skeleton.NUM_LANDMARKS)])
"""The landmarks that are compared; torso and head hardly move."""
LEAST_REPEATED = 0.05
"""Distance by which signers miss a posture that they repeat, in shoulder distances, however little
the sign moves (`docs/audit.md`)."""
LINES = [(start, 1 + shift) for start in (-0.2, -0.1, 0.0, 0.1, 0.2)
         for shift in (-0.2, -0.1, 0.0, 0.1, 0.2)]  # fmt: skip
"""Start and end of a copy in the other clip, in shares of its length, that are tried at first."""
FEW_LANDMARKS = [0, 1, 2, 3, 4, 5, 12, 17, 21, 25, 26, 33, 38, 42]
"""Rows of `MOVING` that suffice to find the place in time roughly: arms and five of each hand."""

# Every third landmark of a hand suffices to lay one clip over another exactly.
_SOME_LANDMARKS = [0, 1, 2, 3, *range(4, len(MOVING), 3)]
# Frames of the first clip that are laid on the second, picked evenly; fewer to find the place.
_MOST_FRAMES, _FEW_FRAMES = 32, 16
_FARTHEST, _LONGEST_STEP, _ROUNDS = 0.45, 0.1, 8
_FRAMES_AROUND = range(-7, 9)
# Two clips must have this share of landmarks in common, over this share of the frames.
_LEAST_COVERAGE, _LEAST_SPAN = 0.6, 0.6
# Two frames of one difference cannot tell what lasts.
_LEAST_FRAMES = 4
# A clip that moves less than this, in shoulder distances, shows only the detector's noise.
_LEAST_MOVEMENT = 1e-4
# Distances in frames at which the remainder is compared with itself.
_LAGS = (1, 2, 4)
# Only copies that were drawn out by interpolation are worth comparing the other way round too.
_WORTH_TURNING = 0.3
# A blend takes at least this share of either clip.
_LEAST_SHARE = 0.03

Clips = Sequence[Float[np.ndarray, "_ 54 2"]]
Moving = Float[np.ndarray, "P _ V 2"]
Image = Float[np.ndarray, "P 3 2"]


class Pairs(NamedTuple):
    """Clips to compare, padded: picked frames of the first with their times, the second whole."""

    first: Float[np.ndarray, "P Q V 2"]
    times: Float[np.ndarray, "P Q"]
    second: Float[np.ndarray, "P T V 2"]
    lengths: Int64[np.ndarray, " P"]

    def positions(self, ends: Float[np.ndarray, "P 2"]) -> Float[np.ndarray, "P Q"]:
        """Return the place of each frame in the second clip, given the first's and the last's."""
        start, end = ends[:, :1], ends[:, 1:]
        return (start + (end - start) * self.times) * (self.lengths - 1)[:, None]

    def with_landmarks(self, landmarks: list[int]) -> "Pairs":
        first, second = self.first[:, :, landmarks], self.second[:, :, landmarks]
        return self._replace(first=first, second=second)


def pair_up(first: Clips, second: Clips) -> Pairs:
    """Pad the moving landmarks of clips; of long first clips, pick frames evenly."""
    picks = [
        np.rint(np.linspace(0, len(clip) - 1, min(len(clip), _MOST_FRAMES))).astype(np.int64)
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


def _padded(clips: Clips) -> Moving:
    points = np.full((len(clips), max(map(len, clips)), len(MOVING), 2), np.nan, np.float32)
    for row, clip in zip(points, clips, strict=True):
        row[: len(clip)] = clip[:, MOVING]
    return points


def _is_known(points: Float[np.ndarray, "P Q V 2"]) -> Bool[np.ndarray, "P Q V"]:
    return ~np.isnan(points[..., 0] + points[..., 1])


def _solved(normal: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solve normal equations that a still clip leaves singular."""
    normal = normal.astype(np.float64)
    diagonal = np.arange(normal.shape[1])
    trace = np.maximum(np.trace(normal, axis1=1, axis2=2), 1e-9)
    normal[:, diagonal, diagonal] += ridge * trace[:, None]
    return np.linalg.solve(normal, right.astype(np.float64))


def _identity(count: int) -> Image:
    return np.tile(np.eye(3, 2, dtype=np.float32), (count, 1, 1))


def _mapped(points: Moving, image: Image) -> Moving:
    return points @ image[:, None, :2] + image[:, None, 2:]


def _fitted_image(points: Moving, target: Moving) -> Image:
    """Return the affine map that brings points nearest to their targets."""
    is_known = _is_known(points + target)[..., None]
    known = np.where(is_known, points, 0)
    rows = np.concatenate([known, is_known.astype(np.float64)], axis=-1)
    rows = rows.reshape(len(points), -1, 3)
    wanted = np.where(is_known, target, 0).reshape(len(points), -1, 2)
    transposed = rows.swapaxes(1, 2)
    return _solved(transposed @ rows, transposed @ wanted, 1e-9).astype(np.float32)


def _recorded_at(pairs: Pairs, positions: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "P Q V 2"]:
    """Return the recorded frames of the second clips nearest to places; NaN beyond their ends."""
    index = np.rint(np.nan_to_num(positions, nan=-9.0)).astype(np.int64)
    last = (pairs.lengths - 1)[:, None]
    values = pairs.second[np.arange(len(last))[:, None], np.clip(index, 0, last)]
    values[(index < 0) | (index > last)] = np.nan
    return values


def _interpolated_at(
    pairs: Pairs, positions: Float[np.ndarray, "P Q"]
) -> tuple[Float[np.ndarray, "P Q V 2"], Float[np.ndarray, "P Q V 2"]]:
    """Return the second clips between their frames, and their slope; NaN beyond their ends."""
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


def _gap_per_frame(points: Moving, values: Moving) -> Float[np.ndarray, "P Q"]:
    """Average the squared gap over common landmarks; the fewer there are, the more it counts."""
    gap = points - values
    is_both = _is_known(gap)
    num_both, num_known = is_both.sum(-1), _is_known(points).sum(-1)
    squares = np.where(is_both[..., None], gap * gap, 0).sum((-2, -1))
    share = num_both / np.maximum(num_known, 1)
    cost = squares / np.maximum(num_both, 1) / np.maximum(share, 0.1)
    return np.where(num_both > 0, cost, np.inf)


def _gap(points: Moving, values: Moving) -> Float[np.ndarray, " P"]:
    merged = (len(points), 1, -1, 2)  # all frames count as one
    return _gap_per_frame(points.reshape(merged), values.reshape(merged))[:, 0]


def _rough_ends(pairs: Pairs) -> Float[np.ndarray, "P 2"]:
    """Return the best of `LINES`, by a few frames and landmarks."""
    count = pairs.first.shape[1]
    picks = np.unique(np.rint(np.linspace(0, count - 1, min(count, _FEW_FRAMES))).astype(int))
    few = pairs._replace(first=pairs.first[:, picks], times=pairs.times[:, picks])
    few = few.with_landmarks(FEW_LANDMARKS)
    lines = [np.tile(line, (len(pairs.first), 1)) for line in LINES]
    gaps = [_gap(few.first, _recorded_at(few, few.positions(ends))) for ends in lines]
    least = np.argmin(gaps, axis=0)
    return np.where(np.isinf(np.min(gaps, axis=0))[:, None], [0.0, 1.0], np.array(LINES)[least])


def _refined(
    pairs: Pairs, ends: Float[np.ndarray, "P 2"], image: Image
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, "P 2"], Image]:
    """Take a Gauss-Newton step in the two ends and the six numbers of the affine map.

    Returns:
        The gap before the step, and the ends and the map after it.
    """
    values, slope = _interpolated_at(pairs, pairs.positions(ends))
    points = _mapped(pairs.first, image)
    gap = points - values
    is_known = _is_known(gap + slope)[..., None]
    point, slope, known_gap = (np.where(is_known, a, 0) for a in (pairs.first, slope, gap))
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
    rest = known_gap.transpose(0, 3, 1, 2).reshape(len(ends), -1, 1)
    transposed = jacobian.swapaxes(1, 2)
    step = _solved(transposed @ jacobian, transposed @ rest, 1e-6)[..., 0]
    ends = ends + np.clip(step[:, :2], -_LONGEST_STEP, _LONGEST_STEP)
    ends = np.clip(ends, [-_FARTHEST, 1 - _FARTHEST], [_FARTHEST, 1 + _FARTHEST])
    image = image + step[:, 2:].reshape(-1, 2, 3).swapaxes(1, 2).astype(np.float32)
    return _gap(points, values), ends, image


def _lay_over(pairs: Pairs) -> tuple[Moving, Float[np.ndarray, "P Q"]]:
    """Find the line and the affine map under which the first clips differ least from the second.

    Returns:
        The frames of the first clips, mapped, and their places among the second's.
    """
    ends, image = _rough_ends(pairs), _identity(len(pairs.first))
    some = pairs.with_landmarks(_SOME_LANDMARKS)
    least = np.full(len(ends), np.inf)
    best_ends, best_image = ends, image
    for _ in range(_ROUNDS + 1):
        cost, next_ends, next_image = _refined(some, ends, image)
        # Where hardly anything moves, a step may lead away.
        is_better = cost < least
        least = np.where(is_better, cost, least)
        best_ends = np.where(is_better[:, None], ends, best_ends)
        best_image = np.where(is_better[:, None, None], image, best_image)
        ends, image = next_ends, next_image
    return _mapped(pairs.first, best_image), pairs.positions(best_ends)


class Remainder(NamedTuple):
    """The remainder of each pair, and the movement it is set against."""

    lasting: Float[np.ndarray, " P"]
    typical_rest: Float[np.ndarray, " P"]
    rest: Float[np.ndarray, " P"]
    movement: Float[np.ndarray, " P"]
    is_comparable: Bool[np.ndarray, " P"]


def _remainder(
    points: Float[np.ndarray, "P Q V 2"],
    values: Float[np.ndarray, "P Q V 2"],
    least_repeated: float,
) -> Remainder:
    """Measure the remainder; a held sign counts as moving by `least_repeated` at least."""
    gap = points - values
    is_both, is_known = _is_known(gap), _is_known(points)
    squares = np.where(is_both, (gap * gap).sum(-1), 0)
    is_inside = is_known & is_both.any(-1, keepdims=True)
    frames = is_both.any(-1).sum(1)
    coverage = is_both.sum((1, 2)) / np.maximum(is_inside.sum((1, 2)), 1)
    span = frames / np.maximum(is_known.any(-1).sum(1), 1)

    movement, is_seen = _movement(points, is_both)
    is_seen |= _movement(values, is_both)[1]
    # No take repeats a posture to a small share of the little that a held sign moves.
    movement = np.where(is_seen, np.hypot(movement, least_repeated), movement)
    # An oscillation passes through 0 after some number of frames, but not after each of these.
    lasting = [
        np.abs(mean) + 2 * error for mean, error in (_lasting(gap, is_both, lag) for lag in _LAGS)
    ]
    return Remainder(
        np.max(lasting, axis=0),
        np.sqrt(_median_frame(squares, is_both)),
        np.sqrt(squares.sum((1, 2)) / np.maximum(is_both.sum((1, 2)), 1)),
        np.maximum(movement, _LEAST_MOVEMENT),
        (coverage >= _LEAST_COVERAGE)
        & (span >= _LEAST_SPAN)
        & (frames >= _LEAST_FRAMES)
        & (movement > _LEAST_MOVEMENT),
    )


def _movement(
    points: Float[np.ndarray, "P Q V 2"], is_known: Bool[np.ndarray, "P Q V"]
) -> tuple[Float[np.ndarray, " P"], Bool[np.ndarray, " P"]]:
    """Measure what lasts of a clip about its mean; also return True where it exceeds the noise.

    Of pure noise nothing lasts; an eighth of its size is five standard errors for 20 frames.
    """
    count = np.maximum(is_known.sum(1, keepdims=True), 1)[..., None]
    about_mean = points - np.where(is_known[..., None], points, 0).sum(1, keepdims=True) / count
    lasting, _ = _lasting(about_mean, is_known, 1)
    size = np.where(is_known, (about_mean * about_mean).sum(-1), 0).sum((1, 2))
    size /= np.maximum(is_known.sum((1, 2)), 1)
    # A sign of which hardly anything lasts is held, and a quarter of its size counts.
    return np.sqrt(np.maximum(lasting, size / 4)), lasting > size / 8


def _median_frame(
    squares: Float[np.ndarray, "P Q V"], is_both: Bool[np.ndarray, "P Q V"]
) -> Float[np.ndarray, " P"]:
    count = is_both.sum(-1)
    per_frame = np.where(count > 0, squares.sum(-1) / np.maximum(count, 1), np.nan)
    per_frame[(count == 0).all(1)] = 0
    return np.nanmedian(per_frame, axis=1)


def _lasting(
    values: Float[np.ndarray, "P Q V 2"], is_known: Bool[np.ndarray, "P Q V"], lag: int
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Average the products of frames so far apart over all landmarks; also the standard error."""
    known = np.where(is_known[..., None], values, 0).astype(np.float64)
    products = (known[:, lag:] * known[:, :-lag]).sum((-2, -1))
    counts = (is_known[:, lag:] & is_known[:, :-lag]).sum(-1)
    total = np.maximum(counts.sum(1), 1)
    mean = products.sum(1) / total
    deviation = products - mean[:, None] * counts
    return mean, np.sqrt((deviation**2).sum(1)) / total


def unexplained_on_line(
    points: Float[np.ndarray, "P Q V 2"], values: Float[np.ndarray, "P Q V 2"]
) -> Float[np.ndarray, " P"]:
    """Return the share of the movement that points laid on their counterparts leave unexplained."""
    left = _remainder(points, values, LEAST_REPEATED)
    share = left.lasting**1.5 / np.maximum(left.typical_rest**2 * left.movement, 1e-12)
    return np.where(left.is_comparable, share, np.inf)


def _unexplained_near_line(
    pairs: Pairs, positions: Float[np.ndarray, "P Q"]
) -> Float[np.ndarray, " P"]:
    """Compare with the nearest recorded frames, each chosen on its own."""
    # The map found along the line is bent by the frames that are not on it: begin without.
    image = _identity(len(pairs.first))
    some = pairs.with_landmarks(_SOME_LANDMARKS)
    around = np.floor(positions)
    places = around
    for _ in range(2):
        points = _mapped(some.first, image)
        steps = [_gap_per_frame(points, _recorded_at(some, around + s)) for s in _FRAMES_AROUND]
        places = around + np.array(_FRAMES_AROUND)[np.argmin(steps, axis=0)]
        image = _fitted_image(some.first, _recorded_at(some, places))
    left = _remainder(_mapped(pairs.first, image), _recorded_at(pairs, places), LEAST_REPEATED)
    return np.where(left.is_comparable, left.rest / left.movement, np.inf)


def unexplained(first: Clips, second: Clips) -> Float[np.ndarray, " P"]:
    """Compare clips in the frame of their torso, pair by pair; the order does not matter.

    Returns:
        0 for a copy, about 1 for clips that have nothing in common, inf where they show too little
        of the same landmarks to be compared.
    """
    # The frames of a shortened copy lie in the original, not the other way round.
    pairs = [(a, b) if len(a) <= len(b) else (b, a) for a, b in zip(first, second, strict=True)]
    least = _one_way([short for short, _ in pairs], [long for _, long in pairs])
    again = np.flatnonzero((least > 0) & (least < _WORTH_TURNING)).tolist()
    if again:
        back = _one_way([pairs[row][1] for row in again], [pairs[row][0] for row in again])
        least[again] = np.minimum(least[again], back)
    return least


def _one_way(first: Clips, second: Clips) -> Float[np.ndarray, " P"]:
    pairs = pair_up(first, second)
    points, positions = _lay_over(pairs)
    on_line = unexplained_on_line(points, _interpolated_at(pairs, positions)[0])
    return np.minimum(on_line, _unexplained_near_line(pairs, positions))


def blend_unexplained(between: Clips, one: Clips, other: Clips) -> Float[np.ndarray, " P"]:
    """Return the share of a clip that no blend of two others explains; 0 if it is interpolated.

    inf where the blend takes next to nothing of one of them: that would be a copy of the other.
    """
    target = pair_up(between, between).first
    rows = np.stack([_in_step(between, one), _in_step(between, other), target])
    is_known = _is_known(rows.sum(axis=0))[..., None]
    # About their means, so that it does not matter where in the image each clip is.
    count = np.maximum(is_known.sum((1, 2), keepdims=True), 1)
    rows = np.where(is_known, rows, 0)
    rows = np.where(is_known, rows - rows.sum((2, 3), keepdims=True) / count, 0)
    first, second, wanted = rows.reshape(3, len(target), -1)
    sources = np.stack([first, second], axis=1)
    weights = _solved(sources @ sources.swapaxes(1, 2), sources @ wanted[..., None], 1e-7)
    blend = (weights.swapaxes(1, 2) @ sources).reshape(target.shape).astype(np.float32)
    # The image has no unit that would be right for all files.
    left = _remainder(np.where(is_known, rows[2], np.nan), np.where(is_known, blend, np.nan), 0.0)
    share = left.lasting / np.maximum(left.typical_rest * left.movement, 1e-12)
    is_blend = left.is_comparable & (weights.min(axis=(1, 2)) > _LEAST_SHARE)
    return np.where(is_blend, share, np.inf)


def _in_step(between: Clips, clips: Clips) -> Float[np.ndarray, "P Q V 2"]:
    """Return each clip at the times of the frames that were picked of the first ones."""
    pairs = pair_up(between, clips)
    whole = np.tile([0.0, 1.0], (len(pairs.first), 1))
    return _interpolated_at(pairs, pairs.positions(whole))[0]
