"""Turn back joints of the hands that are bent or spread further than a hand can.

Kinematic rectification of SiFormer (Pu, Lim and Chong, ACM MM 2024), in two dimensions: a joint out
of its range turns back by a share alpha of its excess. What lies beyond it moves along, without
turning: only the bone at fault gets another direction than was seen.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip, frames_behind_one_another, groups_of_clips
from slrctl.settings import PrepareSettings

FINGERS = ("index", "middle", "ring", "little", "thumb")
INDEX, MIDDLE, RING, LITTLE, THUMB = range(5)
_LINKS = {finger: ("MCP", "PIP", "DIP") for finger in FINGERS[:4]} | {"thumb": ("CMC", "MP", "IP")}

# Degrees, [joint from the base, finger, (lowest, highest)]. The thumb's hold where it bends
# clockwise; where it bends the other way they are mirrored, as the symmetric others are anyway.
FLEXION_RANGES = np.array(
    [
        [*[(-90, 90)] * 4, (-45, 20)],
        [*[(-130, 130)] * 4, (-80, 12)],
        [*[(-90, 90)] * 4, (-90, 30)],
    ],
    np.float32,
)
# One degree in radians.
RADIAN = np.float32(np.pi / 180)


class Spread(NamedTuple):
    """A joint of abduction and adduction: which link is held against which base, and its range.

    Degrees at the wrist, from the link to the base, on a left hand; a right one mirrors it.
    """

    finger: int
    link: int
    base_of: int
    lowest: float
    highest: float


# In the order they are rectified: the little finger's base is held against a ring finger's that
# has been put right already.
SPREADS = (
    Spread(THUMB, 0, INDEX, 0, 45),
    Spread(THUMB, 1, INDEX, -7, 12),
    Spread(INDEX, 0, MIDDLE, -15, 15),
    Spread(RING, 0, MIDDLE, -15, 15),
    Spread(LITTLE, 0, RING, -15, 15),
)

# A row per joint of `joint_excess`: flexion joint by joint from the base, then abduction.
JOINT_NAMES = (
    *(
        f"{finger} {_LINKS[finger][joint]} flexion"
        for joint in range(len(FLEXION_RANGES))
        for finger in FINGERS
    ),
    *(
        f"{FINGERS[spread.finger]} {_LINKS[FINGERS[spread.finger]][spread.link]}"
        f" to {FINGERS[spread.base_of]} MCP abduction"
        for spread in SPREADS
    ),
)


class Hands(NamedTuple):
    """Hands with square pixels: x times the aspect, and y; NaN where a landmark is missing."""

    wrist: Float32[np.ndarray, "2 N"]
    fingers: Float32[np.ndarray, "2 5 4 N"]
    side: Float32[np.ndarray, " N"]
    """1 for a left hand, -1 for a right one."""


def lay_out_hands(
    hands: Float32[np.ndarray, "N 21 2"],
    aspect: Float32[np.ndarray, " N"],
    is_left: Bool[np.ndarray, " N"],
) -> Hands:
    """Order the landmarks of hands by finger and link."""
    points = np.ascontiguousarray(hands.transpose(2, 1, 0))
    points[0] *= aspect
    # A landmark with one coordinate only is missing: x + y - (x + y) is then NaN, else 0.
    total = points[0] + points[1]
    points += total - total
    outwards = points[:, 1:].reshape(2, 5, 4, -1)[:, :, ::-1]  # the skeleton begins with the tip
    return Hands(points[:, 0], outwards, np.where(is_left, np.float32(1), np.float32(-1)))


def signed_angle(
    start: Float32[np.ndarray, "2 *fingers N"], end: Float32[np.ndarray, "2 *fingers N"]
) -> Float32[np.ndarray, "*fingers N"]:
    """Degrees from one bone to another, negative where x_1 y_2 < y_1 x_2.

    NaN where one of them is missing or has no length.
    """
    dot = start[0] * end[0] + start[1] * end[1]
    # Adding 0 turns -0 into 0: a bone that lies back on the other one is at 180, not at -180.
    cross = start[0] * end[1] - start[1] * end[0] + np.float32(0)
    # The arc cosine of the normalised dot product is the same angle, but loses half the digits
    # near 0 and 180 degrees.
    angle = np.arctan2(cross, dot) / RADIAN
    angle[(dot == 0) & (cross == 0)] = np.nan
    return angle


def thumb_direction(hands: Hands) -> Float32[np.ndarray, " N"]:
    """1 where the thumb bends clockwise in the image, -1 where anticlockwise, NaN if unknown."""
    base, little = hands.fingers[:, THUMB, 0], hands.fingers[:, LITTLE, 0]
    is_clockwise = (little[0] > base[0]) == (hands.wrist[1] < base[1])
    known = little[0] + base[0] + hands.wrist[1]
    return np.where(is_clockwise, np.float32(1), np.float32(-1)) + (known - known)


def flexion_excess(
    inner: Float32[np.ndarray, "2 5 N"],
    outer: Float32[np.ndarray, "2 5 N"],
    joint: int,
    direction: Float32[np.ndarray, " N"],
) -> Float32[np.ndarray, "5 N"]:
    """Degrees by which a bone of every finger is bent too far from the one before it.

    Args:
        inner: the bone towards the wrist.
        outer: the bone towards the tip.
        joint: the joint between them, counted from the base of the finger.
        direction: of the thumb, see `thumb_direction`.
    """
    angle = signed_angle(inner, outer)
    angle[THUMB] *= direction
    low, high = FLEXION_RANGES[joint, :, :, None].swapaxes(0, 1)
    excess = angle - np.clip(angle, low, high)
    excess[THUMB] *= direction
    return excess


def spread_excess(
    link: Float32[np.ndarray, "2 N"],
    base: Float32[np.ndarray, "2 N"],
    spread: Spread,
    side: Float32[np.ndarray, " N"],
) -> Float32[np.ndarray, " N"]:
    """Degrees by which a link stands too far from a neighbour's base, seen from the wrist."""
    angle = signed_angle(link, base) * side
    return (angle - np.clip(angle, np.float32(spread.lowest), np.float32(spread.highest))) * side


