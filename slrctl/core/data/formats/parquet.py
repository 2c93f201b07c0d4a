"""Clips in our own Parquet: one row a clip, landmarks as a flat list of float32.

This is the format everything is converted to: reading back what was written gives the same bits.
Rows are counted from 1 in messages.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.formats.parquet_columns import (
    SCHEMA,
    FlatLandmarks,
    read_counts,
    read_landmarks,
    read_numbers,
    read_table,
    read_texts,
)
from slrctl.core.data.formats.reading import BadClips, Reading, count_of, quote, some_of
from slrctl.settings import DataSettings

MAGIC = b"PAR1"
_VALUES_PER_FRAME = 2 * skeleton.NUM_LANDMARKS


def recognises(path: Path) -> bool:
    """Whether the file begins as a Parquet file does. Other layouts of Parquet are asked first."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip of the file; glosses are names, so `classes` change nothing.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    table, ignored = read_table(path)
    bad = BadClips(path)
    clip_ids = read_texts(path, table, "clip_id")
    glosses = read_texts(path, table, "gloss")
    signers, sessions, splits = (
        read_texts(path, table, name) for name in ("signer", "session", "split")
    )
    fps = read_numbers(path, table, "fps", bad)
    aspects = read_numbers(path, table, "aspect", bad)
    flat = read_landmarks(path, table)
    _check_names(clip_ids, glosses, bad)
    _check_landmarks(flat, read_counts(path, table), bad)
    notes, dropped = bad.settle(table.num_rows, skip=settings.skip_bad_clips)
    if ignored:
        notes.append(f"{count_of(len(ignored), 'column')} not read: {some_of(ignored)}")

    is_good = np.array([row not in bad.rows for row in range(table.num_rows)])
    lengths = flat.lengths[is_good] // _VALUES_PER_FRAME
    kept = np.repeat(is_good, np.maximum(flat.lengths, 0))
    frames = flat.values[kept].reshape(-1, skeleton.NUM_LANDMARKS, 2)
    notes += _drop_half_landmarks(frames)
    clips = [
        Clip(
            clip_id=clip_ids[row] or "",
            gloss=glosses[row] or "",
            landmarks=landmarks,
            signer=signers[row],
            session=sessions[row],
            split=splits[row],
            fps=fps[row],
            aspect=aspects[row] or 1.0,
        )
        for row, landmarks in zip(
            np.flatnonzero(is_good), np.split(frames, np.cumsum(lengths)[:-1]), strict=True
        )
    ]
    return Reading(clips, notes, dropped)


def other_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that clips do not have; none if it cannot be read."""
    try:
        names = pq.read_schema(path).names
    except (pa.ArrowException, OSError):
        return []
    return [name for name in names if name not in SCHEMA.names]


def write_parquet(clips: Sequence[Clip], path: Path) -> None:
    """Write clips so that reading them gives the same ones to the bit.

    The file appears whole or not at all: it is written beside its place and then moved there.
    """
    offsets = np.cumsum([0, *(clip.landmarks.size for clip in clips)]).astype(np.int32)
    values = np.concatenate([np.zeros(0, np.float32), *(clip.landmarks.ravel() for clip in clips)])
    columns: dict[str, Any] = {
        name: [getattr(clip, name) for clip in clips] for name in SCHEMA.names[:-2]
    }
    columns["n_frames"] = [clip.num_frames for clip in clips]
    columns["landmarks"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        pq.write_table(pa.table(columns, schema=SCHEMA), partial, compression="zstd")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _check_names(
    clip_ids: Sequence[str | None], glosses: Sequence[str | None], bad: BadClips
) -> None:
    """Every clip has an id of its own and a gloss; an id may be any text."""
    row_of: dict[str, int] = {}
    for row, (clip_id, gloss) in enumerate(zip(clip_ids, glosses, strict=True)):
        if clip_id is None:
            bad.add(row, "no clip id", "found null, expected the clip's id", column="clip_id")
        elif clip_id in row_of:
            message = (
                f"found {quote(clip_id)}, which row {row_of[clip_id] + 1} has already; "
                "expected an id of its own for every clip"
            )
            bad.add(row, "duplicate clip id", message, column="clip_id")
        else:
            row_of[clip_id] = row
        if not gloss:
            found = "null" if gloss is None else "an empty text"
            message = f"found {found}, expected the name of the sign"
            bad.add(row, "no gloss", message, column="gloss")


def _check_landmarks(flat: FlatLandmarks, counts: Sequence[Any], bad: BadClips) -> None:
    """Every list has n_frames x 54 x 2 finite numbers or nan, and they are not all nan."""
    is_inf, is_nan = np.isinf(flat.values), np.isnan(flat.values)
    ends = np.cumsum(np.maximum(flat.lengths, 0))
    for row, (end, length, count) in enumerate(
        zip(ends.tolist(), flat.lengths.tolist(), counts, strict=True)
    ):
        numbers = slice(end - max(length, 0), end)
        if count is None or not (count >= 1 and float(count).is_integer()):
            found = "null" if count is None else count
            message = f"found {found}, expected the number of frames, at least 1"
            bad.add(row, "bad n_frames", message, column="n_frames")
        elif length <= 0:
            found = "null" if length < 0 else "an empty list"
            message = f"found {found}, expected {int(count)} x 54 x 2 numbers"
            bad.add(row, "no landmarks", message, column="landmarks")
        elif length != count * _VALUES_PER_FRAME:
            message = (
                f"found {length} numbers, expected n_frames x 54 x 2 = "
                f"{int(count)} x 54 x 2 = {int(count) * _VALUES_PER_FRAME}"
            )
            bad.add(row, "wrong number of landmarks", message, column="landmarks")
        elif is_inf[numbers].any():
            frame = int(is_inf[numbers].argmax()) // _VALUES_PER_FRAME
            message = f"found inf in frame {frame + 1}, expected a finite number, or nan if missing"
            bad.add(row, "inf", message, column="landmarks")
        elif is_nan[numbers].all():
            message = (
                f"none of its {int(count)} frames has a landmark (all are nan); "
                "expected at least one"
            )
            bad.add(row, "no usable frame", message, column="landmarks")


def _drop_half_landmarks(frames: Float32[np.ndarray, "F 54 2"]) -> list[str]:
    """Make landmarks missing, in place, that have only one coordinate."""
    is_nan = np.isnan(frames)
    is_half = is_nan[..., 0] != is_nan[..., 1]
    if not is_half.any():
        return []
    frames[is_half] = np.nan
    number = count_of(int(is_half.sum()), "landmark")
    return [f"{number} with only one of x and y: taken as missing"]
