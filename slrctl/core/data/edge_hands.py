"""Tell hands that sign from hands that a tracker guesses at where they have left the image."""

import numpy as np
from jaxtyping import Bool, Float, Float32

from slrctl.core import skeleton

EDGE = 0.05
"""A hand whose centre is nearer than this to a side of the image, in its widths and heights, rests.

Trackers guess at hands that hang half or wholly out of the image. The guesses jump about, and
whether there are any depends on the session, not on the sign.
"""


def hand_centres(landmarks: Float[np.ndarray, "T 54 2"]) -> Float[np.ndarray, "T 2 2"]:
    """The mean of the detected landmarks of the left and of the right hand; NaN without any."""
    hands = landmarks[:, skeleton.NUM_BODY :].reshape(len(landmarks), 2, skeleton.NUM_HAND, 2)
    is_seen = np.logical_not(np.isnan(hands).any(-1))
    total = np.where(is_seen[..., None], hands, 0.0).sum(axis=2)
    num_seen = is_seen.sum(axis=2)[..., None]
    return np.where(num_seen > 0, total / np.maximum(num_seen, 1), np.nan)


def is_shown(centres: Float[np.ndarray, "T 2 2"]) -> Bool[np.ndarray, "T 2"]:
    """True where a hand is there and not at the edge of the image."""
    return np.abs(centres - 0.5).max(axis=-1) < 0.5 - EDGE


def drop_edge_hands(landmarks: Float32[np.ndarray, "T 54 2"]) -> Float32[np.ndarray, "T 54 2"]:
    """Count a hand as missing in the frames that have it at the edge of the image."""
    is_kept = is_shown(hand_centres(landmarks.astype(np.float64)))
    kept = landmarks.copy()
    for side, hand in enumerate((skeleton.LEFT_HAND, skeleton.RIGHT_HAND)):
        kept[~is_kept[:, side], hand] = np.nan
    return kept
