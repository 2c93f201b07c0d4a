"""Clips from `.pose` files, as sign language processing tools exchange them.

A folder `<gloss>/<clip>.pose`, a flat folder of files, or one file. In a flat folder `labels.csv`
(columns path, gloss and, where known, signer, session, split) says what each file shows; without
it, and for a single file, the gloss is the name of the file up to a number at its end: `book_2`
and `book-10` show book.
"""

import math
import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import neck_between_shoulders
from slrctl.core.data.readers.reading import (
    ClipProblem,
    Findings,
    Reading,
    check_landmarks,
    check_size,
    file_inside,
    files_of,
    folders_of,
    holds_file,
    library_errors,
    read_small_table,
)
from slrctl.errors import SlrctlError, count_of, quote, some_of
from slrctl.settings import DataSettings

_SUFFIX = ".pose"
_LABELS = "labels.csv"
_VERSIONS = {struct.pack("<f", version) for version in (0.0, 0.1, 0.2)}
_NUMBER_AT_END = re.compile(r"(.+?)[ _-]+\(?\d+\)?")
_LARGEST_BYTES = 1 << 30
_MOST_VALUES_V0 = 1 << 25
# The index of each point among all points, by component and name, and those of x and y among its
# coordinates.
Places = dict[tuple[str, str], tuple[int, int, int]]

_SIDES = ("right", "left")
# The joints of a hand in the order of the other layouts: thumb first, each finger from its base.
_HAND = (
    "wrist",
    *(f"thumb{joint}" for joint in ("CMC", "MP", "IP", "Tip")),
    *(
        f"{finger}{joint}"
        for finger in ("index", "middle", "ring", "little")
        for joint in ("MCP", "PIP", "DIP", "Tip")
    ),
)
_HOLISTIC_HAND = (
    *("WRIST", "THUMB_CMC", "THUMB_MCP", "THUMB_IP", "THUMB_TIP"),
    *(
        f"{finger}_{joint}"
        for finger in ("INDEX_FINGER", "MIDDLE_FINGER", "RING_FINGER", "PINKY")
        for joint in ("MCP", "PIP", "DIP", "TIP")
    ),
)
# pose-format calls the four points of a finger, from its base, after other bones than we do.
_OPENPOSE_HAND = (
    *("BASE", "T_STT", "T_BCMC", "T_MCP", "T_IP"),
    *(f"{finger}_{joint}" for finger in "IMRP" for joint in ("CMC", "MCP", "PIP", "DIP")),
)
_OPENPOSE_135_HAND = (
    *("Wrist", "Thumb1CMC", "Thumb2Knuckles", "Thumb3IP", "Thumb4FingerTip"),
    *(
        f"{finger}{joint}"
        for finger in ("Index", "Middle", "Ring", "Pinky")
        for joint in ("1Knuckles", "2PIP", "3DIP", "4FingerTip")
    ),
)

# A component and the points of it whose mean is a landmark.
Source = tuple[str, tuple[str, ...]]
# The sources of each of our landmarks in one layout, the best first.
Layout = dict[str, tuple[Source, ...]]


def _hands(component: str, names: Sequence[str]) -> Layout:
    """Return the sources of both hands; `{SIDE}`, `{side}`, `{S}` in a text stand for the side."""

    def of_side(text: str, side: str) -> str:
        return text.format(SIDE=side.upper(), side=side, S=side[0].upper())

    return {
        f"{ours}_{side}": ((of_side(component, side), (of_side(name, side),)),)
        for side in _SIDES
        for ours, name in zip(_HAND, names, strict=True)
    }


def _openpose_body(component: str) -> Layout:
    return {"nose": ((component, ("Nose",)),)} | {
        f"{side}{joint}": ((component, (f"{side[0].upper()}{joint}",)),)
        for side in _SIDES
        for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist")
    }


_POSE, _FACE = "POSE_LANDMARKS", "FACE_LANDMARKS"


