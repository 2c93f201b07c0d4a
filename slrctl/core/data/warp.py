"""Move landmarks as if the camera, or the signer's arms, had been elsewhere.

Rotation, shear and squeeze are maps of the whole image, each a 3 x 3 matrix on (x, y, 1); they are
the geometric augmentations of SPOTER (Bohacek and Hruz, WACV Workshops 2022), as is the rotation
of arm joints. Angles are degrees, positive from x towards y, so clockwise in the image; they are
meant in (x * aspect, y), where a pixel is square.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from slrctl.core import skeleton

# The left arm, then the right one: the joints that turn, and what lies beyond each of them.
ARM_JOINTS = (
    (skeleton.LEFT_SHOULDER, skeleton.LEFT_ELBOW),
    (skeleton.RIGHT_SHOULDER, skeleton.RIGHT_ELBOW),
)
BEYOND_SHOULDER = (
    [skeleton.LEFT_ELBOW, skeleton.LEFT_WRIST, *range(*skeleton.LEFT_HAND.indices(54))],
    [skeleton.RIGHT_ELBOW, skeleton.RIGHT_WRIST, *range(*skeleton.RIGHT_HAND.indices(54))],
)
# Landmarks far outside a sheared image could cross its horizon; their depth stops short of it.
NEAREST_DEPTH = 0.2


# One number for every clip, or one for all.
_Entry = Float[np.ndarray, " B"] | float


def _matrices(*rows: tuple[_Entry, _Entry, _Entry]) -> Float[np.ndarray, "B 3 3"]:
    entries = np.broadcast_arrays(*(entry for row in rows for entry in row))
    return np.stack(entries, axis=-1).reshape(-1, 3, 3).astype(np.float64)


def rotation(
    degrees: Float[np.ndarray, " B"], aspect: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Turn the image about its centre."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return _matrices(
        (cos, -sin / aspect, 0.5 - 0.5 * cos + 0.5 * sin / aspect),
        (sin * aspect, cos, 0.5 - 0.5 * cos - 0.5 * sin * aspect),
        (0.0, 0.0, 1.0),
    )


def shear(
    share: Float[np.ndarray, " B"], is_left: Bool[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Move both corners of the left or of the right side of the image inwards, in perspective.

    They move by the same share of the width and of the height, as in SPOTER; the corners of the
    other side stay. Shares up to 0.25 keep the horizon an image's width away from the image.
    """
    # The homography that keeps the right side, solved by hand: depth is 1 - 2 s x; on the left
    # side (x = 0) x becomes s and y becomes s + (1 - 2 s) y, on the right side both stay.
    left = _matrices(
        (1 - 3 * share, 0.0, share),
        (-share, 1 - 2 * share, share),
        (-2 * share, 0.0, 1.0),
    )
    flip = np.array([[-1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return np.where(is_left[:, None, None], left, flip @ left @ flip)


def squeeze(
    left: Float[np.ndarray, " B"], right: Float[np.ndarray, " B"]
) -> Float[np.ndarray, "B 3 3"]:
    """Cut shares of the width off both sides and stretch what remains to the whole width."""
    width = 1 - left - right
    return _matrices((1 / width, 0.0, -left / width), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def project(
    landmarks: Float[Tensor, "B T 54 2"], maps: Float[np.ndarray, "B 3 3"]
) -> Float[Tensor, "B T 54 2"]:
    """Send every landmark through its clip's map; missing ones stay missing."""
    m = torch.from_numpy(maps).to(landmarks.dtype)[:, :, :, None, None]
    x, y = landmarks.movedim(-1, 0).contiguous()
    depth = (m[:, 2, 0] * x + m[:, 2, 1] * y + m[:, 2, 2]).clamp(min=NEAREST_DEPTH)
    return torch.stack(
        [
            (m[:, 0, 0] * x + m[:, 0, 1] * y + m[:, 0, 2]) / depth,
            (m[:, 1, 0] * x + m[:, 1, 1] * y + m[:, 1, 2]) / depth,
        ],
        dim=-1,
    )


def _turn(
    points: Float[Tensor, "B T V 2"],
    pivot: Float[Tensor, "B T 2"],
    degrees: Float[np.ndarray, " B"],
    aspect: Float[np.ndarray, " B"],
) -> Float[Tensor, "B T V 2"]:
    """Rotate points about one of their frame; nothing moves where that is missing."""
    radians = np.radians(degrees)
    entries = np.stack([np.cos(radians), np.sin(radians), aspect])
    cos, sin, wide = torch.from_numpy(entries).to(points.dtype)[:, :, None, None]
    x, y = (points - pivot[:, :, None]).unbind(dim=-1)
    turned = torch.stack([cos * x - sin / wide * y, sin * wide * x + cos * y], dim=-1)
    turned = turned + pivot[:, :, None]
    is_still = pivot.isnan().any(-1) | torch.from_numpy(degrees == 0)[:, None]
    return torch.where(is_still[:, :, None, None], points, turned)


def rotate_arms(
    landmarks: Float[Tensor, "B T 54 2"],
    degrees: Float[np.ndarray, "B 2 2"],
    aspect: Float[np.ndarray, " B"],
) -> Float[Tensor, "B T 54 2"]:
    """Turn arms in their joints; the forearm and the hand move along.

    Args:
        landmarks: coordinates in the image, NaN where missing.
        degrees: for the left and the right arm, the angle at the shoulder and at the elbow.
        aspect: width of each clip's image over its height.
    """
    moved = landmarks.clone()
    for arm, joints in enumerate(ARM_JOINTS):
        for number, joint in enumerate(joints):
            beyond = BEYOND_SHOULDER[arm][number:]  # the elbow does not turn about itself
            moved[:, :, beyond] = _turn(
                moved[:, :, beyond], moved[:, :, joint], degrees[:, arm, number], aspect
            )
    return moved
