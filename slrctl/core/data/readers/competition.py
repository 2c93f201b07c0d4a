"""Clips of the Google isolated sign language competition: `train.csv` and a Parquet file a clip.

`train.csv` has the columns path, participant_id, sequence_id, sign; each path leads, from its
folder, to a long Parquet file with a row a landmark: frame, type (face, pose, left_hand,
right_hand), landmark_index, x, y, NaN where nothing was detected.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Float64, Int64

from slrctl.core.clip import Clip
from slrctl.core.data.readers.mediapipe import NUM_HAND, NUM_POSE, landmarks_from_holistic
from slrctl.core.data.readers.parquet import (
    MAGIC,
    Columns,
    check_columns,
    is_integer,
    is_number,
    is_text,
    open_parquet,
)
from slrctl.core.data.readers.reading import (
    ClipProblem,
    Findings,
    Reading,
    check_landmarks,
    file_inside,
    library_errors,
    read_small_table,
)
from slrctl.errors import DataError, count_of, quote
from slrctl.settings import DataSettings

_INDEX = "train.csv"
_INDEX_COLUMNS = ("path", "participant_id", "sign")
_HEADER_BYTES = 1 << 12
_COLUMNS: Columns = {
    "frame": (is_integer, "integers"),
    "type": (is_text, "text such as 'pose'"),
    "landmark_index": (is_integer, "integers"),
    "x": (is_number, "numbers"),
    "y": (is_number, "numbers"),
}
# The position of the first point of each type among those we keep, and the number of its points.
_PLACES = {
    "pose": (0, NUM_POSE),
    "left_hand": (NUM_POSE, NUM_HAND),
    "right_hand": (NUM_POSE + NUM_HAND, NUM_HAND),
    "face": (-1, 1 << 16),  # not kept
}
_NUM_POINTS = NUM_POSE + 2 * NUM_HAND
_MOST_FRAMES = 10_000


def is_index(path: Path) -> bool:
    """True for a train.csv, whose clips lie in its folder."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline(_HEADER_BYTES).decode("utf-8-sig", "replace")
    names = {name.strip().strip('"') for name in line.split(",")}
    return names.issuperset(_INDEX_COLUMNS)


def _is_long_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return False  # the reader of our own Parquet reports the damage
    return "landmarks" not in names and "landmark_index" in names


def _read_table(path: Path) -> pa.Table:
    with library_errors("Parquet"), open_parquet(path, _COLUMNS) as file:
        check_columns(path, file, _COLUMNS, required=_COLUMNS)
        table = file.read(list(_COLUMNS)).unify_dictionaries()
        table.validate(full=True)
        return table


def _integers(table: pa.Table, name: str) -> Int64[np.ndarray, " R"]:
    column = table[name].combine_chunks()
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise ClipProblem(
            f"no {name}", f"row {row + 1}, column {name!r}: found null, expected an integer"
        )
    return np.from_dlpack(column.cast(pa.int64(), safe=False))


def _floats(table: pa.Table, name: str) -> Float64[np.ndarray, " R"]:
    column = table[name].combine_chunks().cast(pa.float64(), safe=False)
    return np.from_dlpack(column.fill_null(np.nan))


