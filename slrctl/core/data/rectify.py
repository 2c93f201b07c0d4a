"""Turn back joints of the hands that are bent or spread further than a hand can.

Kinematic rectification of SiFormer (Pu, Lim and Chong, ACM MM 2024), in two dimensions: a joint out
of its range turns back by a share alpha of its excess. What lies beyond it moves along, without
turning: only the bone at fault gets another direction than was seen.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip, frames_behind_one_another, groups_of_clips
from slrctl.core.data.hand_joints import (
    FLEXION_RANGES,
    RADIAN,
    SPREADS,
    Hands,
    flexion_excess,
    lay_out_hands,
    spread_excess,
    thumb_direction,
)
from slrctl.settings import PrepareSettings

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
