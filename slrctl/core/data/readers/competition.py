"""Clips of the Google isolated sign language competition: `train.csv` and a Parquet file a clip.

`train.csv` has the columns path, participant_id, sequence_id, sign; each path leads, from its
folder, to a long Parquet file with a row a landmark: frame, type (face, pose, left_hand,
right_hand), landmark_index, x, y, NaN where nothing was detected.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.readers.clip_folders import file_inside
from slrctl.core.data.readers.mediapipe import NUM_HAND, NUM_POSE, landmarks_from_holistic
from slrctl.core.data.readers.parquet import (
    MAGIC,
    UNREADABLE,
    check_unpacked_size,
    open_parquet,
    reason_of,
)
from slrctl.core.data.readers.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    some_of,
)
from slrctl.errors import DataError
from slrctl.settings import DataSettings

COLUMNS = ("frame", "type", "landmark_index", "x", "y")
# Where the points of each type start among those we keep, and how many there are.
_PLACES = {
    "pose": (0, NUM_POSE),
    "left_hand": (NUM_POSE, NUM_HAND),
    "right_hand": (NUM_POSE + NUM_HAND, NUM_HAND),
    "face": (-1, 1 << 16),
}
_NUM_POINTS = NUM_POSE + 2 * NUM_HAND
_MOST_FRAMES = 10_000
_MOST_ROWS = _MOST_FRAMES * 600  # Holistic gives 543 landmarks a frame, 553 with the irises


class LongClip(NamedTuple):
    """The landmarks, and whether frame numbers are left out between the first and the last."""

    landmarks: Float32[np.ndarray, "T 54 2"]
    has_gaps: bool


class _Rows(NamedTuple):
    frame: Int64[np.ndarray, " R"]
    kind: pa.DictionaryArray
    point: Int64[np.ndarray, " R"]
    xy: Float64[np.ndarray, "R 2"]


def read_long_parquet(path: Path) -> LongClip:
    """Read the clip; rows may come in any order, and those of missing landmarks may be left out.

    Raises:
        ClipProblem: the file is damaged, or one of its rows is not as it should be.
    """
    try:
        with open_parquet(path, ["type"]) as file:
            rows = _read_rows(path, file)
            places = _places(rows)
    except UNREADABLE as error:
        raise ClipProblem(
            "damaged file",
            f"cannot be read as Parquet: it is cut off or damaged ({reason_of(error)})",
        ) from error
    numbers, frame = np.unique(rows.frame, return_inverse=True)
    if len(numbers) > _MOST_FRAMES:
        raise ClipProblem(
            "too long", f"has {len(numbers):,} frames, expected at most {_MOST_FRAMES:,} in a sign"
        )
    kept = np.flatnonzero(places >= 0)
    cells = frame[kept] * _NUM_POINTS + places[kept]
    _check_unique(rows, kept, cells)
    points = np.full((len(numbers) * _NUM_POINTS, 2), np.nan, np.float32)
    points[cells] = _finite(rows, kept)
    points[np.isnan(points).any(axis=1)] = np.nan
    pose, left, right = np.split(
        points.reshape(-1, _NUM_POINTS, 2), [NUM_POSE, NUM_POSE + NUM_HAND], axis=1
    )
    landmarks = landmarks_from_holistic(pose, left, right)
    if np.isnan(landmarks).all():
        raise ClipProblem(
            "no usable frame",
            f"none of its {count_of(len(numbers), 'frame')} has a landmark of pose or hands "
            "(all are nan or left out); expected at least one",
        )
    return LongClip(landmarks, bool(numbers[-1] - numbers[0] >= len(numbers)))


def _read_rows(path: Path, file: pq.ParquetFile) -> _Rows:
    names = file.schema_arrow.names
    missing = [name for name in COLUMNS if names.count(name) != 1]
    if missing:
        raise ClipProblem(
            "missing column",
            f"column {missing[0]!r} is not there, or twice; expected {', '.join(COLUMNS)}",
        )
    check_unpacked_size(path, COLUMNS)
    num_rows = file.metadata.num_rows
    if not 0 < num_rows <= _MOST_ROWS:
        raise ClipProblem(
            "no frame" if num_rows == 0 else "too long",
            f"has {num_rows:,} rows, expected 543 for each frame and at most {_MOST_ROWS:,}",
        )
    table = file.read(list(COLUMNS)).unify_dictionaries().combine_chunks()
    if table.num_rows != num_rows:
        raise ClipProblem(
            "damaged file", f"claims {num_rows:,} rows and holds {table.num_rows:,}: it is damaged"
        )
    kind = table.column("type").combine_chunks()
    if not pa.types.is_dictionary(kind.type) or not pa.types.is_string(kind.type.value_type):
        raise ClipProblem(
            "wrong type of column", f"column 'type' holds {kind.type}, expected text such as 'pose'"
        )
    xy = [_numbers(table, name, pa.float64()) for name in ("x", "y")]
    frame, point = (_numbers(table, name, pa.int64()) for name in ("frame", "landmark_index"))
    return _Rows(frame, kind, point, np.stack(xy, axis=-1))


def _numbers(table: pa.Table, name: str, wanted: pa.DataType) -> np.ndarray:
    """A column as numpy array; null becomes nan, and is no frame and no index."""
    column = table.column(name).combine_chunks()
    is_number = pa.types.is_integer(column.type) or (
        pa.types.is_floating(column.type) and pa.types.is_floating(wanted)
    )
    is_empty = pa.types.is_null(column.type) and pa.types.is_floating(wanted)
    if not (is_number or is_empty):
        kinds = "numbers" if pa.types.is_floating(wanted) else "integers"
        raise ClipProblem(
            "wrong type of column", f"column {name!r} holds {column.type}, expected {kinds}"
        )
    if pa.types.is_integer(wanted) and column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ClipProblem(
            f"no {name}", f"row {row + 1}, column {name!r}: found null, expected an integer"
        )
    filled = column.cast(wanted).fill_null(np.nan if pa.types.is_floating(wanted) else 0)
    kind = np.float64 if pa.types.is_floating(wanted) else np.int64
    # Not `to_numpy`, which would load pandas.
    return np.frombuffer(filled.buffers()[1], kind, len(filled), 8 * filled.offset)


def _places(rows: _Rows) -> Int64[np.ndarray, " R"]:
    """Where each row belongs among the points we keep; -1 for the face.

    Raises:
        ClipProblem: a type or an index that Holistic does not have.
    """
    names = rows.kind.dictionary.to_pylist()
    starts, counts = np.array([_PLACES.get(name, (-2, 0)) for name in names] + [(-2, 0)]).T
    codes = np.array(rows.kind.indices.fill_null(len(names)).to_pylist(), dtype=np.int64)
    if not ((codes >= 0) & (codes <= len(names))).all():
        raise ClipProblem(
            "damaged file", "column 'type' refers to texts that are not there: it is damaged"
        )
    is_bad = (starts[codes] == -2) | (rows.point < 0) | (rows.point >= counts[codes])
    if is_bad.any():
        row = int(is_bad.argmax())
        name = rows.kind[row].as_py()
        if name in _PLACES:
            raise ClipProblem(
                "unknown landmark",
                f"row {row + 1}, column 'landmark_index': found {rows.point[row]} of {name}, "
                f"expected 0 to {_PLACES[name][1] - 1}",
            )
        raise ClipProblem(
            "unknown type",
            f"row {row + 1}, column 'type': found {quote(name)}, expected {', '.join(_PLACES)}",
        )
    return np.where(starts[codes] < 0, -1, starts[codes] + rows.point)


def _check_unique(rows: _Rows, kept: np.ndarray, cells: np.ndarray) -> None:
    first = np.unique(cells, return_index=True)[1]
    if len(first) == len(cells):
        return
    is_repeat = np.ones(len(cells), dtype=bool)
    is_repeat[first] = False
    row = int(kept[is_repeat.argmax()])
    raise ClipProblem(
        "landmark there twice",
        f"row {row + 1}: found {rows.kind[row].as_py()} landmark {rows.point[row]} of frame "
        f"{rows.frame[row]} a second time; expected one row for each",
    )


def _finite(rows: _Rows, kept: np.ndarray) -> Float32[np.ndarray, "K 2"]:
    with np.errstate(over="ignore"):  # found and reported as infinite
        xy = rows.xy[kept].astype(np.float32)
    is_inf = np.isinf(xy)
    if is_inf.any():
        place, axis = np.argwhere(is_inf)[0].tolist()
        row = int(kept[place])
        raise ClipProblem(
            "inf",
            f"row {row + 1}, column {'xy'[axis]!r}: found {rows.xy[row, axis]} in frame "
            f"{rows.frame[row]}, expected a finite number, or nan if missing",
        )
    return xy


INDEX = "train.csv"
_REQUIRED = ("path", "participant_id", "sign")
_HEADER_BYTES = 1 << 12


def recognises(path: Path) -> bool:
    """Whether this is the folder, its train.csv, or one of its Parquet files."""
    if path.is_dir():
        return is_index(path / INDEX)
    return is_index(path) or _is_long_parquet(path)


def is_index(path: Path) -> bool:
    """Whether this is a train.csv, whose clips lie in its folder."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES).decode("utf-8-sig", "replace")
    names = {name.strip().strip('"') for name in line.split(",")}
    return names.issuperset(_REQUIRED)


