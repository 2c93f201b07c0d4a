"""The invented signs of the demo set: five components each, in minimal pairs."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt64

from slrctl.core.seeding import counter_uniform, stable_seed

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


# Where the palm is, for a right hand, in shoulder widths from the neck: x towards the signer's left
# (right in the image), y down, z away from the camera.
PLACES = {
    "brow": (-0.22, -0.92, -0.45),
    "chin": (-0.12, -0.38, -0.48),
    "chest": (-0.30, 0.28, -0.50),
    "belly": (-0.30, 0.80, -0.50),
    "side": (-0.85, 0.10, -0.45),
    "across": (0.35, 0.12, -0.50),
}
# Direction of the fingers, direction the palm faces; same axes, also for a right hand.
ORIENTATIONS = {
    "out": ((0.10, -1.0, -0.10), (0.0, -0.1, -1.0)),
    "in": ((0.55, -0.80, -0.20), (0.1, 0.0, 1.0)),
    "down": ((0.75, 0.05, -0.65), (0.0, 1.0, -0.3)),
    "up": ((0.55, 0.00, -0.85), (-0.2, -1.0, -0.4)),
    "edge": ((0.15, -0.45, -0.90), (1.0, 0.1, 0.1)),
}
MOVEMENTS = ("line", "drop", "arc", "circle", "zigzag", "repeat")
KINDS = ("one", "mirrored", "alternating", "base")
# About as many one-handed signs as in real lexicons.
_KIND_TURNS = ("one", "one", *KINDS[1:])


@dataclass(frozen=True)
class Sign:
    """What a sign is made of.

    `kind` says what the second hand does: nothing (one), the mirror image (mirrored), the mirror
    image in opposite phase (alternating), or it is held still below the first (base).
    """

    handshape: str
    place: str
    movement: str
    orientation: str
    kind: str

    @property
    def gloss(self) -> str:
        return "-".join(astuple(self))

    @property
    def is_two_handed(self) -> bool:
        return self.kind != "one"

    @property
    def is_makeable(self) -> bool:
        """Two arms would cross; and a base hand is held in front of the trunk only."""
        if self.place == "across":
            return self.kind == "one"
        return self.kind != "base" or self.place in ("chest", "belly")


COMPONENTS = tuple(field.name for field in fields(Sign))
_VALUES = dict(
    zip(
        COMPONENTS,
        (tuple(HANDSHAPES), tuple(PLACES), MOVEMENTS, tuple(ORIENTATIONS), KINDS),
        strict=True,
    )
)
MAX_GLOSSES = 200
FAMILY = 4


def differing_components(first: Sign, second: Sign) -> tuple[str, ...]:
    """Names of the components in which two signs differ."""
    return tuple(n for n in COMPONENTS if getattr(first, n) != getattr(second, n))


@cache
def lexicon(num_glosses: int) -> tuple[Sign, ...]:
    """The first signs of one fixed list; it does not depend on any seed.

    They come in families of four: a sign and three that differ from it in one component each, all
    components in turn. Signs of different families differ in at least two.
    """
    signs: list[Sign] = []
    attempt = 0
    while len(signs) < num_glosses:
        attempt += 1
        number = len(signs) // FAMILY
        drawn = {
            name: values[stable_seed("sign", attempt, name) % len(values)]
            for name, values in _VALUES.items()
        }
        # Taking turns, so that short lists have every kind and every difference.
        drawn["kind"] = _KIND_TURNS[number % len(_KIND_TURNS)]
        family = [Sign(**drawn)]
        for turn in range(number * (FAMILY - 1), (number + 1) * (FAMILY - 1)):
            name = COMPONENTS[turn % len(COMPONENTS)]
            other = _VALUES[name][stable_seed("partner", attempt, turn) % len(_VALUES[name])]
            family.append(Sign(**{**drawn, name: other}))
        is_new = all(len(differing_components(a, b)) >= 2 for a in family for b in signs)
        is_whole = len(set(family)) == FAMILY and all(sign.is_makeable for sign in family)
        if is_new and is_whole:
            signs += family
    return tuple(signs[:num_glosses])


def minimal_pairs(signs: Sequence[Sign]) -> tuple[tuple[Sign, Sign, str], ...]:
    """All pairs that differ in one component, with its name."""
    pairs = ((a, b, differing_components(a, b)) for a, b in combinations(signs, 2))
    return tuple((a, b, names[0]) for a, b, names in pairs if len(names) == 1)


# How long a sign with this movement takes, over the usual.
DURATIONS = {"line": 0.9, "drop": 0.9, "arc": 1.0, "circle": 1.1, "zigzag": 1.1, "repeat": 1.0}


@dataclass(frozen=True, eq=False)
class Timing:
    """The clock of each clip, in frames (not whole ones) from the hand's own beginning."""

    num_frames: Int64[np.ndarray, " B"]
    lag: Int64[np.ndarray, " B"]
    """Frame i of the left hand does what frame i + lag of the right hand does."""
    delay: Int64[np.ndarray, "B 2"]
    """The hand's own beginning, after the clip's."""
    marks: Float[np.ndarray, "B 4"]
    """When a hand starts to rise, starts its stroke, ends it, and is down again."""
    warp: Float[np.ndarray, " B"]
    """Above 0 the stroke starts slowly, below 0 fast; within +-1."""


