"""Clips from `.pose` files, as sign language processing tools exchange them.

A folder `<gloss>/<clip>.pose`, a flat folder of files, or one file. In a flat folder `labels.csv`
(columns path, gloss and, where known, signer, session, split) says what each file shows; without
it, and for a single file, the gloss is the name of the file up to a number at its end: `book_2`
and `book-10` show book.
"""

import csv
import math
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import neck_between_shoulders
from slrctl.core.data.readers.clip_folders import file_inside, files_of, folders_of, holds_file
from slrctl.core.data.readers.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    read_limited,
    some_of,
)
from slrctl.errors import DataError, SlrctlError
from slrctl.settings import DataSettings

Source = tuple[str, tuple[str, ...]]
Sources = dict[str, tuple[Source, ...]]

_FINGERS = ("index", "middle", "ring", "little")


def _by_hand(wrist: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Our hand landmarks with the names a hand has that counts thumb first, from base to tip."""
    yield "wrist", wrist
    joints = [f"thumb{joint}" for joint in ("CMC", "MP", "IP", "Tip")]
    joints += [f"{finger}{joint}" for finger in _FINGERS for joint in ("MCP", "PIP", "DIP", "Tip")]
    yield from zip(joints, names, strict=True)


def _holistic() -> Sources:
    pose, face = "POSE_LANDMARKS", "FACE_LANDMARKS"
    # Points of the face mesh that lie nearest to those of the pose, over eye distance: nose 0.06
    # (mesh 1, the other candidate, 0.11), eye corners 0.06, ears 0.17. Measured on two portraits
    # and their mirror images with mediapipe 0.10.21. Corners stay where they are in a blink.
    sources: Sources = {
        "nose": ((pose, ("NOSE",)), (face, ("4",)), (face, ("1",))),
        "rightEye": ((pose, ("RIGHT_EYE",)), (face, ("33", "133"))),
        "leftEye": ((pose, ("LEFT_EYE",)), (face, ("362", "263"))),
        "rightEar": ((pose, ("RIGHT_EAR",)), (face, ("234",))),
        "leftEar": ((pose, ("LEFT_EAR",)), (face, ("454",))),
    }
    for side in ("right", "left"):
        for joint in ("Shoulder", "Elbow", "Wrist"):
            sources[f"{side}{joint}"] = ((pose, (f"{side}_{joint}".upper(),)),)
        fingers = ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
        names = [f"THUMB_{joint}" for joint in ("CMC", "MCP", "IP", "TIP")]
        names += [
            f"{finger}_{joint}" for finger in fingers for joint in ("MCP", "PIP", "DIP", "TIP")
        ]
        for ours, name in _by_hand("WRIST", names):
            sources[f"{ours}_{side}"] = ((f"{side.upper()}_HAND_LANDMARKS", (name,)),)
    return sources


def _openpose_body(component: str) -> Sources:
    sources: Sources = {"nose": ((component, ("Nose",)),)}
    for side in ("right", "left"):
        for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist"):
            sources[f"{side}{joint}"] = ((component, (f"{side[0].upper()}{joint}",)),)
    return sources


def _openpose() -> Sources:
    body = "pose_keypoints_2d"
    sources = _openpose_body(body) | {"neck": ((body, ("Neck",)),)}
    # pose-format calls the four points of a finger, from its base, after other bones than we do.
    names = ["T_STT", "T_BCMC", "T_MCP", "T_IP"]
    names += [f"{finger}_{joint}" for finger in "IMRP" for joint in ("CMC", "MCP", "PIP", "DIP")]
    for side in ("right", "left"):
        for ours, name in _by_hand("BASE", names):
            sources[f"{ours}_{side}"] = ((f"hand_{side}_keypoints_2d", (name,)),)
    return sources


def _openpose_135() -> Sources:
    body = "BODY_135"
    sources = _openpose_body(body)
    for side in ("right", "left"):
        letter = side[0].upper()
        names = [f"{letter}Thumb{j}" for j in ("1CMC", "2Knuckles", "3IP", "4FingerTip")]
        names += [
            f"{letter}{finger}{joint}"
            for finger in ("Index", "Middle", "Ring", "Pinky")
            for joint in ("1Knuckles", "2PIP", "3DIP", "4FingerTip")
        ]
        for ours, name in _by_hand(f"{letter}Wrist", names):
            sources[f"{ours}_{side}"] = ((body, (name,)),)
    return sources


LAYOUTS = {
    "MediaPipe Holistic": _holistic(),
    "OpenPose": _openpose(),
    "OpenPose (135 points)": _openpose_135(),
}


def find_points(points: Collection[tuple[str, str]]) -> tuple[str, dict[str, Source]] | None:
    """The layout a file has, and the source of each landmark that it holds.

    Args:
        points: the component and name of every point of the file.

    Returns:
        None where no layout knows more than the odd point.
    """
    found = {
        layout: {
            name: source
            for name, sources in landmarks.items()
            for source in [next((s for s in sources if _is_there(s, points)), None)]
            if source is not None
        }
        for layout, landmarks in LAYOUTS.items()
    }
    best = max(found, key=lambda layout: len(found[layout]))
    return (best, found[best]) if len(found[best]) >= skeleton.NUM_HAND else None


def _is_there(source: Source, points: Collection[tuple[str, str]]) -> bool:
    component, names = source
    return all((component, name) in points for name in names)


_LARGEST_BYTES = 1 << 30
_MOST_VALUES_V0 = 1 << 25
# What pose-format and numpy raise on a damaged file.
_DAMAGE = (ValueError, TypeError, IndexError, OverflowError, struct.error, NotImplementedError)


class Place(NamedTuple):
    """A point's place among all points, and those of its x and y among its coordinates."""

    point: int
    x: int
    y: int


class PoseClip(NamedTuple):
    """Landmarks divided by the size of the image, and what the file says beside them."""

    landmarks: Float32[np.ndarray, "T 54 2"]
    fps: float | None
    aspect: float
    layout: str
    num_people: int
    absent: list[str]


def read_pose(path: Path, frame_size: tuple[int, int] | None) -> PoseClip:
    """Read the first person of a file.

    Args:
        path: a `.pose` file of version 0, 0.1 or 0.2.
        frame_size: width and height of the image, if the header does not say.

    Raises:
        ClipProblem: the file is damaged, or its points are those of no layout that we know.
        SlrctlError: pose-format is not installed.
    """
    header, body = _read_file(path)
    size = (header.dimensions.width, header.dimensions.height)
    size = size if min(size) > 0 else frame_size
    if size is None:
        raise ClipProblem(
            "no frame size",
            f"its header says {header.dimensions.width} x {header.dimensions.height} for the size "
            "of the image; say it with --set data.frame_size=[640,480]",
        )
    places = _places(header)
    found = find_points(places)
    if found is None:
        raise ClipProblem(
            "unknown points",
            f"found the components {some_of([c.name for c in header.components])}, expected those "
            f"of {' or '.join(LAYOUTS)}, hands included",
        )
    layout, sources = found
    data, confidence = np.ma.getdata(body.data), np.asarray(body.confidence)
    if not (data.shape[0] and data.shape[1]):
        raise ClipProblem(
            "no usable frame",
            f"holds {count_of(data.shape[0], 'frame')} of {data.shape[1]} people; expected one "
            "frame and one person at least",
        )
    landmarks = np.full((len(data), skeleton.NUM_LANDMARKS, 2), np.nan, np.float32)
    for name, source in sources.items():
        track = _track(source, places, data[:, 0], confidence[:, 0])
        with np.errstate(over="ignore"):  # found and reported as infinite
            landmarks[:, skeleton.LANDMARK_NAMES.index(name)] = track / np.array(size)
    if "neck" not in sources:
        neck_between_shoulders(landmarks)
    _check_usable(landmarks)
    fps = float(body.fps)
    return PoseClip(
        landmarks,
        fps if 0 < fps < math.inf else None,
        size[0] / size[1],
        layout,
        data.shape[1],
        [name for name in LAYOUTS[layout] if name not in sources],
    )


def _read_file(path: Path) -> tuple[Any, Any]:
    """The header and the body as pose-format reads them."""
    try:
        from pose_format.numpy import NumPyPoseBody
        from pose_format.pose_header import PoseHeader
        from pose_format.utils.reader import BufferReader
    except ImportError as error:
        raise SlrctlError(
            f"{path}: needs the package pose-format; pip install 'slrctl[pose]'"
        ) from error
    content = read_limited(path, _LARGEST_BYTES)
    try:
        reader = BufferReader(content)
        header = PoseHeader.read(reader)
        _check_size(header, memoryview(content)[reader.read_offset :])
        return header, NumPyPoseBody.read(header, reader)
    except _DAMAGE as error:
        reason = quote(str(error))
        raise ClipProblem(
            "damaged file", f"cannot be read as a .pose file: it is cut off or damaged ({reason})"
        ) from error


def _places(header: Any) -> dict[tuple[str, str], Place]:
    """Where each point's x and y lie, by the names of its component and its own."""
    places, first = {}, 0
    for component in header.components:
        axes = component.format[:-1]  # the last letter stands for the confidence
        if "X" in axes and "Y" in axes:
            for index, point in enumerate(component.points, first):
                places[component.name, point] = Place(index, axes.index("X"), axes.index("Y"))
        first += len(component.points)
    return places


def _check_size(header: Any, body: memoryview) -> None:
    """Check that the body is as long as it claims, before anything is allocated for it.

    A version 0.1 file that was cut off would otherwise be read with its points in wrong places:
    its count of frames has only 16 bits, so pose-format computes it from the length.

    Raises:
        ClipProblem: the body is too short or too long.
    """
    num_points = header.total_points()
    values_per_point = header.num_dims() + 1
    version = round(header.version, 3)
    if version == 0:
        num_frames = struct.unpack_from("<HH", body)[1]
        if num_frames * num_points * values_per_point > _MOST_VALUES_V0:
            raise ClipProblem("too long", f"claims {num_frames} frames of {num_points} points")
        return
    start, num_frames, num_people = (
        (6, *struct.unpack_from("<HH", body, 2))
        if version == 0.1
        else (10, *struct.unpack_from("<IH", body, 4))
    )
    frame_bytes = num_people * num_points * values_per_point * 4
    found = len(body) - start
    if not frame_bytes:
        raise ClipProblem(
            "no usable frame", f"holds {num_people} people of {num_points} points; expected one"
        )
    if version == 0.1:
        num_frames += max(0, (found // frame_bytes - num_frames) // 65536 * 65536)
    if found != num_frames * frame_bytes:
        state = "cut off" if found < num_frames * frame_bytes else "damaged"
        raise ClipProblem(
            f"{state} file",
            f"is {state}: found {found:,} bytes of landmarks, expected "
            f"{num_frames * frame_bytes:,} for {count_of(num_frames, 'frame')} of {num_people} x "
            f"{num_points} points; fetch or write it again",
        )


def _track(
    source: Source,
    places: dict[tuple[str, str], Place],
    data: Float[np.ndarray, "T V C"],
    confidence: Float[np.ndarray, "T V"],
) -> Float[np.ndarray, "T 2"]:
    """The x and y of one landmark, NaN where its confidence is 0."""
    component, names = source
    points = []
    for name in names:
        place = places[component, name]
        with np.errstate(invalid="ignore"):  # a damaged file has NaNs that signal
            point = data[:, place.point, [place.x, place.y]].astype(np.float64)
        is_missing = ~(confidence[:, place.point] > 0)
        points.append(np.where(is_missing[:, None], np.nan, point))
    return np.mean(points, axis=0)


def _check_usable(landmarks: Float32[np.ndarray, "T 54 2"]) -> None:
    is_inf = np.isinf(landmarks)
    if is_inf.any():
        frame, landmark, axis = np.argwhere(is_inf)[0].tolist()
        raise ClipProblem(
            "inf",
            f"found inf as {'xy'[axis]} of {skeleton.LANDMARK_NAMES[landmark]} in frame "
            f"{frame + 1}, expected a finite number, or confidence 0 if missing",
        )
    landmarks[np.isnan(landmarks).any(-1)] = np.nan
    if np.isnan(landmarks).all():
        raise ClipProblem(
            "no usable frame",
            f"none of its {count_of(len(landmarks), 'frame')} has a landmark (every confidence "
            "is 0); expected at least one",
        )


_SUFFIX = ".pose"
_LABELS = "labels.csv"
_VERSIONS = {struct.pack("<f", version) for version in (0.0, 0.1, 0.2)}
_NUMBER_AT_END = re.compile(r"(.+?)[ _-]+\(?\d+\)?")


class _Labelled(NamedTuple):
    """A file, by its path in a folder, and what is known about it beside its content."""

    folder: Path
    path: str
    clip_id: str
    gloss: str
    facts: dict[str, str | None]


def recognises(path: Path) -> bool:
    """Whether this is a `.pose` file, or a folder of them or of folders of them."""
    if path.is_dir():
        return holds_file(path, _SUFFIX) or any(
            holds_file(gloss, _SUFFIX) for gloss in folders_of(path)
        )
    if path.suffix == _SUFFIX:
        return True
    with path.open("rb") as file:
        start = file.read(32)
    # Version, width, height, depth, number of components, and the first one's name: capitals,
    # digits and underscores, unlike anything that would follow those bytes in another format.
    length = int.from_bytes(start[12:14], "little")
    name = start[14 : 14 + min(length, 16)]
    return start[:4] in _VERSIONS and length > 2 and bool(re.fullmatch(rb"\w{3,}", name))


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every file; glosses are names, so `classes` change nothing.

    Raises:
        DataError: a file is not as it should be, or none can be read.
        SlrctlError: the package pose-format is not installed.
    """
    bad = BadClips(path)
    files, notes = _labelled_files(path)
    clips: list[Clip] = []
    poses: list[PoseClip] = []
    for index, file in enumerate(files):
        try:
            pose = _read_labelled(file, settings)
        except ClipProblem as problem:
            bad.add(index, problem.kind, str(problem), where=f"clip {quote(file.clip_id)}")
            continue
        poses.append(pose)
        clips.append(
            Clip(
                file.clip_id,
                file.gloss,
                pose.landmarks,
                fps=pose.fps,
                aspect=pose.aspect,
                **file.facts,
            )
        )
    drop_notes, dropped = bad.settle(len(files), skip=settings.skip_bad_clips)
    return Reading(clips, [*drop_notes, *notes, *_notes_on(poses)], dropped)


def _read_labelled(file: _Labelled, settings: DataSettings) -> PoseClip:
    if not file.gloss:
        raise ClipProblem("no gloss", f"{_LABELS}, column 'gloss': found an empty cell")
    return read_pose(file_inside(file.folder, file.path), settings.frame_size)


def _notes_on(poses: Sequence[PoseClip]) -> list[str]:
    layouts = Counter(pose.layout for pose in poses)
    notes = [".pose files: " + ", ".join(f"{count} {name}" for name, count in layouts.items())]
    absent = Counter(name for pose in poses for name in pose.absent)
    if absent:
        notes.append(
            f"points not in {'the files' if min(absent.values()) == len(poses) else 'all files'}, "
            f"taken as missing: {some_of(list(absent))}"
        )
    if crowds := sum(pose.num_people > 1 for pose in poses):
        notes.append(
            f"warning: {count_of(crowds, 'file')} with several people: the first one is taken"
        )
    return notes


def _labelled_files(path: Path) -> tuple[list[_Labelled], list[str]]:
    """The files to read, and a note on where their glosses come from."""
    if path.is_file():
        return [_named(path)], []
    if (path / _LABELS).is_file():
        return _read_labels(path / _LABELS), [f"glosses taken from {_LABELS}"]
    if not holds_file(path, _SUFFIX):
        return [
            _Labelled(gloss, file.name, f"{gloss.name}/{file.stem}", gloss.name, {})
            for gloss in folders_of(path)
            for file in files_of(gloss, _SUFFIX)
        ], []
    files = [_named(file) for file in files_of(path, _SUFFIX)]
    example = next((file for file in files if file.gloss != file.clip_id), files[0])
    return files, [
        f"a flat folder: glosses taken from the names of the files "
        f"({quote(example.gloss)} from {quote(example.path)}), or say them in {_LABELS}"
    ]


def _named(path: Path) -> _Labelled:
    numbered = _NUMBER_AT_END.fullmatch(path.stem)
    gloss = numbered[1] if numbered else path.stem
    return _Labelled(path.parent, path.name, path.stem, gloss, {})


def _read_labels(path: Path) -> list[_Labelled]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV file in UTF-8 ({error})") from error
    if not rows or not {"path", "gloss"} <= rows[0].keys():
        found = some_of([str(name) for name in rows[0]]) if rows else "no row"
        raise DataError(f"{path}: found {found}, expected the columns path and gloss")
    return [
        _Labelled(
            path.parent,
            row["path"],
            row["path"].removesuffix(_SUFFIX),
            row["gloss"],
            {name: row.get(name) or None for name in ("signer", "session", "split")},
        )
        for row in rows
    ]