def _is_long_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
    except UNREADABLE:
        return False  # the reader of our own Parquet says what is wrong with it
    return "landmarks" not in names and "landmark_index" in names


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip that train.csv names; glosses are names, so `classes` change nothing.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    if path.is_file() and not is_index(path):
        raise DataError(
            f"{path}: holds the landmarks of one clip but not its sign, which stands in {INDEX} "
            f"(columns {', '.join(_REQUIRED)}); name that file or its folder"
        )
    index = path / INDEX if path.is_dir() else path
    rows = _read_index(index)
    ids = [row.get("sequence_id") or row.get("path") or "" for row in rows]
    has_own_ids = len(set(ids)) == len(ids)
    aspect = 1.0 if settings.frame_size is None else settings.frame_size[0] / settings.frame_size[1]
    bad, clips, num_with_gaps = BadClips(index), [], 0
    for number, row in enumerate(rows):
        try:
            landmarks, has_gaps = _read_source(index, row)
        except ClipProblem as problem:
            bad.add(number, problem.kind, str(problem))
            continue
        num_with_gaps += has_gaps
        clips.append(
            Clip(
                clip_id=ids[number] if has_own_ids else row["path"],
                gloss=row["sign"],
                landmarks=landmarks,
                signer=row["participant_id"] or None,
                aspect=aspect,
            )
        )
    notes, dropped = bad.settle(len(rows), skip=settings.skip_bad_clips)
    if num_with_gaps:
        notes.append(
            f"{count_of(num_with_gaps, 'clip')} without some frame numbers: "
            "the frames that are there are taken as following one another"
        )
    return Reading(clips, notes, dropped)


def _read_index(path: Path) -> list[dict[str, str]]:
    """The rows of train.csv; a cell that is not there is empty."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True)
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; save it again as UTF-8") from error
    except csv.Error as error:
        raise DataError(
            f"{path}: cannot be split into rows and cells ({error}); fetch it again"
        ) from error
    # A carriage return ends the header here, and may have stood in the line that was recognised.
    if not set(columns).issuperset(_REQUIRED):
        raise DataError(
            f"{path}: found the columns {some_of(columns)}, expected {', '.join(_REQUIRED)}; "
            "fetch it again"
        )
    if not rows:
        raise DataError(f"{path}: has a header but no row below it; expected a row for each clip")
    return rows


def _read_source(index: Path, row: dict[str, str]) -> LongClip:
    """The landmarks of a row.

    Raises:
        ClipProblem: the row lacks its sign, or the file is not there or not as it should be.
    """
    if not row["sign"]:
        raise ClipProblem("no sign", "column 'sign': found an empty cell")
    source = file_inside(index.parent, row["path"])
    try:
        return read_long_parquet(source)
    except ClipProblem as problem:
        raise ClipProblem(problem.kind, f"{source}: {problem}") from problem