def joint_excess(hands: Hands) -> Float32[np.ndarray, "20 N"]:
    """Degrees by which each joint of `JOINT_NAMES` is out of range, of either sign.

    0 in range, NaN where one of its landmarks is missing or a bone has no length.
    """
    from_wrist = hands.fingers - hands.wrist[:, None, None]
    bones = np.concatenate([from_wrist[:, :, :1], np.diff(hands.fingers, axis=2)], axis=2)
    direction = thumb_direction(hands)
    flexion = [
        flexion_excess(bones[:, :, joint], bones[:, :, joint + 1], joint, direction)
        for joint in range(len(FLEXION_RANGES))
    ]
    spreads = [
        spread_excess(
            from_wrist[:, spread.finger, spread.link],
            from_wrist[:, spread.base_of, 0],
            spread,
            hands.side,
        )
        for spread in SPREADS
    ]
    return np.concatenate([*flexion, np.stack(spreads)])


# Frames worked on at a time: few enough for a core's cache. It changes no bit of the result.
_FRAMES_TOGETHER = 2048


def _turning(
    bone: Float32[np.ndarray, "2 *fingers N"], degrees: Float32[np.ndarray, "*fingers N"]
) -> Float32[np.ndarray, "2 *fingers N"]:
    """How far the end of a bone moves when it turns about its start; 0 where the angle is NaN."""
    radians = degrees * RADIAN
    sin, less = np.sin(radians), np.cos(radians) - 1
    moved = np.stack([less * bone[0] - sin * bone[1], sin * bone[0] + less * bone[1]])
    return np.where(np.isnan(degrees), np.float32(0), moved)


def _flexion_shifts(hands: Hands, alpha: np.float32) -> Float32[np.ndarray, "2 5 4 N"]:
    """How far each link is moved relative to the one before it, joint by joint outwards."""
    shifts = np.zeros_like(hands.fingers)
    direction = thumb_direction(hands)
    inner = hands.fingers[:, :, 0] - hands.wrist[:, None]
    for joint in range(len(FLEXION_RANGES)):
        outer = hands.fingers[:, :, joint + 1] - hands.fingers[:, :, joint]
        excess = flexion_excess(inner, outer, joint, direction)
        shifts[:, :, joint + 1] = _turning(outer, -alpha * excess)
        inner = outer + shifts[:, :, joint + 1]
    return shifts


