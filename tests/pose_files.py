"""Write small `.pose` files, for the tests of their reader."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from holistic_files import HAND_NAMES, POSE_NAMES
from pose_format import Pose
from pose_format.numpy import NumPyPoseBody
from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions

HOLISTIC = {
    "POSE_LANDMARKS": POSE_NAMES,
    "FACE_LANDMARKS": [str(number) for number in range(468)],
    "LEFT_HAND_LANDMARKS": HAND_NAMES,
    "RIGHT_HAND_LANDMARKS": HAND_NAMES,
}


def random_points(num_frames: int, num_points: int, seed: int = 0) -> np.ndarray:
    """Pixels of an image of 640 x 480, (T, people, points, 2)."""
    rng = np.random.default_rng(seed)
    return rng.uniform([10, 10], [630, 470], (num_frames, 1, num_points, 2)).astype(np.float32)


def write_pose(
    path: Path,
    components: Mapping[str, Sequence[str]],
    xy: np.ndarray,
    confidence: np.ndarray | None = None,
    *,
    axes: str = "XYZC",
    size: tuple[int, int] = (640, 480),
    fps: float = 25,
) -> None:
    """Write the points of all components behind one another, (T, people, points, 2)."""
    header = PoseHeader(
        0.2,
        PoseHeaderDimensions(*size),
        [
            PoseHeaderComponent(name, list(names), [], [], axes)
            for name, names in components.items()
        ],
    )
    data = np.zeros((*xy.shape[:3], len(axes) - 1), np.float32)
    data[..., axes.index("X")], data[..., axes.index("Y")] = xy[..., 0], xy[..., 1]
    confidence = np.ones(xy.shape[:3], np.float32) if confidence is None else confidence
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        Pose(header, NumPyPoseBody(fps, data, confidence)).write(file)
