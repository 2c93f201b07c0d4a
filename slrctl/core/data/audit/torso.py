"""Express a clip in the frame of its own torso: where the camera stood drops out.

The origin is the neck, one axis leads along the shoulders and the other up to the head, each in
units of its own length, and each the median over the clip. Moving, scaling, stretching, turning or
shearing the image leaves the result as it is; mirroring it negates x and swaps left and right.
"""

import math

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton

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