def _spread(hands: Hands, shifts: Float32[np.ndarray, "2 5 4 N"], alpha: np.float32) -> None:
    """Add to `shifts` what brings the bases of the fingers together or apart."""
    for spread in SPREADS:
        moved = shifts[:, spread.finger, : spread.link + 1].sum(axis=1)
        link = hands.fingers[:, spread.finger, spread.link] + moved - hands.wrist
        base = hands.fingers[:, spread.base_of, 0] + shifts[:, spread.base_of, 0] - hands.wrist
        # The angle goes from the link to the base, so the link turns towards the excess.
        excess = spread_excess(link, base, spread, hands.side)
        shifts[:, spread.finger, spread.link] += _turning(link, alpha * excess)


def _rectify_in_place(
    frames: Float32[np.ndarray, "F 54 2"], aspect: Float32[np.ndarray, " F"], alpha: np.float32
) -> None:
    both = frames[:, skeleton.NUM_BODY :].reshape(-1, 2, skeleton.NUM_HAND, 2)
    is_present = ~np.isnan(both).all(axis=(2, 3))
    frame, is_right = np.nonzero(is_present)
    points, stretch = both[is_present], aspect[frame]
    hands = lay_out_hands(points, stretch, is_left=is_right == 0)
    shifts = _flexion_shifts(hands, alpha)
    _spread(hands, shifts, alpha)
    for link in range(1, shifts.shape[2]):
        shifts[:, :, link] += shifts[:, :, link - 1]  # a link moves with all before it
    shifts[np.isnan(hands.fingers)] = 0
    shifts[0] /= stretch
    by_landmark = shifts[:, :, ::-1].reshape(2, skeleton.NUM_HAND - 1, -1).transpose(2, 1, 0)
    fingers = points[:, 1:]
    fingers[...] = np.where(by_landmark == 0, fingers, fingers + by_landmark)
    both[is_present] = points


def rectify(
    landmarks: Float[np.ndarray, "*frames 54 2"],
    aspect: Float[np.ndarray, "*frames"],
    alpha: float,
) -> Float32[np.ndarray, "*frames 54 2"]:
    """Turn the joints of both hands back towards what a hand can do: flexion, then abduction.

    Every frame stands for itself. A joint is left alone where one of its landmarks is missing or a
    bone has no length; a thumb is not bent where it is unknown which way thumbs bend, as without
    the base of the little finger. Landmarks that need not move keep their bits.

    Args:
        landmarks: cleaned coordinates in the image, NaN where missing.
        aspect: width of the image over its height, for every frame.
        alpha: share of the excess by which a joint turns back; 1 puts it at the end of its range.
    """
    result = np.array(landmarks, np.float32)
    frames = result.reshape(-1, *result.shape[-2:])
    wide = aspect.reshape(-1).astype(np.float32)
    for first in range(0, len(frames), _FRAMES_TOGETHER):
        part = slice(first, first + _FRAMES_TOGETHER)
        _rectify_in_place(frames[part], wide[part], np.float32(alpha))
    return result


def rectify_clips(clips: Iterable[Clip], settings: PrepareSettings) -> Iterator[Clip]:
    """Yield every clip, rectified; many are worked on together, which is faster than one by one."""
    for group in groups_of_clips(clips, _FRAMES_TOGETHER):
        frames, aspect = frames_behind_one_another(group)
        rectified = rectify(frames, aspect, settings.rectify_alpha)
        ends = np.cumsum([clip.num_frames for clip in group])[:-1]
        for clip, landmarks in zip(group, np.split(rectified, ends), strict=True):
            yield replace(clip, landmarks=landmarks)


HEURISTIC = (
    "the ranges are a heuristic: a picture shows bones foreshortened, so a joint that is fine in "
    "space may look out of range in two dimensions"
)

