"""How much of the movement of one clip another clip leaves unexplained.

Of a copy, whatever was done to it, nothing remains but noise, and that does not last from one frame
to the next. Of another take of the same sign, by the same person too, differences of posture and
timing remain, and they do last. So what remains, once one clip is laid over the other, is measured
by the product of neighbouring frames, in which independent noise averages out:

    unexplained = (lasting / rest^2)^1.5 * rest / movement

`lasting` is the mean of r(t) r(t+k) over frames and landmarks, its size plus two standard errors, r
being the remainder, and of k = 1, 2, 4 the largest. `rest` is the typical size of r: the root of
the median over frames of its mean square, so that one bad frame is not taken for noise. `movement`
is the root of the same product for the clip itself about its mean, and at least what a signer
strays who takes up a posture anew.

Where frames were dropped unevenly no line maps time to time. Recorded frames near the line are
tried instead, and then the size of r over `movement` counts, since a choice of frames looks like
noise too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float16, Int64

from slrctl.core.data.audit.alignment import (
    FEW_LANDMARKS,
    LEAST_REPEATED,
    MOVING,
    SHIFTS,
    SOME_LANDMARKS,
    Laid,
    Pairs,
    fit_image,
    frames_at,
    gap_per_frame,
    identity_image,
    is_there,
    lay_over,
    moved,
    pair_up,
    recorded_at,
    solved,
    with_landmarks,
)
from slrctl.core.data.audit.fingerprint import FramedClips, mirrored

# Two clips must have this share of landmarks in common, over this share of the frames.
_LEAST_COVERAGE = 0.6
_LEAST_SPAN = 0.6
# Two frames of one difference cannot tell what lasts.
_LEAST_FRAMES = 4
# A blend takes at least this share of either clip.
_LEAST_PART = 0.03
_WORTH_TURNING = 0.3
_FRAMES_AROUND = range(-7, 9)
# Of a clip that moves less than this (in shoulder distances) only the detector's noise is seen.
_LEAST_MOVEMENT = 1e-4
# So many frames apart the remainder is compared with itself.
_LAGS = (1, 2, 4)

Clips = Sequence[Float[np.ndarray, "_ 54 2"]]


class Remainder(NamedTuple):
    """What remains of each pair, and how much of the movement that is."""

    lasting: Float[np.ndarray, " P"]
    typical_rest: Float[np.ndarray, " P"]
    rest: Float[np.ndarray, " P"]
    movement: Float[np.ndarray, " P"]
    is_comparable: Bool[np.ndarray, " P"]


def unexplained(first: Clips, second: Clips) -> Float[np.ndarray, " P"]:
    """Compare clips in the frame of their torso, pair by pair; the order does not matter.

    Returns:
        0 for a copy, about 1 for clips that have nothing in common, inf where they show too little
        of the same landmarks to be compared.
    """
    # The frames of a shortened copy lie in the original, not the other way round.
    pairs = [(a, b) if len(a) <= len(b) else (b, a) for a, b in zip(first, second, strict=True)]
    least = _one_way([short for short, _ in pairs], [long for _, long in pairs])
    # Only of a copy that was drawn out by interpolation is the opposite true.
    again = np.flatnonzero((least > 0) & (least < _WORTH_TURNING)).tolist()
    if again:
        back = _one_way([pairs[row][1] for row in again], [pairs[row][0] for row in again])
        least[again] = np.minimum(least[again], back)
    return least


def _one_way(first: Clips, second: Clips) -> Float[np.ndarray, " P"]:
    pairs = pair_up(first, second)
    laid = lay_over(pairs)
    return np.minimum(_on_the_line(pairs, laid), _near_the_line(pairs, laid))


def blend_unexplained(made: Clips, one: Clips, other: Clips) -> Float[np.ndarray, " P"]:
    """What no blend of two clips explains of a third: 0 where it was interpolated between them.

    inf where the blend takes next to nothing of one of them: that would be a copy of the other.
    """
    target = pair_up(made, made).first
    rows = np.stack([_in_step(made, one), _in_step(made, other), target])
    is_known = is_there(rows.sum(axis=0))[..., None]
    # About their means, so that it does not matter where in the image each clip is.
    count = np.maximum(is_known.sum((1, 2), keepdims=True), 1)
    rows = np.where(is_known, rows, 0)
    rows = np.where(is_known, rows - rows.sum((2, 3), keepdims=True) / count, 0)
    first, second, wanted = rows.reshape(3, len(target), -1)
    sources = np.stack([first, second], axis=1)
    weights = solved(sources @ sources.swapaxes(1, 2), sources @ wanted[..., None], 1e-7)
    blend = (weights.swapaxes(1, 2) @ sources).reshape(target.shape).astype(np.float32)
    # The image has no unit that would be right for all files.
    left = _remainder(np.where(is_known, rows[2], np.nan), np.where(is_known, blend, np.nan), 0.0)
    share = left.lasting / np.maximum(left.typical_rest * left.movement, 1e-12)
    is_blend = left.is_comparable & (weights.min(axis=(1, 2)) > _LEAST_PART)
    return np.where(is_blend, share, np.inf)


def _in_step(made: Clips, clips: Clips) -> Float[np.ndarray, "P Q V 2"]:
    """Each clip at the times of the frames that were picked of the made one."""
    pairs = pair_up(made, clips)
    return frames_at(pairs, pairs.times * (pairs.lengths - 1)[:, None])[0]


def _on_the_line(pairs: Pairs, laid: Laid) -> Float[np.ndarray, " P"]:
    values, _ = frames_at(pairs, laid.positions)
    left = _remainder(laid.points, values, LEAST_REPEATED)
    share = left.lasting**1.5 / np.maximum(left.typical_rest**2 * left.movement, 1e-12)
    return np.where(left.is_comparable, share, np.inf)


def _near_the_line(pairs: Pairs, laid: Laid) -> Float[np.ndarray, " P"]:
    """Compare with the nearest recorded frames, each chosen on its own."""
    # The map found along the line is bent by the frames that are not on it: begin without.
    image = identity_image(len(pairs.first))
    some = with_landmarks(pairs, SOME_LANDMARKS)
    places = laid.positions
    for _ in range(2):
        places = _nearest_places(some, moved(some.first, image), np.floor(laid.positions))
        image = fit_image(some.first, recorded_at(some, places))
    left = _remainder(moved(pairs.first, image), recorded_at(pairs, places), LEAST_REPEATED)
    return np.where(left.is_comparable, left.rest / left.movement, np.inf)


def _nearest_places(
    pairs: Pairs, points: Float[np.ndarray, "P Q V 2"], around: Float[np.ndarray, "P Q"]
) -> Float[np.ndarray, "P Q"]:
    least, places = np.full(around.shape, np.inf), around
    for step in _FRAMES_AROUND:
        cost = gap_per_frame(points, recorded_at(pairs, around + step))
        places = np.where(cost < least, around + step, places)
        least = np.minimum(cost, least)
    return places


def _remainder(
    points: Float[np.ndarray, "P Q V 2"],
    values: Float[np.ndarray, "P Q V 2"],
    least_repeated: float,
) -> Remainder:
    """Measure what remains; a held sign counts as moving by `least_repeated` at least."""
    gap = points - values
    is_both = is_there(gap)
    is_known = is_there(points)
    squares = np.where(is_both, (gap * gap).sum(-1), 0)
    is_inside = is_known & is_both.any(-1, keepdims=True)
    frames = is_both.any(-1).sum(1)
    coverage = is_both.sum((1, 2)) / np.maximum(is_inside.sum((1, 2)), 1)
    span = frames / np.maximum(is_known.any(-1).sum(1), 1)

    movement, is_seen = _movement(points, is_both)
    is_seen |= _movement(values, is_both)[1]
    # No take repeats a posture to a small share of the little that a held sign moves.
    movement = np.where(is_seen, np.hypot(movement, least_repeated), movement)
    # What swings passes through 0 after some number of frames, but not after each of these.
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
    """Size of what lasts of a clip about its mean, and whether it stands out of the noise.

    Of pure noise nothing lasts; an eighth of its size is five standard errors for 20 frames.
    """
    count = np.maximum(is_known.sum(1, keepdims=True), 1)[..., None]
    about_mean = points - np.where(is_known[..., None], points, 0).sum(1, keepdims=True) / count
    lasting, _ = _lasting(about_mean, is_known, 1)
    size = np.where(is_known, (about_mean * about_mean).sum(-1), 0).sum((1, 2))
    size /= np.maximum(is_known.sum((1, 2)), 1)
    # Where hardly anything lasts the sign is held, and what there is must do.
    return np.sqrt(np.maximum(lasting, size / 4)), lasting > size / 8


def _median_frame(
    squares: Float[np.ndarray, "P Q V"], is_both: Bool[np.ndarray, "P Q V"]
) -> Float[np.ndarray, " P"]:
    """Median over frames of the mean square: one bad frame does not pass for noise."""
    count = is_both.sum(-1)
    per_frame = np.where(count > 0, squares.sum(-1) / np.maximum(count, 1), np.nan)
    per_frame[(count == 0).all(1)] = 0
    return np.nanmedian(per_frame, axis=1)


def _lasting(
    values: Float[np.ndarray, "P Q V 2"], is_known: Bool[np.ndarray, "P Q V"], lag: int
) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Mean product of frames so far apart over all landmarks, and its standard error."""
    known = np.where(is_known[..., None], values, 0).astype(np.float64)
    is_pair = is_known[:, lag:] & is_known[:, :-lag]
    products = (known[:, lag:] * known[:, :-lag]).sum((-2, -1))
    counts = is_pair.sum(-1)
    total = np.maximum(counts.sum(1), 1)
    mean = products.sum(1) / total
    spread = products - mean[:, None] * counts
    return mean, np.sqrt((spread**2).sum(1)) / total


