"""Kinematic rectification: finger joints out of their anatomical range turn back towards it.

A method of SiFormer (Pu, Lim and Chong, ACM MM 2024), in two dimensions: a joint turns back by a
share alpha of its excess. Joints beyond it are shifted along and not turned, so that only the bone
at fault changes its direction (`docs/rectification.md`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip, concatenate_frames, groups_of_clips
from slrctl.settings import PrepareSettings

FINGERS = ("index", "middle", "ring", "little", "thumb")
INDEX, MIDDLE, RING, LITTLE, THUMB = range(5)
_LINKS = {finger: ("MCP", "PIP", "DIP") for finger in FINGERS[:4]} | {"thumb": ("CMC", "MP", "IP")}

# Degrees, [joint from the base, finger, (lowest, highest)]. The thumb's hold where it bends
# clockwise; where it bends the other way they are mirrored. The others are symmetric.
FLEXION_RANGES = np.array(
    [
        [*[(-90, 90)] * 4, (-45, 20)],
        [*[(-130, 130)] * 4, (-80, 12)],
        [*[(-90, 90)] * 4, (-90, 30)],
    ],
    np.float32,
)


class Abduction(NamedTuple):
    """A joint of abduction and adduction: a link, the base it is measured against, and a range.

    Degrees at the wrist, from the link to the base, on a left hand; a right one mirrors it.
    """

    finger: int
    link: int
    base_of: int
    lowest: float
    highest: float


# In the order in which they are rectified: the ring finger's base before the little one's.
ABDUCTIONS = (
    Abduction(THUMB, 0, INDEX, 0, 45),
    Abduction(THUMB, 1, INDEX, -7, 12),
    Abduction(INDEX, 0, MIDDLE, -15, 15),
    Abduction(RING, 0, MIDDLE, -15, 15),
    Abduction(LITTLE, 0, RING, -15, 15),
)

# Rows of `joint_excess`: flexion joint by joint from the base, then abduction.
JOINT_NAMES = (
    *(
        f"{finger} {_LINKS[finger][joint]} flexion"
        for joint in range(len(FLEXION_RANGES))
        for finger in FINGERS
    ),
    *(
        f"{FINGERS[abduction.finger]} {_LINKS[FINGERS[abduction.finger]][abduction.link]}"
        f" to {FINGERS[abduction.base_of]} MCP abduction"
        for abduction in ABDUCTIONS
    ),
)

_RADIANS_A_DEGREE = np.float32(np.pi / 180)
# Few enough frames for a core's cache; their number changes no bit of the result.
_FRAMES_TOGETHER = 2048


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
    """Return the degrees from one bone to another, negative where x_1 y_2 < y_1 x_2.

    NaN where one of them is missing or has no length.
    """
    dot = start[0] * end[0] + start[1] * end[1]
    # Adding 0 turns -0 into 0: a bone that lies back on the other one is at 180, not at -180.
    cross = start[0] * end[1] - start[1] * end[0] + np.float32(0)
    # The arc cosine of the normalised dot product is the same angle, but loses half the digits
    # near 0 and 180 degrees.
    angle = np.arctan2(cross, dot) / _RADIANS_A_DEGREE
    angle[(dot == 0) & (cross == 0)] = np.nan
    return angle


def thumb_direction(hands: Hands) -> Float32[np.ndarray, " N"]:
    """Return 1 where the thumb bends clockwise in the image, -1 where not, NaN if unknown."""
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
    """Return the degrees by which a bone of every finger is bent too far from the one before it.

    `inner` is the bone towards the wrist; `joint` counts from the base of the finger; `direction`
    is that of the thumb.
    """
    angle = signed_angle(inner, outer)
    angle[THUMB] *= direction
    low, high = FLEXION_RANGES[joint, :, :, None].swapaxes(0, 1)
    excess = angle - np.clip(angle, low, high)
    excess[THUMB] *= direction
    return excess


def abduction_excess(
    link: Float32[np.ndarray, "2 N"],
    base: Float32[np.ndarray, "2 N"],
    abduction: Abduction,
    side: Float32[np.ndarray, " N"],
) -> Float32[np.ndarray, " N"]:
    """Return the degrees by which a link is too far from a neighbour's base, seen at the wrist."""
    angle = signed_angle(link, base) * side
    limits = np.array([abduction.lowest, abduction.highest], np.float32)
    return (angle - np.clip(angle, *limits)) * side


