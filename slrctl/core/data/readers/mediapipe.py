"""Clips from folders of MediaPipe Holistic vectors: `<gloss>/<clip>/<frame>.npy`, a file a frame.

A vector has 1662 values (pose 33 x 4, face 468 x 3, left and right hand 21 x 3 each) or 258 (the
same without the face); x = 0 and y = 0 together mean missing. A whole clip in one file,
`<gloss>/<clip>.npy` with a row a frame, is read too.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import neck_between_shoulders
from slrctl.core.data.readers.reading import (
    ClipProblem,
    Findings,
    Reading,
    check_landmarks,
    check_size,
    files_of,
    folders_of,
    holds_file,
    library_errors,
)
from slrctl.errors import count_of, quote, some_of
from slrctl.settings import DataSettings

NUM_POSE, NUM_FACE, NUM_HAND = 33, 468, 21
_POSE_IDS = {
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
_BODY_PLACES = [skeleton.BODY_NAMES.index(name) for name in _POSE_IDS]
# MediaPipe counts each finger from its base; we count from its tip, the thumb last.
_HAND_IDS = (0, 8, 7, 6, 5, 12, 11, 10, 9, 16, 15, 14, 13, 20, 19, 18, 17, 4, 3, 2, 1)

_SUFFIX = ".npy"
_POSE_VALUES, _HAND_VALUES = NUM_POSE * 4, NUM_HAND * 3
_WITHOUT_FACE = _POSE_VALUES + 2 * _HAND_VALUES
_WITH_FACE = _WITHOUT_FACE + NUM_FACE * 3
_LARGEST_BYTES = 1 << 28


def landmarks_from_holistic(
    pose: Float[np.ndarray, "T 33 2"],
    left_hand: Float[np.ndarray, "T 21 2"],
    right_hand: Float[np.ndarray, "T 21 2"],
) -> Float32[np.ndarray, "T 54 2"]:
    """Put Holistic's landmarks, NaN where missing, into our order; the neck is computed."""
    landmarks = np.full((len(pose), skeleton.NUM_LANDMARKS, 2), np.nan, np.float32)
    landmarks[:, _BODY_PLACES] = pose[:, list(_POSE_IDS.values())]
    landmarks[:, skeleton.LEFT_HAND] = left_hand[:, _HAND_IDS]
    landmarks[:, skeleton.RIGHT_HAND] = right_hand[:, _HAND_IDS]
    neck_between_shoulders(landmarks)
    return landmarks


def _read_array(path: Path) -> Float[np.ndarray, "T N"]:
    """Read the vectors of a file; one that holds a single vector is one row."""
    check_size(path, _LARGEST_BYTES)
    with library_errors("an array saved by numpy.save"), path.open("rb") as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind not in "fiu":
        raise ClipProblem(
            "no numbers", f"holds type {quote(str(array.dtype))}; expected float64 or float32"
        )
    size = array.shape[-1] if array.ndim else 1
    if array.ndim > 2 or size not in (_WITH_FACE, _WITHOUT_FACE):
        raise ClipProblem(
            "wrong size",
            f"found an array of shape {array.shape}, expected rows of {_WITH_FACE} values (pose "
            f"33 x 4, face 468 x 3, hands 21 x 3 each) or of {_WITHOUT_FACE} (without the face)",
        )
    return array.astype(np.float64).reshape(-1, size)


def _numbered_frames(folder: Path) -> list[Path]:
    """List the files of a clip in the order of their numbers, which have no gap."""
    frames = files_of(folder, _SUFFIX)
    if not frames:
        raise ClipProblem("no frame", "holds no frame; expected 0.npy, 1.npy, ...")
    strange = next((frame.name for frame in frames if not frame.stem.isdecimal()), None)
    if strange is not None:
        raise ClipProblem(
            "frame without a number",
            f"found the file {quote(strange)}, expected the frame's number as its name: 0.npy",
        )
    frames.sort(key=lambda frame: int(frame.stem))
    for before, after in pairwise(frames):
        if int(after.stem) != int(before.stem) + 1:
            raise ClipProblem(
                "gap between frames",
                f"found frame {quote(before.name)} followed by {quote(after.name)}, expected "
                "every number once; fetch what is missing, or number the frames anew",
            )
    return frames


