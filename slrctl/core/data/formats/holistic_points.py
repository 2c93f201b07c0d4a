"""Where our landmarks lie among those of MediaPipe Holistic: 33 of the pose, 21 of each hand.

The numbers are those of MediaPipe's `PoseLandmark` and `HandLandmark`; left and right are the
signer's, as ours are.
"""

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.data.formats.cleaning import neck_between_shoulders

NUM_POSE, NUM_FACE, NUM_HAND = 33, 468, 21
POSE_IDS = {
    "nose": 0,
    "rightEye": 5,
    "leftEye": 2,
    "rightEar": 8,
    "leftEar": 7,
    "rightShoulder": 12,
    "leftShoulder": 11,
    "rightElbow": 14,
    "leftElbow": 13,
    "rightWrist": 16,
    "leftWrist": 15,
}
# MediaPipe counts each finger from its base; we count from its tip, the thumb last.
HAND_IDS = (0, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17, 4, 3, 2, 1)

_BODY_PLACES = [skeleton.BODY_NAMES.index(name) for name in POSE_IDS]


def landmarks_from_holistic(
    pose: Float[np.ndarray, "T 33 2"],
    left_hand: Float[np.ndarray, "T 21 2"],
    right_hand: Float[np.ndarray, "T 21 2"],
) -> Float32[np.ndarray, "T 54 2"]:
    """Put Holistic's landmarks, NaN where missing, into our order; the neck is computed."""
    landmarks = np.full((len(pose), skeleton.NUM_LANDMARKS, 2), np.nan, np.float32)
    landmarks[:, _BODY_PLACES] = pose[:, list(POSE_IDS.values())]
    landmarks[:, skeleton.LEFT_HAND] = left_hand[:, HAND_IDS]
    landmarks[:, skeleton.RIGHT_HAND] = right_hand[:, HAND_IDS]
    neck_between_shoulders(landmarks)
    return landmarks
