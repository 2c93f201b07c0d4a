"""Tell at small cost that two clips are not copies of one another.

A few landmarks of each clip at a few places in time are kept; for a pair, they are compared under
every line of a grid that maps the time of one clip to the time of the other.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float16, Int64

from slrctl.core.data.audit.alignment import FEW_LANDMARKS, LEAST_REPEATED, MOVING, SHIFTS
from slrctl.core.data.audit.framed import FramedClips
from slrctl.core.data.audit.torso import mirrored

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
