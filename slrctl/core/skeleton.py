"""The 54 landmarks of a clip: their names, order, streams and mirror image.

Left and right are the signer's own. Every array of landmarks in the project has this order.
"""

import re
from itertools import pairwise

import numpy as np

BODY_NAMES = (
    "nose",
    "neck",
    "rightEye",
    "leftEye",
    "rightEar",
    "leftEar",
    "rightShoulder",
    "leftShoulder",
    "rightElbow",
    "leftElbow",
    "rightWrist",
    "leftWrist",
)
HAND_NAMES = (
    "wrist",
    *(f"{finger}{joint}" for finger in ("index", "middle", "ring", "little")
      for joint in ("Tip", "DIP", "PIP", "MCP")),
    "thumbTip",
    "thumbIP",
    "thumbMP",
    "thumbCMC",
)  # fmt: skip

NUM_BODY = len(BODY_NAMES)
NUM_HAND = len(HAND_NAMES)
NUM_LANDMARKS = NUM_BODY + 2 * NUM_HAND

LANDMARK_NAMES = (
    *BODY_NAMES,
    *(f"{name}_left" for name in HAND_NAMES),
    *(f"{name}_right" for name in HAND_NAMES),
)

BODY = slice(0, NUM_BODY)
LEFT_HAND = slice(NUM_BODY, NUM_BODY + NUM_HAND)
RIGHT_HAND = slice(NUM_BODY + NUM_HAND, NUM_LANDMARKS)

# Features a frame: x and y of every landmark.
HAND_WIDTH = 2 * NUM_HAND
BODY_WIDTH = 2 * NUM_BODY

NOSE, NECK = BODY_NAMES.index("nose"), BODY_NAMES.index("neck")
RIGHT_EYE, LEFT_EYE = BODY_NAMES.index("rightEye"), BODY_NAMES.index("leftEye")
RIGHT_SHOULDER, LEFT_SHOULDER = BODY_NAMES.index("rightShoulder"), BODY_NAMES.index("leftShoulder")
RIGHT_ELBOW, LEFT_ELBOW = BODY_NAMES.index("rightElbow"), BODY_NAMES.index("leftElbow")
RIGHT_WRIST, LEFT_WRIST = BODY_NAMES.index("rightWrist"), BODY_NAMES.index("leftWrist")

_BODY_CHAINS = (
    ("rightEar", "rightEye", "nose", "leftEye", "leftEar"),
    ("nose", "neck"),
    ("neck", "rightShoulder", "rightElbow", "rightWrist"),
    ("neck", "leftShoulder", "leftElbow", "leftWrist"),
)
_HAND_CHAINS = (
    ("wrist", "thumbCMC", "thumbMP", "thumbIP", "thumbTip"),
    ("wrist", "indexMCP", "indexPIP", "indexDIP", "indexTip"),
    ("middleMCP", "middlePIP", "middleDIP", "middleTip"),
    ("ringMCP", "ringPIP", "ringDIP", "ringTip"),
    ("wrist", "littleMCP", "littlePIP", "littleDIP", "littleTip"),
    ("indexMCP", "middleMCP", "ringMCP", "littleMCP"),  # across the palm
)


def _edges(chains: tuple[tuple[str, ...], ...], suffix: str = "") -> tuple[tuple[int, int], ...]:
    return tuple(
        (LANDMARK_NAMES.index(first + suffix), LANDMARK_NAMES.index(second + suffix))
        for chain in chains
        for first, second in pairwise(chain)
    )


# Pairs of landmarks joined by a line in pictures.
BODY_EDGES = _edges(_BODY_CHAINS)
LEFT_HAND_EDGES = _edges(_HAND_CHAINS, "_left")
RIGHT_HAND_EDGES = _edges(_HAND_CHAINS, "_right")


_OTHER_SIDE = {"left": "right", "right": "left"}


def _mirrored(name: str) -> str:
    return re.sub("left|right", lambda side: _OTHER_SIDE[side[0]], name)


# `landmarks[..., MIRROR, :]` swaps the signer's left and right; x is flipped beside it.
MIRROR = np.array([LANDMARK_NAMES.index(_mirrored(name)) for name in LANDMARK_NAMES])
