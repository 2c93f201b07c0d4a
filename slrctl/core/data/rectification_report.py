"""How often the joints of the hands are out of range, and by how much, before and after."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip, frames_behind_one_another, groups_of_clips
from slrctl.core.data.hand_joints import JOINT_NAMES, joint_excess, lay_out_hands
from slrctl.core.data.rectify import rectify
from slrctl.settings import PrepareSettings

HEURISTIC = (
    "the ranges are a heuristic: a picture shows bones foreshortened, so a joint that is fine in "
    "space may look out of range in two dimensions"
)

_SIDES = ("left", "right")
_FRAMES_TOGETHER = 2048
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
    for group in groups_of_clips(clips, _FRAMES_TOGETHER):
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
