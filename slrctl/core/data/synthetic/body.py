"""Signers, their cameras, and the movement of their bodies, for all frames of many clips at once.

Both arms are computed as right arms, dominant first; the second is then mirrored, and for a
left-handed signer everything is. Coordinates are shoulder distances from the neck: x towards the
signer's left, y down, z away from the camera.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.data.synthetic.lexicon import (
    MOVEMENTS,
    ORIENTATIONS,
    PLACES,
    RELAXED,
    Sign,
    hand_points,
    joint_angles,
)
from slrctl.core.seeding import counter_uniform, stable_seed

MIRROR_X = np.array([-1.0, 1.0, 1.0])
SHOULDER = np.array([-0.5, 0.0, 0.0])
ELBOW_SIDE = np.array([-0.6, 0.75, 0.3])
# Nose, then right eye and ear; the left ones are their mirror images.
NOSE = np.array([0.0, -0.58, -0.30])
EYE = np.array([-0.09, -0.69, -0.22])
EAR = np.array([-0.21, -0.64, -0.02])
# A hanging hand: fingers down and a little forward, palm to the thigh.
RESTING = np.array([[0.25, 0.85, -0.40], [0.9, -0.1, 0.4]])
# A base hand lies below the moving one, palm up.
BASE_DROP = np.array([0.20, 0.26, 0.0])
# A forearm turns about its elbow, so the hand leans in its direction: radians a shoulder distance.
LEAN = 0.8


def keys_of(names: Iterable[tuple[object, ...]]) -> UInt64[np.ndarray, " B"]:
    """Return a random key for each name."""
    return np.array([stable_seed(*name) for name in names], np.uint64)


def bell(keys: UInt64[np.ndarray, " B"], count: int) -> Float[np.ndarray, "B N"]:
    """Draw `count` numbers a key with mean 0 and variance 1, nearly normal, within +-3.

    The sum of three uniform numbers (Irwin-Hall), cut out of the 48 upper bits of one draw.
    """
    bits = (counter_uniform(keys, count) * 2.0**48).astype(np.int64)
    total = (bits >> 32) + ((bits >> 16) & 0xFFFF) + (bits & 0xFFFF)
    return (total - 1.5 * 0xFFFF) / (0.5 * 0x10000)


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
    """Frames of a sign of usual length."""
    amplitude: float
    """Size of movements over the usual one."""
    fps: float
    place_shift: Float[np.ndarray, " 3"]
    tilt: Float[np.ndarray, " 3"]
    """Habitual rotation of the hand, as a rotation vector in radians."""
    accent: Float[np.ndarray, "5 5"]
    """Habitual departure from the joint angles of a handshape, in degrees."""
    rest: Float[np.ndarray, " 3"]
    """Place of the wrist between signs, from its shoulder, for a right arm."""


def draw_signer(seed: int, name: str, *, is_left_handed: bool) -> Signer:
    """Draw a person from (seed, name)."""
    share = counter_uniform(keys_of([(seed, "signer", name)]), 16)[0]
    normal = bell(keys_of([(seed, "habits", name)]), 31)[0]

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


_CAMERA_DISTANCE = 6.0  # from the camera to the neck, in shoulder distances


def film(
    points: Float[np.ndarray, "N V 3"], seed: int, signer: str, session: str, aspect: float
) -> tuple[Float[np.ndarray, "N V 2"], float]:
    """Project points by the camera of a session; two sessions of a signer are filmed much alike.

    Returns:
        x and y in the image, divided by its width and height, and the distance of the shoulders
        over the height of the image.
    """
    usual, own = bell(keys_of([(seed, "camera", signer), (seed, "camera", session)]), 6)
    yaw, pitch, roll, size, x, y = 0.85 * usual + 0.5 * own
    angles = np.deg2rad([6.0 * yaw, 3.0 * pitch, 1.5 * roll])
    (cos_y, cos_p, cos_r), (sin_y, sin_p, sin_r) = np.cos(angles), np.sin(angles)
    turn = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    nod = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    lean = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
    scale = 0.27 + 0.015 * float(size)
    centre = np.array([0.5 + 0.03 * x, 0.50 + 0.02 * y])  # the neck
    turned = points @ (lean @ nod @ turn).T
    perspective = scale * _CAMERA_DISTANCE / (_CAMERA_DISTANCE + turned[..., 2:])
    return centre + turned[..., :2] * perspective / [aspect, 1.0], scale


@dataclass(frozen=True, eq=False)
class Timing:
    """The clock of each clip, in frames (not whole ones) from the beginning of each hand."""

    num_frames: Int64[np.ndarray, " B"]
    lag: Int64[np.ndarray, " B"]
    """Frame i of the left hand does what frame i + lag of the right hand does."""
    delay: Int64[np.ndarray, "B 2"]
    """Beginning of each hand after the clip's; hands dominant, other."""
    marks: Float[np.ndarray, "B 4"]
    """Start of the rise, start and end of the stroke, end of the return."""
    warp: Float[np.ndarray, " B"]
    """Above 0 the stroke starts slowly, below 0 fast; within +-1."""

    @property
    def strokes(self) -> Int64[np.ndarray, "B 2"]:
        """First frame and one past the last frame in which a moving hand is in its stroke."""
        first = np.ceil(self.delay.min(axis=1) + self.marks[:, 1])
        last = np.floor(self.delay.max(axis=1) + self.marks[:, 2])
        return np.stack([first, last + 1], axis=-1).astype(np.int64)


