"""The colours of attention: viridis, which is even in lightness and safe for the colour-blind."""

import numpy as np
from jaxtyping import Float, UInt8

# Nine of viridis' colours (van der Walt and Smith, 2015, CC0), evenly spaced, as red, green, blue.
_STOPS = np.array(
    [
        (68, 1, 84),
        (71, 45, 123),
        (59, 82, 139),
        (44, 114, 142),
        (33, 145, 140),
        (40, 174, 128),
        (94, 201, 98),
        (173, 220, 48),
        (253, 231, 37),
    ],
    np.float64,
)
MISSING = (150, 150, 150)
"""Frames in which a hand was not detected: a grey that viridis does not have."""


def heat_colours(shares: Float[np.ndarray, "*axes"]) -> UInt8[np.ndarray, "*axes 3"]:
    """Red, green and blue for numbers from 0 to 1."""
    place = np.clip(shares, 0.0, 1.0) * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_STOPS) - 2)
    part = (place - below)[..., None]
    return np.rint((1 - part) * _STOPS[below] + part * _STOPS[below + 1]).astype(np.uint8)