def _read_clip(path: Path) -> tuple[Float32[np.ndarray, "T 54 2"], bool]:
    """Read a long Parquet file; rows may come in any order, missing landmarks may be left out.

    Returns:
        The landmarks, and whether frame numbers are left out between the first and the last.
    """
    try:
        table = _read_table(path)
        frames, point = _integers(table, "frame"), _integers(table, "landmark_index")
        kinds = table["type"].combine_chunks().dictionary_encode()
        names = [*kinds.dictionary.to_pylist(), None]
        kind = np.array(kinds.indices.fill_null(len(names) - 1).to_pylist())
        starts, counts = np.array([_PLACES.get(name or "", (-1, 0)) for name in names]).T
        is_bad = (point < 0) | (point >= counts[kind])
        if is_bad.any():
            row = int(is_bad.argmax())
            name, count = names[kind[row]], int(counts[kind[row]])
            raise ClipProblem(
                "unknown landmark",
                f"row {row + 1}, columns 'type' and 'landmark_index': found {quote(name)} and "
                f"{point[row]}, expected "
                + (f"0 to {count - 1}" if count else f"one of {', '.join(_PLACES)}"),
            )
        kept = np.flatnonzero(starts[kind] >= 0)
        numbers, frame = np.unique(frames, return_inverse=True)
        if not 0 < len(numbers) <= _MOST_FRAMES:
            raise ClipProblem(
                "wrong number of frames",
                f"has {len(numbers):,} frames, expected 1 to {_MOST_FRAMES:,} in a sign",
            )
        cells = frame[kept] * _NUM_POINTS + (starts[kind] + point)[kept]
        first = np.unique(cells, return_index=True)[1]
        if len(first) < len(cells):
            row = int(np.delete(kept, first)[0])
            raise ClipProblem(
                "landmark there twice",
                f"row {row + 1}: found {names[kind[row]]} landmark {point[row]} of frame "
                f"{frames[row]} a second time; expected one row for each",
            )
        with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
            values = np.stack([_floats(table, axis) for axis in "xy"], -1).astype(np.float32)
        if np.isinf(values[kept]).any():
            place, axis = np.argwhere(np.isinf(values[kept]))[0].tolist()
            raise ClipProblem(
                "inf",
                f"row {kept[place] + 1}, column {'xy'[axis]!r}: found {values[kept[place], axis]}, "
                "expected a finite number, or null if missing",
            )
        points = np.full((len(numbers) * _NUM_POINTS, 2), np.nan, np.float32)
        points[cells] = values[kept]
        landmarks = landmarks_from_holistic(
            *np.split(points.reshape(-1, _NUM_POINTS, 2), [NUM_POSE, NUM_POSE + NUM_HAND], axis=1)
        )
        check_landmarks(landmarks)
    except ClipProblem as problem:
        raise ClipProblem(problem.kind, f"{path}: {problem}") from problem
    return landmarks, int(numbers[-1]) - int(numbers[0]) >= len(numbers)


def recognises(path: Path) -> bool:
    """True for the folder, its train.csv, or one of its Parquet files."""
    if path.is_dir():
        return is_index(path / _INDEX)
    return is_index(path) or _is_long_parquet(path)


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip that train.csv names; glosses are names, so `classes` change nothing.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    if path.is_file() and not is_index(path):
        raise DataError(
            f"{path}: holds the landmarks of one clip but not its sign, which stands in {_INDEX} "
            f"(columns {', '.join(_INDEX_COLUMNS)}); name that file or its folder"
        )
    index = path / _INDEX if path.is_dir() else path
    rows = read_small_table(index, _INDEX_COLUMNS)
    ids = [row.get("sequence_id") or row.get("path") or "" for row in rows]
    has_own_ids = len(set(ids)) == len(ids)
    aspect = 1.0 if settings.frame_size is None else settings.frame_size[0] / settings.frame_size[1]
    findings, clips, num_with_gaps = Findings(index), [], 0
    for number, row in enumerate(rows):
        try:
            if not row["sign"]:
                raise ClipProblem("no sign", "column 'sign': found an empty cell")
            landmarks, has_gaps = _read_clip(file_inside(index.parent, row["path"]))
        except ClipProblem as problem:
            findings.add(number, problem)
            continue
        num_with_gaps += has_gaps
        clip = Clip(
            clip_id=ids[number] if has_own_ids else row["path"],
            gloss=row["sign"],
            landmarks=landmarks,
            signer=row["participant_id"] or None,
            aspect=aspect,
        )
        clips.append(findings.trimmed(clip))
    notes, dropped = findings.settle(len(rows), skip=settings.skip_bad_clips)
    if num_with_gaps:
        notes.append(
            f"{count_of(num_with_gaps, 'clip')} without some frame numbers: "
            "the frames that are there are taken as following one another"
        )
    return Reading(clips, notes, dropped)
