"""The joints of a hand in the image: their angles, and the ranges that a hand can reach.

A hand has fifteen joints of flexion and extension, the angle of a bone to the one before it, and
five of abduction and adduction, angles at the wrist between the bases of neighbouring fingers. The
ranges are those of SiFormer (Pu, Lim and Chong, ACM MM 2024). They hold for a hand in space; in a
picture, where bones are foreshortened, they are a heuristic.

Hands are laid out as (coordinate, finger, link, hand): hands last, so that every operation runs
along memory. A finger's links go from its base to its tip.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32

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
