"""Detect the landmarks of one video with MediaPipe Holistic.

The package is an extra and is imported when it is first needed, in a process of its own: it and
OpenCV write to the terminal as they please, and a broken video may take their process down.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from slrctl.core.data.formats.holistic_points import NUM_HAND, NUM_POSE, landmarks_from_holistic
from slrctl.core.data.formats.reading import count_of
from slrctl.errors import SlrctlError

# What parts of an extraction depend on besides the video: another version may see other things.
DETECTOR = "mediapipe 0.10.21 holistic, model complexity 1"
# The middle one of three models is the only one of the pose that the package carries.
_MODEL_COMPLEXITY = 1
# Less of the frames that a file announces, and it is cut off; some announce a few too many.
_LEAST_SHARE = 0.9
_FASTEST_FPS = 1000.0

_INSTALL = (
    "pip install 'slrctl[video]' into an environment of its own, with Python 3.11 or 3.12: "
    "mediapipe 0.10.21 needs numpy below 2 (docs/video.md)"
)


class Detected(NamedTuple):
    """What was seen in a video; NaN where a landmark was not detected."""

    landmarks: Float32[np.ndarray, "T 54 2"]
    fps: float | None
    aspect: float


class BadVideo(NamedTuple):
    """Why a video gives no clip: a few words for the tally, and the whole story."""

    kind: str
    message: str


class Unusable(NamedTuple):
    """Why no video at all can be read on this machine."""

    message: str


def require_video_extra() -> None:
    """Make sure that the packages are there, without importing them.

    Raises:
        SlrctlError: they are not.
    """
    for package in ("mediapipe", "cv2"):
        if find_spec(package) is None:
            raise SlrctlError(f"reading videos needs {package}, which is not installed; {_INSTALL}")


def detect(path: Path) -> Detected | BadVideo | Unusable:
    """Detect the landmarks in every frame of a video."""
    if not path.is_file():
        return BadVideo("not there", "is not there, expected a video; check the path")
    try:
        cv2, holistic = import_module("cv2"), import_module("mediapipe").solutions.holistic
    except ImportError as error:
        return Unusable(
            f"MediaPipe cannot be loaded ({error}); on Debian and Ubuntu: apt-get install libgl1 "
            f"libegl1 libgles2; else: {_INSTALL}"
        )
    except AttributeError:
        return Unusable(f"this MediaPipe has no Holistic solution with its models; {_INSTALL}")
    capture = cv2.VideoCapture(str(path))
    try:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # telephones store upright pictures turned
        return _detect_frames(cv2, holistic, capture)
    finally:
        capture.release()


def _detect_frames(cv2: Any, holistic: Any, capture: Any) -> Detected | BadVideo:
    if not capture.isOpened():
        return BadVideo("cannot be opened", "is no video we can open; fetch or convert it again")
    announced = int(max(capture.get(cv2.CAP_PROP_FRAME_COUNT), 0))
    frames: list[Float32[np.ndarray, "1 54 2"]] = []
    aspect = 1.0
    # A detector of its own for each video: it follows what it saw in the frames before.
    with holistic.Holistic(model_complexity=_MODEL_COMPLEXITY) as detector:
        while True:
            is_read, picture = capture.read()
            if not is_read:
                break
            height, width = picture.shape[:2]
            aspect = width / height * _pixel_aspect(cv2, capture)
            frames.append(_landmarks(detector.process(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))))
    if not frames:
        return BadVideo("no frames", "has no frame that can be decoded; fetch or convert it again")
    if len(frames) < _LEAST_SHARE * announced:
        return BadVideo(
            "truncated",
            f"only {len(frames)} of its {count_of(announced, 'frame')} can be decoded; fetch it "
            "again",
        )
    landmarks = np.concatenate(frames)
    if np.isnan(landmarks).all():
        return BadVideo(
            "nobody seen",
            f"nobody was detected in its {count_of(len(frames), 'frame')}; the signer's head and "
            "shoulders must be seen",
        )
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return Detected(landmarks, fps if 0 < fps <= _FASTEST_FPS else None, aspect)


def _pixel_aspect(cv2: Any, capture: Any) -> float:
    """Width of a pixel over its height; 1 where the video does not say."""
    width, height = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    return width / height if width > 0 and height > 0 else 1.0


def _landmarks(seen: Any) -> Float32[np.ndarray, "1 54 2"]:
    return landmarks_from_holistic(
        _points(seen.pose_landmarks, NUM_POSE),
        _points(seen.left_hand_landmarks, NUM_HAND),
        _points(seen.right_hand_landmarks, NUM_HAND),
    )


def _points(found: Any, count: int) -> Float32[np.ndarray, "1 V 2"]:
    if found is None:
        return np.full((1, count, 2), np.nan, np.float32)
    return np.array([[(point.x, point.y) for point in found.landmark]], np.float32)
