"""Clips in our own Parquet: one row a clip, landmarks as a flat list of float32.

This is the format everything is converted to: reading back what was written gives the same bits.
Rows are counted from 1 in messages.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip, groups_of_clips
from slrctl.core.data.formats.parquet_columns import (
    SCHEMA,
    FlatLandmarks,
    ParquetRows,
    open_rows,
    read_counts,
    read_landmarks,
    read_numbers,
    read_texts,
)
from slrctl.core.data.formats.parquet_file import UNREADABLE
from slrctl.core.data.formats.reading import BadClips, Reading, count_of, quote, some_of
from slrctl.core.whole_file import check_replaceable
from slrctl.settings import DataSettings

MAGIC = b"PAR1"
_VALUES_PER_FRAME = 2 * skeleton.NUM_LANDMARKS
_TEXTS = ("clip_id", "gloss", "signer", "session", "split")
# Frames of a row group, some 57 MB of landmarks.
_FRAMES_TOGETHER = 1 << 17


def recognises(path: Path) -> bool:
    """Whether the file begins as a Parquet file does. Other layouts of Parquet are asked first."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Look through the file, so that its clips can be read one after the other.

    Glosses are names, so `classes` change nothing.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    rows, bad = open_rows(path), BadClips(path)
    _check_facts(rows, bad)
    num_halves = _check_all_landmarks(rows, bad)
    notes, dropped = bad.settle(rows.num_rows, skip=settings.skip_bad_clips)
    ignored = [name for name in rows.names if name not in SCHEMA.names]
    if ignored:
        notes.append(f"{count_of(len(ignored), 'column')} not read: {some_of(ignored)}")
    if num_halves:
        number = count_of(num_halves, "landmark")
        notes.append(f"{number} with only one of x and y: taken as missing")
    return Reading(_ClipsOfRows(rows, frozenset(bad.rows)), notes, dropped)


@dataclass(frozen=True)
class _ClipsOfRows:
    """The good clips of a file that was looked through; each time they are read anew."""

    rows: ParquetRows
    bad: frozenset[int]

    def __iter__(self) -> Iterator[Clip]:
        for first_row, block in self.rows.blocks(*SCHEMA.names):
            yield from _clips_of(self.rows.path, block, first_row, self.bad)


def _clips_of(path: Path, block: pa.Table, first_row: int, bad: frozenset[int]) -> Iterator[Clip]:
    texts = [read_texts(path, block, name) for name in _TEXTS]
    fps, aspects = (read_numbers(path, block, name, BadClips(path)) for name in ("fps", "aspect"))
    flat = read_landmarks(path, block)
    ends = np.cumsum(np.maximum(flat.lengths, 0)).tolist()
    lengths = flat.lengths.tolist()
    for row, (clip_id, gloss, signer, session, split) in enumerate(zip(*texts, strict=True)):
        if first_row + row in bad:
            continue
        values = flat.values[ends[row] - lengths[row] : ends[row]]
        landmarks = values.reshape(-1, skeleton.NUM_LANDMARKS, 2)
        landmarks[_is_half(landmarks)] = np.nan
        yield Clip(
            clip_id=clip_id or "",
            gloss=gloss or "",
            landmarks=landmarks,
            signer=signer,
            session=session,
            split=split,
            fps=fps[row],
            aspect=aspects[row] or 1.0,
        )


def other_columns(path: Path) -> list[str]:
    """The columns of a Parquet file that clips do not have; none if it cannot be read."""
    try:
        names = pq.read_schema(path).names
    except UNREADABLE:
        return []
    return [name for name in names if name not in SCHEMA.names]


def write_parquet(clips: Iterable[Clip], path: Path) -> None:
    """Write clips so that reading them gives the same ones to the bit.

    The file appears whole or not at all: it is written beside its place and then moved there.
    """
    check_replaceable(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with pq.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            for group in groups_of_clips(clips, _FRAMES_TOGETHER):
                writer.write_table(_table_of(group))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _table_of(clips: Sequence[Clip]) -> pa.Table:
    columns: dict[str, Any] = {
        name: [getattr(clip, name) for clip in clips] for name in SCHEMA.names[:-2]
    }
    columns["n_frames"] = [clip.num_frames for clip in clips]
    offsets = np.cumsum([0, *(clip.landmarks.size for clip in clips)]).astype(np.int32)
    values = np.concatenate([clip.landmarks.ravel() for clip in clips])
    columns["landmarks"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.table(columns, schema=SCHEMA)


def _check_facts(rows: ParquetRows, bad: BadClips) -> None:
    """Go through all columns but the landmarks; of a good file hardly anything is held."""
    hashes: list[np.ndarray] = []
    is_named = True
    for name in _TEXTS:
        for _, block in rows.blocks(name):
            texts = read_texts(rows.path, block, name)
            if name == "clip_id":
                hashes.append(np.array([hash(text) for text in texts]))
            if name in ("clip_id", "gloss"):
                is_named &= all(texts)
    for name in ("fps", "aspect"):
        for first_row, block in rows.blocks(name):
            read_numbers(rows.path, block, name, bad, first_row)
    if not is_named or len(np.unique(np.concatenate(hashes))) < rows.num_rows:
        _check_names(_all_texts(rows, "clip_id"), _all_texts(rows, "gloss"), bad)


def _all_texts(rows: ParquetRows, name: str) -> list[str | None]:
    return [text for _, block in rows.blocks(name) for text in read_texts(rows.path, block, name)]


def _check_all_landmarks(rows: ParquetRows, bad: BadClips) -> int:
    """Go through all landmarks, and count those of good clips that have only one coordinate."""
    num_halves = 0
    for first_row, block in rows.blocks("n_frames", "landmarks"):
        flat = read_landmarks(rows.path, block)
        _check_landmarks(flat, read_counts(rows.path, block), bad, first_row)
        is_good = np.array([first_row + row not in bad.rows for row in range(block.num_rows)])
        kept = flat.values[np.repeat(is_good, np.maximum(flat.lengths, 0))]
        num_halves += int(_is_half(kept.reshape(-1, skeleton.NUM_LANDMARKS, 2)).sum())
    return num_halves


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


def _check_landmarks(
    flat: FlatLandmarks, counts: Sequence[Any], bad: BadClips, first_row: int
) -> None:
    """Every list has n_frames x 54 x 2 finite numbers or nan, and they are not all nan."""
    is_inf, is_nan = np.isinf(flat.values), np.isnan(flat.values)
    ends = np.cumsum(np.maximum(flat.lengths, 0))
    for row, (end, length, count) in enumerate(
        zip(ends.tolist(), flat.lengths.tolist(), counts, strict=True), first_row
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


def _is_half(frames: Float32[np.ndarray, "F 54 2"]) -> Bool[np.ndarray, "F 54"]:
    """Whether only one of x and y is known."""
    return np.isnan(frames[..., 0]) != np.isnan(frames[..., 1])