def draw_timing(
    keys: UInt64[np.ndarray, " B"],
    signs: Sequence[Sign],
    tempo: float,
    frames: tuple[int, int],
    max_lag: int,
    *,
    is_left_handed: bool,
) -> Timing:
    """Draw the clock of every clip from its key.

    `tempo` is the number of frames of a sign of usual length, `frames` the fewest and the most of a
    clip, `max_lag` the largest lag, either way, of signs in which both hands move.
    """
    share = counter_uniform(keys, 7)
    lag = np.floor(share[:, 0] * (2 * max_lag + 1)).astype(np.int64) - max_lag
    lag = np.where([sign.both_move for sign in signs], lag, 0)
    usual = tempo * np.array([MOVEMENTS[sign.movement] for sign in signs])
    own = np.rint(usual * (0.78 + 0.44 * share[:, 1])).astype(np.int64)
    own = np.clip(own, frames[0], frames[1] - np.abs(lag))

    # Idle, approach, stroke, return; the rest is idle again. A late return is cut off, as in real
    # clips, but never a stroke.
    durations = own[:, None] * np.stack(
        [
            0.36 * share[:, 2],
            0.10 + 0.07 * share[:, 3],
            0.34 + 0.12 * share[:, 4],
            0.10 + 0.07 * share[:, 5],
        ],
        axis=-1,
    )
    left_right = np.stack([np.maximum(-lag, 0), np.maximum(lag, 0)], axis=-1)
    return Timing(
        num_frames=own + np.abs(lag),
        lag=lag,
        delay=left_right if is_left_handed else left_right[:, ::-1],
        marks=np.cumsum(durations, axis=-1),
        warp=1.4 * share[:, 6] - 0.7,
    )


