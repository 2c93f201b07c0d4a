"""The people of the demo set, and the cameras that film them.

Coordinates: origin between the shoulders, x towards the signer's left (right in the image), y down,
z away from the camera; unit: the distance of the shoulders.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from slrctl.core.data.synthetic.draws import bell, keys_for
from slrctl.core.seeding import counter_uniform

ASPECTS = (4 / 3, 16 / 9)


@dataclass(frozen=True, eq=False)
class Signer:
    """One person's body and habits; lengths in shoulder distances."""

    name: str
    is_left_handed: bool
    upper_arm: float
    forearm: float
    hand: float
    finger_scale: float
    """Length of the fingers over the usual one, for the same palm."""
    head_scale: float
    tempo: float
    """Frames a sign of usual length takes."""
    amplitude: float
    """Size of movements over the usual one."""
    fps: float
    place_shift: Float[np.ndarray, " 3"]
    tilt: Float[np.ndarray, " 3"]
    """Habitual rotation of the hand, as a rotation vector in radians."""
    accent: Float[np.ndarray, "5 5"]
    """Habitual departure from the joint angles of a handshape, in degrees."""
    rest: Float[np.ndarray, " 3"]
    """Where the wrist hangs between signs, from its shoulder, for a right arm."""


@dataclass(frozen=True, eq=False)
class Camera:
    """Where one session's camera stands."""

    rotation: Float[np.ndarray, "3 3"]
    scale: float
    """Distance of the shoulders over the height of the image."""
    centre: Float[np.ndarray, " 2"]
    """Where the neck is in the image, in image widths and heights."""
    aspect: float
    distance: float = 6.0
    """From the camera to the neck, in shoulder distances."""


def draw_signer(seed: int, name: str, *, is_left_handed: bool) -> Signer:
    """Draw a person from (seed, name)."""
    keys = keys_for([(seed, "signer", name)])
    share = counter_uniform(keys, 16)[0]
    normal = bell(keys_for([(seed, "habits", name)]), 31)[0]

    def between(low: float, high: float, draw: int) -> float:
        return float(low + (high - low) * share[draw])

    upper_arm, forearm = between(0.74, 0.88, 0), between(0.62, 0.74, 1)
    hanging = np.array([between(-0.12, 0.04, 2), 1.0, between(-0.30, -0.05, 3)])
    hanging *= between(0.90, 0.96, 4) * (upper_arm + forearm) / np.linalg.norm(hanging)
    return Signer(
        name=name,
        is_left_handed=is_left_handed,
        upper_arm=upper_arm,
        forearm=forearm,
        hand=between(0.44, 0.52, 5),
        finger_scale=between(0.92, 1.08, 6),
        head_scale=between(0.92, 1.08, 7),
        tempo=between(33.0, 48.0, 8),
        amplitude=between(0.8, 1.2, 9),
        fps=(25.0, 30.0)[int(2 * share[10])],
        place_shift=0.05 * normal[:3],
        tilt=0.13 * normal[3:6],
        accent=5.0 * normal[6:].reshape(5, 5),
        rest=hanging,
    )


def draw_camera(seed: int, signer: str, session: str, aspect: float) -> Camera:
    """Draw a camera from (seed, session); two sessions of a signer are filmed much alike."""
    usual, own = bell(keys_for([(seed, "camera", signer), (seed, "camera", session)]), 6)
    yaw, pitch, roll, scale, x, y = 0.85 * usual + 0.5 * own
    angles = np.deg2rad([6.0 * yaw, 3.0 * pitch, 1.5 * roll])
    (cos_y, cos_p, cos_r), (sin_y, sin_p, sin_r) = np.cos(angles), np.sin(angles)
    turn = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    nod = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    lean = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
    return Camera(
        rotation=lean @ nod @ turn,
        scale=0.27 + 0.015 * float(scale),
        centre=np.array([0.5 + 0.03 * x, 0.50 + 0.02 * y]),
        aspect=aspect,
    )


def project(camera: Camera, points: Float[np.ndarray, "N V 3"]) -> Float[np.ndarray, "N V 2"]:
    """Film points: x and y in the image, divided by its width and height."""
    turned = points @ camera.rotation.T
    perspective = camera.scale * camera.distance / (camera.distance + turned[..., 2:])
    return camera.centre + turned[..., :2] * perspective / [camera.aspect, 1.0]