def _read_frames(folder: Path) -> Float[np.ndarray, "T N"]:
    """Read the vectors of a folder, a file a frame."""
    vectors: list[Float[np.ndarray, "1 N"]] = []
    for path in _numbered_frames(folder):
        try:
            vector = _read_array(path)
            if len(vector) != 1:
                raise ClipProblem("wrong size", f"found {len(vector)} vectors, expected one")
            if vectors and vector.size != vectors[0].size:
                raise ClipProblem(
                    "mixed sizes",
                    f"found {vector.size} values, expected {vectors[0].size} as in the frames "
                    "before it",
                )
        except ClipProblem as problem:
            raise ClipProblem(problem.kind, f"frame {quote(path.name)}: {problem}") from problem
        vectors.append(vector)
    return np.concatenate(vectors)


def _landmarks(vectors: Float[np.ndarray, "T N"]) -> Float32[np.ndarray, "T 54 2"]:
    """Cut vectors into pose and hands, and check that they are finite and not all missing."""
    num_frames = len(vectors)
    pose = vectors[:, :_POSE_VALUES].reshape(num_frames, NUM_POSE, 4)
    hands = vectors[:, -2 * _HAND_VALUES :].reshape(num_frames, 2 * NUM_HAND, 3)
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite and are reported
        points = np.concatenate([pose[..., :2], hands[..., :2]], axis=1).astype(np.float32)
    if not np.isfinite(points).all():
        frame, point, axis = np.argwhere(~np.isfinite(points))[0].tolist()
        raise ClipProblem(
            "nan or inf",
            f"found {points[frame, point, axis]} in its frame {frame + 1}, "
            "expected a finite number, 0 if missing",
        )
    points[(points == 0).all(-1)] = np.nan
    landmarks = landmarks_from_holistic(*np.split(points, [NUM_POSE, NUM_POSE + NUM_HAND], axis=1))
    check_landmarks(landmarks, "0")
    return landmarks


def recognises(path: Path) -> bool:
    """True for a folder that holds folders of .npy files, or folders of folders of them."""
    if not path.is_dir():
        return False
    return any(
        holds_file(gloss, _SUFFIX) or any(holds_file(clip, _SUFFIX) for clip in folders_of(gloss))
        for gloss in folders_of(path)
    )


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip of the folder; glosses are names, so `classes` change nothing.

    Raises:
        DataError: a clip is not as it should be, or none can be read.
    """
    findings = Findings(path)
    clips: list[Clip] = []
    sizes: Counter[int] = Counter()
    aspect = 1.0 if settings.frame_size is None else settings.frame_size[0] / settings.frame_size[1]
    glosses = {gloss: [*folders_of(gloss), *files_of(gloss, _SUFFIX)] for gloss in folders_of(path)}
    sources = [source for found in glosses.values() for source in found]
    for index, source in enumerate(sources):
        clip_id = f"{source.parent.name}/{source.name.removesuffix(_SUFFIX)}"
        try:
            vectors = _read_array(source) if source.is_file() else _read_frames(source)
            landmarks = _landmarks(vectors)
        except ClipProblem as problem:
            findings.add(index, problem, where=f"clip {quote(clip_id)}")
            continue
        sizes[vectors.shape[1]] += 1
        clip = Clip(clip_id, source.parent.name, landmarks, aspect=aspect)
        clips.append(findings.trimmed(clip))
    notes, dropped = findings.settle(len(sources), skip=settings.skip_bad_clips)
    kinds = [f"{count_of(count, 'clip')} of {size} values" for size, count in sizes.most_common()]
    notes.append(f"MediaPipe Holistic vectors: {' and '.join(kinds)} a frame, zeros are missing")
    if settings.frame_size is None:
        notes.append(
            "size of the image unknown, taken as square; "
            "if you know it, say --set data.frame_size=[640,480]"
        )
    if empty := [gloss.name for gloss, found in glosses.items() if not found]:
        notes.append(f"warning: {count_of(len(empty), 'folder')} without clips: {some_of(empty)}")
    return Reading(clips, notes, dropped)