def _smoothstep(x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Rise from 0 at 0 to 1 at 1, at rest at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def _raised_and_phase(
    timing: Timing, clip: Int64[np.ndarray, " N"], frame: Int64[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """Return the height of each hand (0 at rest, 1 in the stroke) and its place in the stroke."""
    time = (frame[:, None] - timing.delay[clip]).astype(np.float64)
    rise, start, end, down = (timing.marks[clip, mark, None] for mark in range(4))
    raised = _smoothstep((time - rise) / (start - rise))
    raised = raised * _smoothstep((down - time) / (down - end))
    phase = np.clip((time - start) / (end - start), 0.0, 1.0)
    warp = timing.warp[clip, None] / (2 * np.pi)
    return raised, phase - warp * np.sin(2 * np.pi * phase)


@dataclass(frozen=True, eq=False)
class Goals:
    """Targets of the hands of each clip during the stroke; hands dominant, other."""

    wrist: Float[np.ndarray, "B 2 3"]
    axes: Float[np.ndarray, "B 2 2 3"]
    """Direction of the fingers and of the palm."""
    angles: Float[np.ndarray, "B 2 5 5"]
    size: Float[np.ndarray, "B 2"]
    """Factor of the movement: negative in opposite phase, 0 for a hand held still."""


def draw_goals(signer: Signer, signs: Sequence[Sign], keys: UInt64[np.ndarray, " B"]) -> Goals:
    """Add the signer's habits and the clip's own variation to the components of each sign."""
    normal = bell(keys, 32)
    place = np.array([PLACES[sign.place] for sign in signs])
    place = place + signer.place_shift + 0.05 * normal[:, :3]
    axes = np.array([ORIENTATIONS[sign.orientation] for sign in signs])
    angles = np.stack([joint_angles(sign.handshape) for sign in signs])

    is_base = np.array([sign.kind == "base" for sign in signs])[:, None]
    places = np.stack([place, np.where(is_base, place + BASE_DROP, place)], axis=1)
    other_axes = np.where(is_base[..., None], np.array(ORIENTATIONS["up"]), axes)
    other_angles = np.where(is_base[..., None], joint_angles("flat"), angles)
    axes, shapes = np.stack([axes, other_axes], axis=1), np.stack([angles, other_angles], axis=1)

    tilt = signer.tilt + 0.13 * normal[:, 3:6]
    axes = axes + np.cross(tilt[:, None, None], axes)
    wobble = signer.accent + 4.0 * normal[:, 6:31].reshape(-1, 5, 5)
    # The metacarpal of the thumb has two angles, and only the thumb's leaves the palm.
    wobble[:, 4, 0] = 0.0
    wobble[:, :4, 4] = 0.0
    fingers = axes[:, :, 0] / np.linalg.norm(axes[:, :, 0], axis=-1, keepdims=True)
    other_size = {"one": 0.0, "mirrored": 1.0, "alternating": -1.0, "base": 0.0}
    sizes = np.array([(1.0, other_size[sign.kind]) for sign in signs])
    return Goals(
        wrist=places - 0.5 * signer.hand * fingers,
        axes=axes,
        angles=np.clip(shapes + wobble[:, None], -30.0, 115.0),
        size=sizes * signer.amplitude * (1 + 0.07 * normal[:, 31:]),
    )


def displacement(
    movement: Int64[np.ndarray, " N"], phase: Float[np.ndarray, "N H"]
) -> Float[np.ndarray, "N H 3"]:
    """Return the place of a right hand in its movement, from the middle of it.

    `movement` is an index of `MOVEMENTS`.
    """
    turn = 2 * np.pi * phase
    zero = np.zeros_like(phase)
    paths = {
        "line": (0.50 - 1.00 * phase, zero, zero),
        "drop": (zero, 1.00 * phase - 0.50, zero),
        "arc": (0.45 * np.cos(turn / 2), 0.25 - 0.55 * np.sin(turn / 2), zero),
        "circle": (0.34 * np.sin(1.5 * turn), 0.34 * np.cos(1.5 * turn), zero),
        "zigzag": (0.32 * np.cos(1.5 * turn), 0.70 * phase - 0.35, zero),
        "repeat": (zero, 0.18 * np.cos(3 * turn), 0.18 * np.cos(3 * turn)),
    }
    steps = np.stack([np.stack(paths[name], axis=-1) for name in MOVEMENTS])
    return steps[movement, np.arange(len(phase))]


def reach(
    signer: Signer, target: Float[np.ndarray, "*S 3"]
) -> tuple[Float[np.ndarray, "*S 3"], Float[np.ndarray, "*S 3"]]:
    """Return elbow and wrist of a right arm whose wrist goes as near to the target as it can.

    Two bones of fixed length: the law of cosines places the elbow, out, down and a little back.
    """
    upper, lower = signer.upper_arm, signer.forearm
    wish = target - SHOULDER
    length = np.linalg.norm(wish, axis=-1, keepdims=True)
    along = wish / length
    length = np.clip(length, 0.25 * (upper + lower), 0.98 * (upper + lower))
    side = ELBOW_SIDE - (along @ ELBOW_SIDE)[..., None] * along
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    projected = (upper**2 - lower**2 + length**2) / (2 * length)
    elbow = SHOULDER + projected * along + np.sqrt(upper**2 - projected**2) * side
    return elbow, SHOULDER + length * along


def palm_frame(axes: Float[np.ndarray, "*S 2 3"]) -> Float[np.ndarray, "*S 3 3"]:
    """Return rows along the fingers, towards the thumb of a right hand, out of the palm."""
    fingers = axes[..., 0, :] / np.linalg.norm(axes[..., 0, :], axis=-1, keepdims=True)
    thumb = np.cross(fingers, axes[..., 1, :])
    thumb /= np.linalg.norm(thumb, axis=-1, keepdims=True)
    return np.stack([fingers, thumb, np.cross(thumb, fingers)], axis=-2)


def _assemble(
    signer: Signer,
    elbow: Float64[np.ndarray, "N 2 3"],
    wrist: Float64[np.ndarray, "N 2 3"],
    hands: Float64[np.ndarray, "N 2 21 3"],
) -> Float64[np.ndarray, "N 54 3"]:
    """Put the landmarks of a right-handed signer in the order of `skeleton`."""
    joints = {"nose": signer.head_scale * NOSE, "neck": np.zeros(3)}
    for name, dominant, other in (
        ("Eye", signer.head_scale * EYE, signer.head_scale * EYE),
        ("Ear", signer.head_scale * EAR, signer.head_scale * EAR),
        ("Shoulder", SHOULDER, SHOULDER),
        ("Elbow", elbow[:, 0], elbow[:, 1]),
        ("Wrist", wrist[:, 0], wrist[:, 1]),
    ):
        joints |= {f"right{name}": dominant, f"left{name}": other * MIRROR_X}
    landmarks = np.empty((len(wrist), skeleton.NUM_LANDMARKS, 3))
    for index, name in enumerate(skeleton.BODY_NAMES):
        landmarks[:, index] = joints[name]
    landmarks[:, skeleton.RIGHT_HAND] = hands[:, 0]
    landmarks[:, skeleton.LEFT_HAND] = hands[:, 1] * MIRROR_X
    return landmarks


def perform(
    signer: Signer,
    signs: Sequence[Sign],
    goals: Goals,
    timing: Timing,
    clip: Int64[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> tuple[Float64[np.ndarray, "N 54 3"], Float64[np.ndarray, "N 2"]]:
    """Move the body through the clips; each frame is known by its clip and its number there.

    Returns:
        All landmarks, in the order of `skeleton`, and the height of the left and the right hand: 0
        at rest, 1 in the stroke.
    """
    raised, phase = _raised_and_phase(timing, clip, frame)
    raised = np.where([[True, sign.is_two_handed] for sign in signs], 1.0, 0.0)[clip] * raised
    up = raised[..., None]

    names = list(MOVEMENTS)
    movement = np.array([names.index(sign.movement) for sign in signs])[clip]
    step = goals.size[clip][..., None] * displacement(movement, phase)
    rest = SHOULDER + signer.rest
    elbow, wrist = reach(signer, rest + up * (goals.wrist[clip] + step - rest))

    turn = LEAN * step[:, :, [1, 1, 0]] * [1.0, 0.0, 1.0]
    axes = goals.axes[clip] + np.cross(turn[:, :, None], goals.axes[clip])
    axes = RESTING + up[..., None] * (axes - RESTING)
    angles = RELAXED + up[..., None] * (goals.angles[clip] - RELAXED)
    points = hand_points(angles.reshape(-1, 5, 5), signer.finger_scale).reshape(-1, 2, 21, 3)
    hands = wrist[:, :, None] + signer.hand * points @ palm_frame(axes)

    landmarks = _assemble(signer, elbow, wrist, hands)
    if signer.is_left_handed:
        return landmarks[:, skeleton.MIRROR] * MIRROR_X, raised
    return landmarks, raised[:, ::-1]