LAYOUTS: dict[str, Layout] = {
    "MediaPipe Holistic": {
        # Points of the face mesh that lie nearest to those of the pose, over eye distance: nose
        # 0.06 (mesh 1, the other candidate, 0.11), eye corners 0.06, ears 0.17. Measured on two
        # portraits and their mirror images with mediapipe 0.10.21. Corners stay put in a blink.
        "nose": ((_POSE, ("NOSE",)), (_FACE, ("4",)), (_FACE, ("1",))),
        "rightEye": ((_POSE, ("RIGHT_EYE",)), (_FACE, ("33", "133"))),
        "leftEye": ((_POSE, ("LEFT_EYE",)), (_FACE, ("362", "263"))),
        "rightEar": ((_POSE, ("RIGHT_EAR",)), (_FACE, ("234",))),
        "leftEar": ((_POSE, ("LEFT_EAR",)), (_FACE, ("454",))),
        **{
            f"{side}{joint}": ((_POSE, (f"{side}_{joint}".upper(),)),)
            for side in _SIDES
            for joint in ("Shoulder", "Elbow", "Wrist")
        },
        **_hands("{SIDE}_HAND_LANDMARKS", _HOLISTIC_HAND),
    },
    "OpenPose": {
        **_openpose_body("pose_keypoints_2d"),
        "neck": (("pose_keypoints_2d", ("Neck",)),),
        **_hands("hand_{side}_keypoints_2d", _OPENPOSE_HAND),
    },
    "OpenPose (135 points)": {
        **_openpose_body("BODY_135"),
        **_hands("BODY_135", [f"{{S}}{name}" for name in _OPENPOSE_135_HAND]),
    },
}


class _PoseFile(NamedTuple):
    """The path of a file below a folder, and its facts: clip_id, gloss, ..., as `Clip` has them."""

    folder: Path
    path: str
    facts: dict[str, Any]


class _PoseClip(NamedTuple):
    """Landmarks divided by the size of the image, and the facts of the file."""

    landmarks: Float32[np.ndarray, "T 54 2"]
    fps: float | None
    aspect: float
    layout: str
    num_people: int
    absent: list[str]


def _named(path: Path) -> _PoseFile:
    numbered = _NUMBER_AT_END.fullmatch(path.stem)
    gloss = numbered[1] if numbered else path.stem
    return _PoseFile(path.parent, path.name, {"clip_id": path.stem, "gloss": gloss})


def _files_in(path: Path) -> tuple[list[_PoseFile], list[str]]:
    """List the files to read, with a note on the origin of their glosses."""
    if path.is_file():
        return [_named(path)], []
    if (path / _LABELS).is_file():
        labelled = [
            _PoseFile(
                path,
                row["path"],
                {"clip_id": row["path"].removesuffix(_SUFFIX)}
                | {name: row.get(name) or None for name in ("gloss", "signer", "session", "split")},
            )
            for row in read_small_table(path / _LABELS, ("path", "gloss"))
        ]
        return labelled, [f"glosses taken from {_LABELS}"]
    if not holds_file(path, _SUFFIX):
        return [
            _PoseFile(
                gloss, file.name, {"clip_id": f"{gloss.name}/{file.stem}", "gloss": gloss.name}
            )
            for gloss in folders_of(path)
            for file in files_of(gloss, _SUFFIX)
        ], []
    files = [_named(file) for file in files_of(path, _SUFFIX)]
    example = next((f for f in files if f.facts["gloss"] != f.facts["clip_id"]), files[0])
    return files, [
        f"a flat folder: glosses taken from the names of the files "
        f"({quote(example.facts['gloss'])} from {quote(example.path)}), or say them in {_LABELS}"
    ]


def _notes_on(poses: Sequence[_PoseClip]) -> list[str]:
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


def _read_file(path: Path) -> tuple[Any, Any]:
    """Read header and body with pose-format, and check that the body is complete."""
    try:
        from pose_format.numpy import NumPyPoseBody
        from pose_format.pose_header import PoseHeader
        from pose_format.utils.reader import BufferReader
    except ImportError as error:
        raise SlrctlError(
            f"{path}: needs the package pose-format; pip install 'slrctl[pose]'"
        ) from error
    check_size(path, _LARGEST_BYTES)
    content = path.read_bytes()
    with library_errors("a .pose file"):
        reader = BufferReader(content)
        header = PoseHeader.read(reader)
        start = reader.read_offset
        num_frames = struct.unpack_from("<HH", content, start)[1]  # up to version 0.1
        version = round(header.version, 3)
        # Frames without a person take memory, but no room in a file of version 0.
        if version == 0 and num_frames * header.total_points() > _MOST_VALUES_V0:
            raise ValueError(f"claims {num_frames} frames of {header.total_points()} points")
        body = NumPyPoseBody.read(header, reader)
        left_over = len(content) - reader.read_offset
        # Version 0.1 counts frames in 16 bits, so pose-format computes them from the length: a file
        # that was cut off would be read with its points in wrong places.
        is_cut_off = version == 0.1 and len(body.data) % (1 << 16) != num_frames
        if is_cut_off or left_over:
            raise ValueError(f"found {left_over} bytes behind {len(body.data)} whole frames")
    return header, body