def joint_excess(hands: Hands) -> Float32[np.ndarray, "20 N"]:
    """Return the signed degrees by which each joint of `JOINT_NAMES` is out of range.

    0 in range, NaN where one of its landmarks is missing or a bone has no length.
    """
    from_wrist = hands.fingers - hands.wrist[:, None, None]
    bones = np.concatenate([from_wrist[:, :, :1], np.diff(hands.fingers, axis=2)], axis=2)
    direction = thumb_direction(hands)
    flexion = [
        flexion_excess(bones[:, :, joint], bones[:, :, joint + 1], joint, direction)
        for joint in range(len(FLEXION_RANGES))
    ]
    abduction = [
        abduction_excess(
            from_wrist[:, abduction.finger, abduction.link],
            from_wrist[:, abduction.base_of, 0],
            abduction,
            hands.side,
        )
        for abduction in ABDUCTIONS
    ]
    return np.concatenate([*flexion, np.stack(abduction)])


def _end_shift(
    bone: Float32[np.ndarray, "2 *fingers N"], degrees: Float32[np.ndarray, "*fingers N"]
) -> Float32[np.ndarray, "2 *fingers N"]:
    """Return the shift of a bone's end that turns it about its start; 0 where the angle is NaN."""
    radians = degrees * _RADIANS_A_DEGREE
    sin, less = np.sin(radians), np.cos(radians) - 1
    shift = np.stack([less * bone[0] - sin * bone[1], sin * bone[0] + less * bone[1]])
    return np.where(np.isnan(degrees), np.float32(0), shift)


def _link_shifts(hands: Hands, alpha: np.float32) -> Float32[np.ndarray, "2 5 4 N"]:
    """Return the shift of each link relative to the one before it: flexion, then abduction."""
    shifts = np.zeros_like(hands.fingers)
    direction = thumb_direction(hands)
    inner = hands.fingers[:, :, 0] - hands.wrist[:, None]
    for joint in range(len(FLEXION_RANGES)):
        outer = hands.fingers[:, :, joint + 1] - hands.fingers[:, :, joint]
        excess = flexion_excess(inner, outer, joint, direction)
        shifts[:, :, joint + 1] = _end_shift(outer, -alpha * excess)
        inner = outer + shifts[:, :, joint + 1]
    for abduction in ABDUCTIONS:
        moved = shifts[:, abduction.finger, : abduction.link + 1].sum(axis=1)
        link = hands.fingers[:, abduction.finger, abduction.link] + moved - hands.wrist
        base = (
            hands.fingers[:, abduction.base_of, 0] + shifts[:, abduction.base_of, 0] - hands.wrist
        )
        # The angle goes from the link to the base, so the link turns towards the excess.
        excess = abduction_excess(link, base, abduction, hands.side)
        shifts[:, abduction.finger, abduction.link] += _end_shift(link, alpha * excess)
    return shifts


def _rectify_in_place(
    frames: Float32[np.ndarray, "F 54 2"], aspect: Float32[np.ndarray, " F"], alpha: np.float32
) -> None:
    both = frames[:, skeleton.NUM_BODY :].reshape(-1, 2, skeleton.NUM_HAND, 2)
    is_present = ~np.isnan(both).all(axis=(2, 3))
    frame, is_right = np.nonzero(is_present)
    points, stretch = both[is_present], aspect[frame]
    hands = lay_out_hands(points, stretch, is_left=is_right == 0)
    shifts = _link_shifts(hands, alpha)
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
    """Turn the joints of both hands back towards their range: flexion, then abduction.

    Every frame stands for itself. A joint is left alone where one of its landmarks is missing or a
    bone has no length; a thumb is not bent where its direction is unknown, as without the base of
    the little finger. Landmarks that need not move keep their bits.

    Args:
        landmarks: cleaned coordinates in the image, NaN where missing.
        aspect: width of the image over its height, for every frame.
        alpha: share of the excess by which a joint turns back; 1 puts it at the end of its range.
    """
    result = np.array(landmarks, np.float32)
    frames = result.reshape(-1, *result.shape[-2:])
    aspects = aspect.reshape(-1).astype(np.float32)
    for first in range(0, len(frames), _FRAMES_TOGETHER):
        block = slice(first, first + _FRAMES_TOGETHER)
        _rectify_in_place(frames[block], aspects[block], np.float32(alpha))
    return result


