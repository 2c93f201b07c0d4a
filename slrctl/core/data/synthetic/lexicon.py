"""The invented signs of the demo set: five components each, in minimal pairs."""

from dataclasses import astuple, dataclass, fields
from functools import cache

import numpy as np
from jaxtyping import Float

from slrctl.core.seeding import stable_seed

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

# Index, middle, ring and little finger; thumb; spread of the fingers.
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
# The palm of a right hand, in shoulder widths from the neck: x towards the signer's left (right in
# the image), y down, z away from the camera.
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
# Duration of a sign with this movement over the usual one.
MOVEMENTS = {"line": 0.9, "drop": 0.9, "arc": 1.0, "circle": 1.1, "zigzag": 1.1, "repeat": 1.0}
KINDS = ("one", "mirrored", "alternating", "base")
# About as many one-handed signs as in real lexicons.
_KIND_TURNS = ("one", "one", *KINDS[1:])
MAX_GLOSSES = 200
_FAMILY = 4


@dataclass(frozen=True)
class Sign:
    """The components of a sign.

    By `kind` the second hand does nothing (one), mirrors the first (mirrored), mirrors it in
    opposite phase (alternating), or is held still below it (base).
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
    def both_move(self) -> bool:
        return self.kind in ("mirrored", "alternating")

    @property
    def is_possible(self) -> bool:
        """False if arms would cross, or a base hand would not be in front of the trunk."""
        if self.place == "across":
            return self.kind == "one"
        return self.kind != "base" or self.place in ("chest", "belly")


COMPONENTS = tuple(field.name for field in fields(Sign))
_VALUES = dict(
    zip(
        COMPONENTS,
        map(tuple, (HANDSHAPES, PLACES, MOVEMENTS, ORIENTATIONS, KINDS)),
        strict=True,
    )
)


def differing_components(first: Sign, second: Sign) -> tuple[str, ...]:
    """Return the names of the components in which two signs differ."""
    return tuple(n for n in COMPONENTS if getattr(first, n) != getattr(second, n))


@cache
def lexicon(num_glosses: int) -> tuple[Sign, ...]:
    """Return the first signs of one fixed list; it does not depend on any seed.

    They come in families of four: a sign and three that differ from it in one component each, all
    components in turn. Signs of different families differ in at least two.
    """
    signs: list[Sign] = []
    attempt = 0
    while len(signs) < num_glosses:
        attempt += 1
        number = len(signs) // _FAMILY
        drawn = {
            name: values[stable_seed("sign", attempt, name) % len(values)]
            for name, values in _VALUES.items()
        }
        # Taking turns, so that short lists have every kind and every difference.
        drawn["kind"] = _KIND_TURNS[number % len(_KIND_TURNS)]
        family = [Sign(**drawn)]
        for turn in range(number * (_FAMILY - 1), (number + 1) * (_FAMILY - 1)):
            name = COMPONENTS[turn % len(COMPONENTS)]
            other = _VALUES[name][stable_seed("partner", attempt, turn) % len(_VALUES[name])]
            family.append(Sign(**{**drawn, name: other}))
        is_new = all(len(differing_components(a, b)) >= 2 for a in family for b in signs)
        is_whole = len(set(family)) == _FAMILY and all(sign.is_possible for sign in family)
        if is_new and is_whole:
            signs += family
    return tuple(signs[:num_glosses])


def joint_angles(handshape: str) -> Float[np.ndarray, "5 5"]:
    """Return the angles of a handshape, one row a chain: three flexions, spread, out of the palm.

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
    """Bend the hand; return points in the order of `skeleton.HAND_NAMES`, in palm coordinates.

    `angles` have a row a chain, as from `joint_angles`; `finger_scale` leaves the palm as it is.
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
