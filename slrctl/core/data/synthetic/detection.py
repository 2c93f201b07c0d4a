"""What a landmark detector makes of a filmed body: jitter, gaps, and hands it does not see."""

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.data.synthetic.draws import bell
from slrctl.core.seeding import counter_uniform

# A hand hanging or on its way up is not detected; no symmetric clock stops exactly here.
SEEN_FROM = 0.4
LONGEST_GAP = 6


def detect(
    points: Float[np.ndarray, "N 54 2"],
    raised: Float[np.ndarray, "N 2"],
    frame: Int64[np.ndarray, " N"],
    keys: UInt64[np.ndarray, " N"],
    *,
    jitter: Float[np.ndarray, " 2"],
    hand_dropout: float,
    landmark_dropout: float,
) -> Float[np.ndarray, "N 54 2"]:
    """Jitter the landmarks and set the missing ones to NaN.

    Args:
        points: true positions, frames of many clips one after the other.
        raised: how far the left and the right hand are up.
        frame: number of each frame in its clip.
        keys: one random key a frame.
        jitter: standard deviation in x and in y.
        hand_dropout: probability that a hand is lost from this frame on, for up to LONGEST_GAP.
        landmark_dropout: probability that a landmark of the body is lost in a frame.
    """
    noise = bell(keys, 2 * skeleton.NUM_LANDMARKS).reshape(points.shape)
    share = counter_uniform(keys ^ np.uint64(1), 4 + skeleton.NUM_BODY)
    seen = points + jitter * noise
    is_outside = np.any((points < 0) | (points > 1), axis=-1)

    is_lost = is_outside.copy()
    is_lost[:, skeleton.BODY] |= share[:, 4:] < landmark_dropout
    for side, hand in enumerate((skeleton.LEFT_HAND, skeleton.RIGHT_HAND)):
        # Detectors find a hand as a whole: all of its points, or none.
        is_gap = _gaps(share[:, side] < hand_dropout, share[:, 2 + side], frame)
        is_hidden = (raised[:, side] < SEEN_FROM) | is_gap | is_outside[:, hand.start]
        is_lost[:, hand] = is_hidden[:, None]
    seen[is_lost] = np.nan
    return seen


def _gaps(
    starts: Bool[np.ndarray, " N"],
    share: Float[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> Bool[np.ndarray, " N"]:
    """Lengthen each start to a gap of 1 to LONGEST_GAP frames that stays in its clip."""
    length = np.where(starts, 1 + np.floor(share * LONGEST_GAP), 0)
    is_gap = np.zeros_like(starts)
    for age in range(LONGEST_GAP):
        is_gap |= (np.roll(length, age) > age) & (frame >= age)
    return is_gap
