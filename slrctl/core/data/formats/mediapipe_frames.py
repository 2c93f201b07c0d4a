"""Clips from folders of MediaPipe Holistic vectors: `<gloss>/<clip>/<frame>.npy`, a file a frame.

A vector has 1662 values (pose 33 x 4, face 468 x 3, left and right hand 21 x 3 each) or 258 (the
same without the face); x = 0 and y = 0 together mean missing. A whole clip in one file,
`<gloss>/<clip>.npy` with a row a frame, is read too.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core.clip import Clip
from slrctl.core.data.formats.clip_folders import files_of, folders_of, frames_of, holds_file
from slrctl.core.data.formats.holistic_points import (
    NUM_FACE,
    NUM_HAND,
    NUM_POSE,
    landmarks_from_holistic,
)
from slrctl.core.data.formats.npy_array import read_npy
from slrctl.core.data.formats.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    some_of,
)
from slrctl.settings import DataSettings

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
