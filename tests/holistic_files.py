"""Write small sets of MediaPipe Holistic landmarks, for the tests of the readers of them."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# MediaPipe's own lists, in its order, and what each of our landmarks is called there.
POSE_NAMES = [
    "NOSE", "LEFT_EYE_INNER", "LEFT_EYE", "LEFT_EYE_OUTER", "RIGHT_EYE_INNER", "RIGHT_EYE",
    "RIGHT_EYE_OUTER", "LEFT_EAR", "RIGHT_EAR", "MOUTH_LEFT", "MOUTH_RIGHT", "LEFT_SHOULDER",
    "RIGHT_SHOULDER", "LEFT_ELBOW", "RIGHT_ELBOW", "LEFT_WRIST", "RIGHT_WRIST", "LEFT_PINKY",
    "RIGHT_PINKY", "LEFT_INDEX", "RIGHT_INDEX", "LEFT_THUMB", "RIGHT_THUMB", "LEFT_HIP",
    "RIGHT_HIP", "LEFT_KNEE", "RIGHT_KNEE", "LEFT_ANKLE", "RIGHT_ANKLE", "LEFT_HEEL",
    "RIGHT_HEEL", "LEFT_FOOT_INDEX", "RIGHT_FOOT_INDEX",
]  # fmt: skip
HAND_NAMES = [
    "WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP",
    "INDEX_FINGER_MCP", "INDEX_FINGER_PIP", "INDEX_FINGER_DIP", "INDEX_FINGER_TIP",
    "MIDDLE_FINGER_MCP", "MIDDLE_FINGER_PIP", "MIDDLE_FINGER_DIP", "MIDDLE_FINGER_TIP",
    "RING_FINGER_MCP", "RING_FINGER_PIP", "RING_FINGER_DIP", "RING_FINGER_TIP",
    "PINKY_MCP", "PINKY_PIP", "PINKY_DIP", "PINKY_TIP",
]  # fmt: skip
OUR_BODY = {
    "nose": "NOSE", "rightEye": "RIGHT_EYE", "leftEye": "LEFT_EYE", "rightEar": "RIGHT_EAR",
    "leftEar": "LEFT_EAR", "rightShoulder": "RIGHT_SHOULDER", "leftShoulder": "LEFT_SHOULDER",
    "rightElbow": "RIGHT_ELBOW", "leftElbow": "LEFT_ELBOW", "rightWrist": "RIGHT_WRIST",
    "leftWrist": "LEFT_WRIST",
}  # fmt: skip
OUR_HAND = {
    "wrist": "WRIST", "indexTip": "INDEX_FINGER_TIP", "indexDIP": "INDEX_FINGER_DIP",
    "indexPIP": "INDEX_FINGER_PIP", "indexMCP": "INDEX_FINGER_MCP",
    "middleTip": "MIDDLE_FINGER_TIP", "middleDIP": "MIDDLE_FINGER_DIP",
    "middlePIP": "MIDDLE_FINGER_PIP", "middleMCP": "MIDDLE_FINGER_MCP",
    "ringTip": "RING_FINGER_TIP", "ringDIP": "RING_FINGER_DIP", "ringPIP": "RING_FINGER_PIP",
    "ringMCP": "RING_FINGER_MCP", "littleTip": "PINKY_TIP", "littleDIP": "PINKY_DIP",
    "littlePIP": "PINKY_PIP", "littleMCP": "PINKY_MCP", "thumbTip": "THUMB_TIP",
    "thumbIP": "THUMB_IP", "thumbMP": "THUMB_MCP", "thumbCMC": "THUMB_CMC",
}  # fmt: skip
_PARTS = {"pose": 33, "face": 468, "left_hand": 21, "right_hand": 21}

Holistic = dict[str, np.ndarray]


def holistic(num_frames: int = 4, seed: int = 0) -> Holistic:
    """Random x and y of every part, (T, points, 2); the left hand is missing in frame 1."""
    rng = np.random.default_rng(seed)
    parts = {name: rng.uniform(0.1, 0.9, (num_frames, n, 2)) for name, n in _PARTS.items()}
    parts["left_hand"][1] = np.nan
    return parts


def expected_landmarks(parts: Holistic) -> dict[str, np.ndarray]:
    """The (T, 2) track each of our landmarks should have, found by name."""
    tracks = {ours: parts["pose"][:, POSE_NAMES.index(name)] for ours, name in OUR_BODY.items()}
    tracks["neck"] = (tracks["leftShoulder"] + tracks["rightShoulder"]) / 2
    for side in ("left", "right"):
        for ours, name in OUR_HAND.items():
            tracks[f"{ours}_{side}"] = parts[f"{side}_hand"][:, HAND_NAMES.index(name)]
    return tracks


def vectors(parts: Holistic, *, with_face: bool = True) -> np.ndarray:
    """The (T, 1662 or 258) vectors that keypoint tutorials save: x y z visibility, x y z."""
    num_frames = len(parts["pose"])
    columns = []
    for name, points in parts.items():
        extra = np.full((*points.shape[:2], 2 if name == "pose" else 1), 0.7)
        values = np.concatenate([points, extra], axis=-1)
        values[np.isnan(points).any(-1)] = 0
        if with_face or name != "face":
            columns.append(values.reshape(num_frames, -1))
    return np.concatenate(columns, axis=1)


def write_frames(folder: Path, frames: np.ndarray, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number, vector in enumerate(frames, first):
        np.save(folder / f"{number}.npy", vector)


def long_columns(parts: Holistic, first: int = 20) -> dict[str, list]:
    """The rows of a long Parquet file: every landmark of every frame, null where missing."""
    rows = [
        (frame + first, f"{frame + first}-{kind}-{index}", kind, index, *points[frame, index])
        for frame in range(len(parts["pose"]))
        for kind, points in parts.items()
        for index in range(points.shape[1])
    ]
    columns: dict[str, list] = {
        name: [row[place] for row in rows]
        for place, name in enumerate(("frame", "row_id", "type", "landmark_index", "x", "y"))
    }
    for axis in ("x", "y"):
        columns[axis] = [None if np.isnan(value) else float(value) for value in columns[axis]]
    return columns | {"z": [0.0] * len(rows)}


LONG_SCHEMA = pa.schema(
    {
        "frame": pa.int16(), "row_id": pa.string(), "type": pa.string(),
        "landmark_index": pa.int16(), "x": pa.float64(), "y": pa.float64(), "z": pa.float64(),
    }
)  # fmt: skip


def write_long(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns), schema=LONG_SCHEMA), path)


def write_index(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write train.csv."""
    path = folder / "train.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "participant_id", "sequence_id", "sign"])
        writer.writeheader()
        writer.writerows(rows)
    return path
