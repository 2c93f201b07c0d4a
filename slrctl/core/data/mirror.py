"""Mirror images of clips, and the choice of the dominant hand.

Signers lead with either hand and the sign stays the same. A clip is mirrored by x -> 1 - x and by
swapping the signer's left and right. The *canonical* form of a clip has the more active hand on the
right: a clip and its mirror image have the same one (`docs/mirror.md`).
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from slrctl.core import skeleton
from slrctl.core.clip import Clip

EDGE = 0.05
"""A hand whose centre is nearer to a side of the image, in its widths and heights, is at the edge.

Trackers guess at hands that hang half or wholly out of the image. The guesses jump about, and
whether there are any depends on the session, not on the sign.
"""
MIRRORED = "#mirrored"
"""End of the id of a mirrored copy."""

# A present hand counts as if it had moved this far, in shoulder distances: in a sign held still,
# presence says more than the detector's jitter. Chosen, with the median over three frames, by how
# well it finds the known hand of synthetic clips and keeps to one hand within a gloss.
STANDING_TRAVEL = 0.3
# For clips without a frame that has both shoulders: their usual distance in heights of the image.
USUAL_SHOULDERS = 0.25


def mirror_landmarks(
    landmarks: Float[np.ndarray, "*clips 54 2"],
) -> Float[np.ndarray, "*clips 54 2"]:
    """Mirror landmarks; missing ones stay missing."""
    mirrored = landmarks[..., skeleton.MIRROR, :]
    mirrored[..., 0] = 1 - mirrored[..., 0]
    return mirrored


def hand_centres(landmarks: Float[np.ndarray, "T 54 2"]) -> Float[np.ndarray, "T 2 2"]:
    """Average the detected landmarks of the left and of the right hand; NaN without any."""
    hands = landmarks[:, skeleton.NUM_BODY :].reshape(len(landmarks), 2, skeleton.NUM_HAND, 2)
    is_detected = np.logical_not(np.isnan(hands).any(-1))
    total = np.where(is_detected[..., None], hands, 0.0).sum(axis=2)
    count = is_detected.sum(axis=2)[..., None]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def is_inside(centres: Float[np.ndarray, "T 2 2"]) -> Bool[np.ndarray, "T 2"]:
    """Return True where a hand is present and not at the edge of the image."""
    return np.abs(centres - 0.5).max(axis=-1) < 0.5 - EDGE


def hand_activity(
    landmarks: Float[np.ndarray, "T 54 2"], aspect: float = 1.0
) -> tuple[float, float]:
    """Measure the activity of the left and of the right hand.

    It is the share of frames that have the hand inside the image, times its travel plus
    `STANDING_TRAVEL`. Travel is the path of the mean of its landmarks in shoulder distances, over
    these frames, each place replaced by the median of itself and its neighbours, coordinate by
    coordinate: a detection far off in a single frame adds nothing, and a gap is bridged by a
    straight line.

    Args:
        landmarks: coordinates in the image, NaN where missing.
        aspect: width of the image over its height.
    """
    landmarks, to_square = landmarks.astype(np.float64), np.array([aspect, 1.0])
    centres = hand_centres(landmarks)
    inside = is_inside(centres)
    places = centres * to_square / _shoulder_distance(landmarks * to_square)
    left, right = (
        float(inside[:, side].mean()) * (_travel(places[inside[:, side], side]) + STANDING_TRAVEL)
        for side in (0, 1)
    )
    return left, right


def _shoulder_distance(square: Float[np.ndarray, "T 54 2"]) -> float:
    gap = square[:, skeleton.LEFT_SHOULDER] - square[:, skeleton.RIGHT_SHOULDER]
    distance = np.hypot(gap[:, 0], gap[:, 1])
    known = distance[distance > 0]  # NaN is not
    return float(np.median(known)) if len(known) else USUAL_SHOULDERS


def _travel(places: Float[np.ndarray, "T 2"]) -> float:
    smooth = np.median(np.stack([places[:-2], places[1:-1], places[2:]]), axis=0)
    steps = np.diff(smooth, axis=0)
    return float(np.hypot(steps[:, 0], steps[:, 1]).sum())


def drop_edge_hands(clip: Clip) -> Clip:
    """Set a hand to missing in the frames that have it at the edge of the image."""
    is_kept = is_inside(hand_centres(clip.landmarks.astype(np.float64)))
    kept = clip.landmarks.copy()
    for side, hand in enumerate((skeleton.LEFT_HAND, skeleton.RIGHT_HAND)):
        kept[~is_kept[:, side], hand] = np.nan
    return replace(clip, landmarks=kept)


def lead_with_right(clip: Clip) -> Clip:
    """Mirror a clip whose left hand is the more active one; return any other as it is."""
    left, right = hand_activity(clip.landmarks, clip.aspect)
    return replace(clip, landmarks=mirror_landmarks(clip.landmarks)) if left > right else clip


def mirrored_copy(clip: Clip) -> Clip:
    """Mirror a clip and mark its id."""
    landmarks = mirror_landmarks(clip.landmarks)
    return replace(clip, clip_id=clip.clip_id + MIRRORED, landmarks=landmarks)


def original_id(clip_id: str) -> str:
    """Return the id of the clip behind a mirrored copy; of any other clip its own."""
    return clip_id.removesuffix(MIRRORED)
