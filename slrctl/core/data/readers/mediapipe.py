"""Clips from folders of MediaPipe Holistic vectors: `<gloss>/<clip>/<frame>.npy`, a file a frame.

A vector has 1662 values (pose 33 x 4, face 468 x 3, left and right hand 21 x 3 each) or 258 (the
same without the face); x = 0 and y = 0 together mean missing. A whole clip in one file,
`<gloss>/<clip>.npy` with a row a frame, is read too.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import neck_between_shoulders
from slrctl.core.data.readers.clip_folders import files_of, folders_of, frames_of, holds_file
from slrctl.core.data.readers.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    read_limited,
    some_of,
)
from slrctl.settings import DataSettings

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


_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d+, )*(?:\d+,?)?)\),? ?\}\s*"
)
_NUMBER_TYPE = re.compile(r"[<>|=][fiu][1248]")


def read_npy(path: Path, *, largest_bytes: int) -> Float[np.ndarray, "..."]:
    """Read an array of real numbers.

    Args:
        path: a file that `numpy.save` wrote.
        largest_bytes: what is refused beyond this size, before it is read.

    Raises:
        ClipProblem: the file is too large, cut off, or holds anything but numbers.
    """
    content = read_limited(path, largest_bytes)
    if not content.startswith(_MAGIC) or len(content) < 12:
        found = f"starts with {quote(content[:8])}" if content else "is empty"
        raise ClipProblem("no .npy file", f"{found}, expected an array saved by numpy.save")
    # Version 1 has two bytes for the length of the header, later ones four.
    start = 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    header = _HEADER.fullmatch(content[start : start + min(length, _LONGEST_HEADER)])
    if header is None:
        found = quote(content[start : start + 40])
        raise ClipProblem("damaged .npy header", f"has the header {found}, expected numpy.save's")
    kind = header[1].decode("ascii", "replace")
    if not _NUMBER_TYPE.fullmatch(kind) or kind[1:] == "f1":
        story = "Python objects, which are never loaded" if "O" in kind else f"type {quote(kind)}"
        raise ClipProblem("no numbers", f"holds {story}; expected float64 or float32")
    shape = tuple(int(size[:18]) for size in header[3].split(b",") if size.strip())
    if len(shape) > 2:
        raise ClipProblem("wrong shape", f"has {len(shape)} axes, expected one vector a frame")
    wanted = math.prod(shape) * int(kind[2])
    found = len(content) - start - length
    if found != wanted:
        state = "cut off" if found < wanted else "damaged"
        raise ClipProblem(
            f"{state} file",
            f"is {state}: found {found:,} bytes of numbers, expected {wanted:,} for its shape "
            f"{shape}; fetch or write it again",
        )
    numbers = np.frombuffer(content, np.dtype(kind), math.prod(shape), start + length)
    order = "F" if header[2] == b"True" else "C"
    return numbers.reshape(shape, order=order).astype(np.float64)


_SUFFIX = ".npy"
_POSE_VALUES, _HAND_VALUES = NUM_POSE * 4, NUM_HAND * 3
_WITHOUT_FACE = _POSE_VALUES + 2 * _HAND_VALUES
_WITH_FACE = _WITHOUT_FACE + NUM_FACE * 3
_LARGEST_FRAME_BYTES = 1 << 16
_LARGEST_CLIP_BYTES = 1 << 28


def recognises(path: Path) -> bool:
    """Whether a folder holds folders of .npy files, or folders of folders of them."""
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
    bad = BadClips(path)
    clips: list[Clip] = []
    sizes: Counter[int] = Counter()
    aspect = 1.0 if settings.frame_size is None else settings.frame_size[0] / settings.frame_size[1]
    glosses = {gloss: [*folders_of(gloss), *files_of(gloss, _SUFFIX)] for gloss in folders_of(path)}
    sources = [source for found in glosses.values() for source in found]
    for index, source in enumerate(sources):
        clip_id = f"{source.parent.name}/{source.name.removesuffix(_SUFFIX)}"
        try:
            vectors = _read_vectors(source)
            landmarks = _landmarks(vectors)
        except ClipProblem as problem:
            bad.add(index, problem.kind, str(problem), where=f"clip {quote(clip_id)}")
            continue
        sizes[vectors.shape[1]] += 1
        clips.append(Clip(clip_id, source.parent.name, landmarks, aspect=aspect))
    notes, dropped = bad.settle(len(sources), skip=settings.skip_bad_clips)
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


def _read_vectors(source: Path) -> Float[np.ndarray, "T N"]:
    """The vectors of a clip, a row a frame.

    Raises:
        ClipProblem: a file is not as it should be, or the frames do not follow one another.
    """
    if source.is_file():
        rows = read_npy(source, largest_bytes=_LARGEST_CLIP_BYTES)
        _check_size(rows.shape[-1] if rows.ndim else 1)
        return rows.reshape(-1, rows.shape[-1])
    vectors: list[Float[np.ndarray, " N"]] = []
    for frame in frames_of(source, _SUFFIX):
        try:
            vector = read_npy(frame, largest_bytes=_LARGEST_FRAME_BYTES).ravel()
            _check_size(vector.size)
        except ClipProblem as problem:
            raise ClipProblem(problem.kind, f"frame {quote(frame.name)}: {problem}") from problem
        if vectors and vector.size != vectors[0].size:
            raise ClipProblem(
                "mixed sizes",
                f"frame {quote(frame.name)}: found {vector.size} values, expected "
                f"{vectors[0].size} as in the frames before it",
            )
        vectors.append(vector)
    return np.stack(vectors)


def _check_size(size: int) -> None:
    if size not in (_WITH_FACE, _WITHOUT_FACE):
        raise ClipProblem(
            "wrong size",
            f"found {count_of(size, 'value')}, expected {_WITH_FACE} (pose 33 x 4, face 468 x 3, "
            f"hands 21 x 3 each) or {_WITHOUT_FACE} (without the face)",
        )


def _landmarks(vectors: Float[np.ndarray, "T N"]) -> Float32[np.ndarray, "T 54 2"]:
    """Cut vectors into pose and hands and put those into our order.

    Raises:
        ClipProblem: a coordinate is not finite, or nothing was detected in the whole clip.
    """
    num_frames = len(vectors)
    pose = vectors[:, :_POSE_VALUES].reshape(num_frames, NUM_POSE, 4)
    hands = vectors[:, -2 * _HAND_VALUES :].reshape(num_frames, 2 * NUM_HAND, 3)
    with np.errstate(over="ignore"):  # found and reported as infinite
        points = np.concatenate([pose[..., :2], hands[..., :2]], axis=1).astype(np.float32)
    is_bad = ~np.isfinite(points)
    if is_bad.any():
        frame, point, axis = np.argwhere(is_bad)[0].tolist()
        raise ClipProblem(
            "nan or inf",
            f"found {points[frame, point, axis]} as {'xy'[axis]} of {_point_name(point)} in its "
            f"frame {frame + 1}, expected a finite number, 0 if missing",
        )
    points[(points == 0).all(-1)] = np.nan
    landmarks = landmarks_from_holistic(*np.split(points, [NUM_POSE, NUM_POSE + NUM_HAND], axis=1))
    if np.isnan(landmarks).all():
        raise ClipProblem(
            "no usable frame",
            f"none of its {count_of(num_frames, 'frame')} has a landmark (all are 0); "
            "expected at least one",
        )
    return landmarks


def _point_name(point: int) -> str:
    if point < NUM_POSE:
        return f"pose landmark {point}"
    side, landmark = divmod(point - NUM_POSE, NUM_HAND)
    return f"{('left', 'right')[side]} hand landmark {landmark}"
