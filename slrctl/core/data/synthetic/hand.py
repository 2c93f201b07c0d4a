"""A jointed hand: joint angles in, 21 points out, in the frame of its palm.

The frame has three axes: along the fingers (wrist to middle knuckle), towards the thumb, and out of
the palm. Lengths are in hand lengths, angles in degrees.
"""

import numpy as np
from jaxtyping import Float

# Five chains, as in `skeleton.HAND_NAMES`: index, middle, ring, little, thumb. Each has a base
# joint on the palm (MCP; CMC of the thumb) and three bones.
BASES = np.array([[0.50, 0.13], [0.52, 0.02], [0.48, -0.08], [0.43, -0.17], [0.12, 0.13]])
BONES = np.array(
    [
        [0.25, 0.14, 0.11],
        [0.27, 0.16, 0.11],
        [0.25, 0.15, 0.11],
        [0.19, 0.11, 0.10],
        [0.26, 0.19, 0.15],
    ]
)

# Flexion of MCP, PIP and DIP.
FINGERS = {
    "straight": (5.0, 6.0, 4.0),
    "curled": (80.0, 95.0, 55.0),
    "hooked": (12.0, 85.0, 55.0),
    "bent": (75.0, 8.0, 5.0),
    "clawed": (20.0, 55.0, 40.0),
    "round": (48.0, 48.0, 30.0),
}
# Flexion of MP and IP, angle to the fingers in the palm's plane, angle out of that plane.
THUMBS = {
    "out": (0.0, 0.0, 62.0, 8.0),
    "along": (5.0, 5.0, 22.0, 10.0),
    "across": (45.0, 40.0, 25.0, 35.0),
    "opposed": (18.0, 22.0, 30.0, 45.0),
}
FAN = np.array([12.0, 2.0, -8.0, -18.0])  # towards the thumb, of spread straight fingers

# Index, middle, ring and little finger; thumb; how far the fingers are spread.
HANDSHAPES = {
    "flat": (("straight",) * 4, "along", 0.2),
    "five": (("straight",) * 4, "out", 1.0),
    "fist": (("curled",) * 4, "across", 0.0),
    "thumb": (("curled",) * 4, "out", 0.0),
    "point": (("straight", "curled", "curled", "curled"), "across", 0.0),
    "ell": (("straight", "curled", "curled", "curled"), "out", 0.0),
    "vee": (("straight", "straight", "curled", "curled"), "across", 1.2),
    "hook": (("hooked", "curled", "curled", "curled"), "across", 0.0),
    "wye": (("curled", "curled", "curled", "straight"), "out", 1.0),
    "claw": (("clawed",) * 4, "out", 1.0),
    "bent": (("bent",) * 4, "along", 0.1),
    "pinch": (("round", "straight", "straight", "straight"), "opposed", 0.8),
}


def joint_angles(handshape: str) -> Float[np.ndarray, "5 5"]:
    """Angles of a handshape, one row a chain: three flexions, spread, angle out of the palm.

    The spread is an angle in the plane of the palm, positive towards the thumb. The metacarpal of
    the thumb moves by its last two angles, so its first flexion is always 0.
    """
    fingers, thumb, spread = HANDSHAPES[handshape]
    angles = np.zeros((5, 5))
    angles[:4, :3] = [FINGERS[state] for state in fingers]
    angles[:4, 3] = spread * FAN
    angles[4, 1:] = THUMBS[thumb]
    return angles


RELAXED = (joint_angles("claw") + joint_angles("flat")) / 2


def hand_points(
    angles: Float[np.ndarray, "N 5 5"], finger_scale: float = 1.0
) -> Float[np.ndarray, "N 21 3"]:
    """Bend the hand.

    Args:
        angles: one row a chain, as from `joint_angles`.
        finger_scale: length of a signer's fingers over the usual one; the palm stays.

    Returns:
        Points in the order of `skeleton.HAND_NAMES`, in palm coordinates.
    """
    radians = np.deg2rad(angles)
    flexion = np.cumsum(radians[..., :3], axis=-1)
    spread, out = radians[..., 3], radians[..., 4]
    straight = np.stack(
        [np.cos(out) * np.cos(spread), np.cos(out) * np.sin(spread), np.sin(out)], axis=-1
    )
    # Fingers bend out of the palm; the thumb bends across it.
    bend = np.array([[0, 0, 1.0]] * 4 + [[0, -0.85, 0.5]])
    bend = bend - (bend * straight).sum(-1, keepdims=True) * straight
    bend /= np.linalg.norm(bend, axis=-1, keepdims=True)
    bones = (
        BONES[..., None]
        * finger_scale
        * (
            np.cos(flexion)[..., None] * straight[..., None, :]
            + np.sin(flexion)[..., None] * bend[..., None, :]
        )
    )  # N 5 3 3
    points = np.zeros((len(angles), 21, 3))
    chains = points[:, 1:].reshape(len(angles), 5, 4, 3)
    chains[..., 3, :2] = BASES
    for joint in (2, 1, 0):  # the tip comes first in our order
        chains[..., joint, :] = chains[..., joint + 1, :] + bones[..., 2 - joint, :]
    return points