def _places(header: Any) -> Places:
    places: Places = {}
    first = 0
    for component in header.components:
        axes = component.format[:-1]  # the last letter stands for the confidence
        if "X" in axes and "Y" in axes:
            for index, point in enumerate(component.points, first):
                places[component.name, point] = (index, axes.index("X"), axes.index("Y"))
        first += len(component.points)
    return places


def _find_sources(places: Places) -> tuple[str, dict[str, Source]]:
    """Find the layout of a file, and the source of each landmark that the file holds."""

    def found_in(layout: Layout) -> dict[str, Source]:
        return {
            name: source
            for name, sources in layout.items()
            for source in [s for s in sources if all((s[0], point) in places for point in s[1])][:1]
        }

    found = {name: found_in(layout) for name, layout in LAYOUTS.items()}
    best = max(found, key=lambda name: len(found[name]))
    if len(found[best]) < skeleton.NUM_HAND:
        components = list(dict.fromkeys(component for component, _ in places))
        raise ClipProblem(
            "unknown points",
            f"found the components {some_of(components)}, expected those "
            f"of {' or '.join(LAYOUTS)}, hands included",
        )
    return best, found[best]


def _read_pose(path: Path, frame_size: tuple[int, int] | None) -> _PoseClip:
    """Read the first person of a file, of an image of `frame_size` where the header has no size."""
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
    layout, sources = _find_sources(places)
    if not (body.data.shape[0] and body.data.shape[1]):
        raise ClipProblem(
            "no usable frame",
            f"holds {count_of(body.data.shape[0], 'frame')} of {body.data.shape[1]} people; "
            "expected one frame and one person at least",
        )
    confidence = np.asarray(body.confidence)[:, 0]
    with np.errstate(invalid="ignore"):  # a damaged file has NaNs that signal
        data = np.ma.getdata(body.data)[:, 0].astype(np.float64)
    landmarks = np.full((len(data), skeleton.NUM_LANDMARKS, 2), np.nan, np.float32)
    for name, (component, points) in sources.items():
        tracks = []
        for index, x, y in (places[component, point] for point in points):
            is_present = confidence[:, index, None] > 0
            tracks.append(np.where(is_present, data[:, index, [x, y]], np.nan))
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, see below
            landmarks[:, skeleton.LANDMARK_NAMES.index(name)] = np.mean(tracks, axis=0) / size
    if "neck" not in sources:
        neck_between_shoulders(landmarks)
    check_landmarks(landmarks, "confidence 0")
    fps = float(body.fps)
    return _PoseClip(
        landmarks,
        fps if 0 < fps < math.inf else None,
        size[0] / size[1],
        layout,
        body.data.shape[1],
        [name for name in LAYOUTS[layout] if name not in sources],
    )


def recognises(path: Path) -> bool:
    """True for a `.pose` file, or a folder of them or of folders of them."""
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
    findings = Findings(path)
    files, notes = _files_in(path)
    clips: list[Clip] = []
    poses: list[_PoseClip] = []
    for index, file in enumerate(files):
        try:
            if not file.facts["gloss"]:
                raise ClipProblem("no gloss", f"{_LABELS}, column 'gloss': found an empty cell")
            pose = _read_pose(file_inside(file.folder, file.path), settings.frame_size)
        except ClipProblem as problem:
            findings.add(index, problem, where=f"clip {quote(file.facts['clip_id'])}")
            continue
        poses.append(pose)
        clip = Clip(landmarks=pose.landmarks, fps=pose.fps, aspect=pose.aspect, **file.facts)
        clips.append(findings.trimmed(clip))
    drop_notes, dropped = findings.settle(len(files), skip=settings.skip_bad_clips)
    return Reading(clips, [*drop_notes, *notes, *_notes_on(poses)], dropped)
