"""Clips from the CSV layout of SPOTER, WLASL and the published SiFormer: one row a clip.

A row is counted from 0 in clip ids (`<file stem>:<row>`) and from 1 in messages, as a person does;
neither counts the header.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.formats.cleaning import clean_frames, neck_between_shoulders
from slrctl.core.data.formats.csv_table import CellTable, read_cells
from slrctl.core.data.formats.number_lists import parse_lists
from slrctl.core.data.formats.reading import BadClips, Reading, count_of, some_of
from slrctl.core.data.formats.spoter_columns import (
    FPS,
    SpoterColumns,
    find_columns,
    is_spoter_header,
)
from slrctl.core.data.formats.spoter_values import (
    read_frame_sizes,
    read_glosses,
    read_positive_numbers,
)
from slrctl.settings import DataSettings

_HEADER_BYTES = 1 << 16


def recognises(path: Path) -> bool:
    """Whether the first line names coordinates in this layout, or the name says CSV."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
    if start.startswith((b"PAR1", b"PK\x03\x04", b"\x1f\x8b")):
        return False
    lines = start.decode("utf-8-sig", "replace").splitlines()
    names = next(csv.reader(lines[:1]), []) if lines and len(lines[0]) < _HEADER_BYTES else []
    is_ours = is_spoter_header([name.strip() for name in names])
    return is_ours or path.suffix.lower() == ".csv"


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip of the file.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    bad = BadClips(path)
    table = read_cells(path, bad)
    columns = find_columns(path, table.header)
    if not table.blocks:  # no row can be split into cells: this raises
        bad.settle(table.num_rows, skip=settings.skip_bad_clips)
    glosses, label_note = read_glosses(table, columns, settings, classes, bad)
    frames, lengths = _frames(table, columns, bad)
    sizes = read_frame_sizes(table, columns, settings, bad)
    fps = read_positive_numbers(table, columns.fps, FPS, bad)
    notes, dropped = bad.settle(table.num_rows, skip=settings.skip_bad_clips)

    # What holds for the whole set is decided on the good clips alone.
    is_good = np.array([row not in bad.rows for row in table.rows.tolist()])
    if not is_good.all():
        frames, lengths = frames[np.repeat(is_good, lengths)], lengths[is_good]
    frames, lengths, cleaning_notes = clean_frames(frames, lengths, sizes[is_good])
    notes += [label_note, *cleaning_notes]
    if np.isnan(frames[:, skeleton.NECK]).all():
        neck_between_shoulders(frames)
        notes.append("no neck in the file: the midpoint of the shoulders is taken")
    if columns.ignored:
        ignored = count_of(len(columns.ignored), "column")
        notes.append(f"{ignored} not read: {some_of(columns.ignored)}")

    clips = [
        Clip(
            clip_id=f"{path.stem}:{table.rows[index]}",
            gloss=glosses[int(table.rows[index])],
            landmarks=landmarks,
            fps=fps[index],
            aspect=1.0 if math.isnan(sizes[index, 0]) else float(sizes[index, 0] / sizes[index, 1]),
        )
        for index, landmarks in zip(
            np.flatnonzero(is_good), np.split(frames, np.cumsum(lengths)[:-1]), strict=True
        )
    ]
    return Reading(clips, notes, dropped)


def _frames(
    table: CellTable, columns: SpoterColumns, bad: BadClips
) -> tuple[Float32[np.ndarray, "F 54 2"], Int64[np.ndarray, " R"]]:
    """The coordinates of all rows behind one another, and the frames of each row (0 if bad)."""
    names = [table.header[position] for position in columns.coordinates]
    frames, lengths, first_row = [], [], 0
    for block in table.blocks:
        cells = [block.column(position) for position in columns.coordinates]
        numbers = parse_lists(cells, names)
        for problem in numbers.problems:
            row = int(table.rows[first_row + problem.row])
            bad.add(row, problem.kind, problem.message, column=names[problem.column])
        first_row += block.num_rows
        block_frames = np.zeros((numbers.values.shape[1], skeleton.NUM_LANDMARKS, 2), np.float32)
        coordinates = numbers.values.reshape(len(columns.landmarks), 2, -1)
        block_frames[:, columns.landmarks] = coordinates.transpose(2, 0, 1)
        frames.append(block_frames)
        lengths.append(numbers.lengths)
    all_frames, all_lengths = np.concatenate(frames), np.concatenate(lengths)
    _note_unused(all_frames, all_lengths, table.rows, bad)
    return all_frames, all_lengths


def _note_unused(
    frames: Float32[np.ndarray, "F 54 2"],
    lengths: Int64[np.ndarray, " R"],
    rows: Int64[np.ndarray, " R"],
    bad: BadClips,
) -> None:
    """Note the clips in which nothing at all was detected."""
    clips = np.split(frames, np.cumsum(lengths)[:-1])
    for row, clip in zip(rows.tolist(), clips, strict=True):
        if len(clip) and not ((clip != 0) & ~np.isnan(clip)).any():
            bad.add(
                row,
                "no usable frame",
                f"none of its {len(clip)} frames has a landmark (all are 0 or nan); "
                "expected at least one",
            )
