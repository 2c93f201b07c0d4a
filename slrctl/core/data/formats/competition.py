"""Clips of the Google isolated sign language competition: `train.csv` and a Parquet file a clip.

`train.csv` has the columns path, participant_id, sequence_id, sign; each path leads, from its
folder, to a long Parquet file with a row a landmark: frame, type (face, pose, left_hand,
right_hand), landmark_index, x, y, NaN where nothing was detected.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from slrctl.core.clip import Clip
from slrctl.core.data.formats import long_parquet
from slrctl.core.data.formats.clip_folders import file_inside
from slrctl.core.data.formats.parquet import MAGIC
from slrctl.core.data.formats.parquet_file import UNREADABLE
from slrctl.core.data.formats.reading import BadClips, ClipProblem, Reading, count_of, some_of
from slrctl.errors import DataError
from slrctl.settings import DataSettings

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


def _read_source(index: Path, row: dict[str, str]) -> long_parquet.LongClip:
    """The landmarks of a row.

    Raises:
        ClipProblem: the row lacks its sign, or the file is not there or not as it should be.
    """
    if not row["sign"]:
        raise ClipProblem("no sign", "column 'sign': found an empty cell")
    source = file_inside(index.parent, row["path"])
    try:
        return long_parquet.read_long_parquet(source)
    except ClipProblem as problem:
        raise ClipProblem(problem.kind, f"{source}: {problem}") from problem
