"""Read one `.pose` file through the package pose-format, without trusting its header."""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from slrctl.core import skeleton
from slrctl.core.data.formats.cleaning import neck_between_shoulders
from slrctl.core.data.formats.pose_points import LAYOUTS, Source, find_points
from slrctl.core.data.formats.reading import ClipProblem, count_of, quote, read_limited, some_of
from slrctl.errors import SlrctlError

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
