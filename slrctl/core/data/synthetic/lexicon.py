"""The invented signs of the demo set: five components each, in minimal pairs."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from functools import cache
from itertools import combinations

from slrctl.core.data.synthetic.hand import HANDSHAPES
from slrctl.core.seeding import stable_seed

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
