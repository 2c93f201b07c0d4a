"""Mirror images of clips, and the choice of the hand that signs.

Signers lead with either hand and the sign stays the same. A clip is mirrored by x -> 1 - x and by
swapping the signer's left and right. The *canonical* form of a clip shows the more active hand on
the right: a clip and its mirror image have the same one.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip

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


MIRRORED = "#mirrored"
"""What the id of a mirrored copy ends with."""

# A hand that is shown counts as if it had moved this far, in shoulder distances: in a sign held
# still, being seen says more than the detector's jitter does. Chosen, with the median over three
# frames, by how well it finds the known hand of made clips and keeps to one hand within a gloss.
STANDING_TRAVEL = 0.3
# Where no frame shows both shoulders: their usual distance in heights of the image.
USUAL_SHOULDERS = 0.25


def mirror_landmarks(landmarks: Float[np.ndarray, "T 54 2"]) -> Float[np.ndarray, "T 54 2"]:
    """Show one clip in a mirror; missing landmarks stay missing."""
    mirrored = landmarks[:, skeleton.MIRROR]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    return mirrored


def hand_activity(
    landmarks: Float[np.ndarray, "T 54 2"], aspect: float = 1.0
) -> tuple[float, float]:
    """How much the left and the right hand do in a clip.

    The share of frames that show the hand away from the image's edge, times its travel plus
    `STANDING_TRAVEL`. Travel is the path of the mean of its landmarks in shoulder distances, over
    these frames, each place replaced by the median of itself and its neighbours, coordinate by
    coordinate: a detection far off in a single frame adds nothing, and a gap is bridged by a
    straight line.

    Args:
        landmarks: coordinates in the image, NaN where missing.
        aspect: width of the image over its height.
    """
    landmarks, wide = landmarks.astype(np.float64), np.array([aspect, 1.0])
    centres = hand_centres(landmarks)
    shown = is_shown(centres)
    places = centres * wide / _shoulder_distance(landmarks * wide)
    left, right = (
        float(shown[:, side].mean()) * (_travel(places[shown[:, side], side]) + STANDING_TRAVEL)
        for side in (0, 1)
    )
    return left, right


def _shoulder_distance(square: Float[np.ndarray, "T 54 2"]) -> float:
    gap = square[:, skeleton.LEFT_SHOULDER] - square[:, skeleton.RIGHT_SHOULDER]
    distance = np.hypot(gap[:, 0], gap[:, 1])
    known = distance[distance > 0]  # NaN is not
    return float(np.median(known)) if len(known) else USUAL_SHOULDERS


def _travel(places: Float[np.ndarray, "T 2"]) -> float:
    """The length of the path through these places, each the median of three in a row."""
    smooth = np.median(np.stack([places[:-2], places[1:-1], places[2:]]), axis=0)
    steps = np.diff(smooth, axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def lead_with_right(
    landmarks: Float32[np.ndarray, "T 54 2"], aspect: float = 1.0
) -> Float32[np.ndarray, "T 54 2"]:
    """Mirror a clip whose left hand is the more active one; hand back any other as it is."""
    left, right = hand_activity(landmarks, aspect)
    return mirror_landmarks(landmarks) if left > right else landmarks


def mirrored_copy(clip: Clip) -> Clip:
    """The same sign by somebody who signs with the other hand."""
    landmarks = mirror_landmarks(clip.landmarks)
    return replace(clip, clip_id=clip.clip_id + MIRRORED, landmarks=landmarks)


def original_id(clip_id: str) -> str:
    """The id of the clip that a mirrored copy was made of; of any other clip its own."""
    return clip_id.removesuffix(MIRRORED)