_NUM_TIMES = 32
_NUM_COMPARED = 16

Sketches = Float16[np.ndarray, "N 32 V 2"]


def sketch(clips: FramedClips, *, is_mirrored: bool = False) -> Sketches:
    """The arms and five landmarks a hand at 32 even places in time: 1.8 kB a clip."""
    sketches = np.empty((len(clips), _NUM_TIMES, len(FEW_LANDMARKS), 2), np.float16)
    for row in range(len(clips)):
        clip = mirrored(clips[row]) if is_mirrored else clips[row]
        picks = np.rint(np.linspace(0, len(clip) - 1, _NUM_TIMES)).astype(np.int64)
        sketches[row] = clip[picks][:, MOVING[FEW_LANDMARKS]]
    return sketches


def rough_difference(
    first: Sketches, second: Sketches, pairs: Int64[np.ndarray, "P 2"]
) -> Float[np.ndarray, " P"]:
    """What remains under the best line, over the movement: root mean squares of both.

    A held sign counts as moving by as much as a signer strays who takes up a posture anew.

    Args:
        first: sketches of all clips, for the first of each pair.
        second: sketches of all clips, for the second.
        pairs: rows to compare.
    """
    times = np.linspace(0, 1, _NUM_COMPARED)
    points = first[pairs[:, 0]][:, np.rint(times * (_NUM_TIMES - 1)).astype(int)]
    points = points.astype(np.float32)
    others = second[pairs[:, 1]].astype(np.float32)
    num_known = np.maximum((~np.isnan(points[..., 0])).sum((1, 2)), 1)
    least = np.full(len(pairs), np.inf)
    for start, end in _lines(SHIFTS):
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


def _lines(shifts: Sequence[float]) -> list[tuple[float, float]]:
    return [(start, 1 + shift) for start in shifts for shift in shifts]