_SIDES = ("left", "right")
_FRAMES_TOGETHER_rectification_report = 2048
# What is out of range by less than this is a rounding error, not a joint.
_SMALLEST_DEGREES = 0.01
# Excesses are counted in steps of this size, so that any number of clips takes the same memory.
_STEP_DEGREES = 0.1
_NUM_STEPS = int(360 / _STEP_DEGREES)


class Excess(NamedTuple):
    """How often a joint is out of range, and how far where it is; None where it never is."""

    share: float | None
    """Of the frames in which the joint can be measured; None without any."""
    mean_degrees: float | None
    p95_degrees: float | None
    """95 % of the excesses are no larger than this, to a tenth of a degree."""


class JointReport(NamedTuple):
    """One joint of one hand."""

    hand: str
    joint: str
    num_frames: int
    """Frames in which the joint can be measured."""
    before: Excess
    after: Excess


class RectificationReport(NamedTuple):
    """What rectification finds and does in a set of clips."""

    alpha: float
    joints: tuple[JointReport, ...]
    note: str = HEURISTIC


class _Tally:
    """Counts of every joint of both hands, joint by hand."""

    def __init__(self) -> None:
        shape = (len(JOINT_NAMES), len(_SIDES))
        self.measured = np.zeros(shape, np.int64)
        self.total = np.zeros(shape)
        self.steps = np.zeros((*shape, _NUM_STEPS + 1), np.int64)

    def add(self, excess: Float32[np.ndarray, "20 2 F"]) -> None:
        size = np.abs(excess)
        is_out = size > _SMALLEST_DEGREES  # not so for NaN
        self.measured += (~np.isnan(size)).sum(axis=-1)
        self.total += np.where(is_out, size, 0.0).sum(axis=-1, dtype=np.float64)
        joint, hand, frame = np.nonzero(is_out)
        steps = np.rint(size[joint, hand, frame] / _STEP_DEGREES).astype(np.int64)
        np.add.at(self.steps, (joint, hand, steps), 1)

    def excess(self, joint: int, hand: int) -> Excess:
        measured, steps = int(self.measured[joint, hand]), self.steps[joint, hand]
        num_out = int(steps.sum())
        if not num_out:
            return Excess(0.0 if measured else None, None, None)
        mean = float(self.total[joint, hand] / num_out)
        return Excess(num_out / measured, mean, _percentile(steps, 0.95))


def _percentile(steps: Int64[np.ndarray, " N"], share: float) -> float:
    """The smallest step that so large a share of what was counted does not exceed, in degrees."""
    reached = np.searchsorted(np.cumsum(steps), share * steps.sum())
    return round(float(reached) * _STEP_DEGREES, 1)


def _excess_of_frames(
    frames: Float32[np.ndarray, "F 54 2"], aspect: Float32[np.ndarray, " F"]
) -> Float32[np.ndarray, "20 2 F"]:
    excesses = [
        joint_excess(lay_out_hands(frames[:, part], aspect, np.full(len(frames), is_left)))
        for part, is_left in ((skeleton.LEFT_HAND, True), (skeleton.RIGHT_HAND, False))
    ]
    return np.stack(excesses, axis=1)


def rectification_report(clips: Iterable[Clip], settings: PrepareSettings) -> RectificationReport:
    """Measure every joint of both hands before rectification and after it.

    Args:
        clips: cleaned clips, not rectified, whatever `settings.rectify` says.
        settings: `rectify_alpha` is read.
    """
    before, after = _Tally(), _Tally()
    for group in groups_of_clips(clips, _FRAMES_TOGETHER_rectification_report):
        frames, aspect = frames_behind_one_another(group)
        before.add(_excess_of_frames(frames, aspect))
        after.add(_excess_of_frames(rectify(frames, aspect, settings.rectify_alpha), aspect))
    joints = tuple(
        JointReport(
            side,
            name,
            int(before.measured[joint, hand]),
            before.excess(joint, hand),
            after.excess(joint, hand),
        )
        for hand, side in enumerate(_SIDES)
        for joint, name in enumerate(JOINT_NAMES)
    )
    return RectificationReport(settings.rectify_alpha, joints)