def draw_timing(
    keys: UInt64[np.ndarray, " B"],
    signs: Sequence[Sign],
    tempo: float,
    frames: tuple[int, int],
    max_lag: int,
    *,
    is_left_handed: bool,
) -> Timing:
    """Draw the clock of every clip.

    Args:
        keys: one random key a clip.
        signs: the sign of each clip.
        tempo: frames the signer takes for a sign of usual length.
        frames: fewest and most frames of a clip.
        max_lag: largest lag, either way, of signs in which both hands move.
        is_left_handed: whether the dominant hand is the left one.
    """
    share = counter_uniform(keys, 7)
    both_move = np.array([sign.kind in ("mirrored", "alternating") for sign in signs])
    lag = np.floor(share[:, 0] * (2 * max_lag + 1)).astype(np.int64) - max_lag
    lag = np.where(both_move, lag, 0)
    usual = tempo * np.array([DURATIONS[sign.movement] for sign in signs])
    own = np.rint(usual * (0.78 + 0.44 * share[:, 1])).astype(np.int64)
    own = np.clip(own, frames[0], frames[1] - np.abs(lag))

    # Idle, approach, stroke, return. What is left is idle again; a late return is cut off, as in
    # real clips, but never a stroke.
    parts = own[:, None] * np.stack(
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
        marks=np.cumsum(parts, axis=-1),
        warp=1.4 * share[:, 6] - 0.7,
    )


def smoothstep(x: Float[np.ndarray, "*S"]) -> Float[np.ndarray, "*S"]:
    """Rise from 0 at 0 to 1 at 1, at rest at both ends."""
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3.0 - 2.0 * x)


def raised_and_phase(
    timing: Timing, clip: Int64[np.ndarray, " N"], frame: Int64[np.ndarray, " N"]
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """Say how far each hand is up (0 at rest, 1 in the stroke) and how far through its stroke."""
    time = (frame[:, None] - timing.delay[clip]).astype(np.float64)
    rise, start, end, down = (timing.marks[clip, mark, None] for mark in range(4))
    raised = smoothstep((time - rise) / (start - rise))
    raised = raised * smoothstep((down - time) / (down - end))
    phase = np.clip((time - start) / (end - start), 0.0, 1.0)
    warp = timing.warp[clip, None] / (2 * np.pi)
    return raised, phase - warp * np.sin(2 * np.pi * phase)


def strokes(timing: Timing, both_move: Bool[np.ndarray, " B"]) -> Int64[np.ndarray, "B 2"]:
    """First frame and one past the last frame in which a moving hand is in its stroke."""
    starts = timing.delay + timing.marks[:, 1:2]
    ends = timing.delay + timing.marks[:, 2:3]
    first = np.where(both_move, starts.min(axis=1), starts[:, 0])
    last = np.where(both_move, ends.max(axis=1), ends[:, 0])
    return np.stack([np.ceil(first), np.floor(last) + 1], axis=-1).astype(np.int64)