def rectify_clips(clips: Iterable[Clip], settings: PrepareSettings) -> Iterator[Clip]:
    """Yield every clip, rectified, many computed at once."""
    for group in groups_of_clips(clips, _FRAMES_TOGETHER):
        frames, aspect = concatenate_frames(group)
        rectified = rectify(frames, aspect, settings.rectify_alpha)
        ends = np.cumsum([clip.num_frames for clip in group])[:-1]
        for clip, landmarks in zip(group, np.split(rectified, ends), strict=True):
            yield replace(clip, landmarks=landmarks)


HEURISTIC = (
    "the ranges are a heuristic: a picture shows bones foreshortened, so a joint that is fine in "
    "space may look out of range in two dimensions"
)
# An excess below this is a rounding error.
_SMALLEST_DEGREES = 0.01


class Excess(NamedTuple):
    """Frequency and size of the excess of a abduction."""

    share: float | None
    """Of the frames in which the joint can be measured; None without any."""
    mean_degrees: float | None
    """Over the frames in which it is out of range; None where it never is."""
    p95_degrees: float | None
    """95 % of the excesses are no larger than this, to a tenth of a degree."""


class JointReport(NamedTuple):
    """One joint of one hand; `num_frames` counts the frames in which it can be measured."""

    hand: str
    joint: str
    num_frames: int
    before: Excess
    after: Excess


class RectificationReport(NamedTuple):
    """Every joint of both hands in a set of clips, before and after rectification."""

    alpha: float
    joints: tuple[JointReport, ...]
    note: str = HEURISTIC


def rectification_report(clips: Iterable[Clip], settings: PrepareSettings) -> RectificationReport:
    """Measure every joint of both hands before rectification and after it.

    Args:
        clips: cleaned clips, not rectified, whatever `settings.rectify` says.
        settings: `rectify_alpha` is read.
    """
    before, after = [], []
    for group in groups_of_clips(clips, _FRAMES_TOGETHER):
        frames, aspect = concatenate_frames(group)
        before.append(_excess_degrees(frames, aspect))
        after.append(_excess_degrees(rectify(frames, aspect, settings.rectify_alpha), aspect))
    all_before, all_after = np.concatenate(before, axis=-1), np.concatenate(after, axis=-1)
    joints = tuple(
        JointReport(
            side,
            name,
            int((~np.isnan(all_before[joint, hand])).sum()),
            _summary(all_before[joint, hand]),
            _summary(all_after[joint, hand]),
        )
        for hand, side in enumerate(("left", "right"))
        for joint, name in enumerate(JOINT_NAMES)
    )
    return RectificationReport(settings.rectify_alpha, joints)


def _excess_degrees(
    frames: Float32[np.ndarray, "F 54 2"], aspect: Float32[np.ndarray, " F"]
) -> Float32[np.ndarray, "20 2 F"]:
    excesses = [
        joint_excess(lay_out_hands(frames[:, hand], aspect, np.full(len(frames), is_left)))
        for hand, is_left in ((skeleton.LEFT_HAND, True), (skeleton.RIGHT_HAND, False))
    ]
    return np.abs(np.stack(excesses, axis=1))


def _summary(degrees: Float32[np.ndarray, " F"]) -> Excess:
    measured = degrees[~np.isnan(degrees)].astype(np.float64)
    out = measured[measured > _SMALLEST_DEGREES]
    if not len(out):
        return Excess(0.0 if len(measured) else None, None, None)
    p95 = float(np.quantile(out, 0.95, method="inverted_cdf"))
    return Excess(len(out) / len(measured), float(out.mean()), round(p95, 1))
