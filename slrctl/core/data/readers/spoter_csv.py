"""Clips from the CSV layout of SPOTER, WLASL and the published SiFormer: one row a clip.

A row is counted from 0 in clip ids (`<file stem>:<row>`) and from 1 in messages, as a person does;
neither counts the header.
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from jaxtyping import Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import (
    clean_frames,
    glosses_of,
    neck_between_shoulders,
    read_gloss_names,
)
from slrctl.core.data.readers.number_lists import parse_lists
from slrctl.core.data.readers.reading import ClipProblem, Findings, Reading
from slrctl.errors import DataError, count_of, quote, some_of
from slrctl.settings import DataSettings

LABELS, FPS, WIDTH, HEIGHT = "labels", "video_fps", "video_size_width", "video_size_height"
_EXPECTED = (
    "expected <landmark>_X and <landmark>_Y, such as nose_X for the body and wrist_left_X, "
    "wrist_right_X (or wrist_0_X, wrist_1_X) for the hands"
)
# Several rows (204 frames x 108 columns take half a megabyte), yet small enough for the memory of
# one block to serve the next: fresh memory costs as much time as the parsing.
_BLOCK_BYTES = 1 << 22
_LARGEST_BLOCK_BYTES = (1 << 31) - 1
# Each column takes room of its own, thousands of times that of its comma in the header.
_MOST_COLUMNS = 5_000
_HEADER_BYTES = 1 << 16
_FIRST_LINE = re.compile(rb"(?:\xef\xbb\xbf)?\s*([^\r\n]*)")
_CONTENT = re.compile(rb"\s*\S")


@dataclass(frozen=True)
class _Table:
    """The header, and the cells below it as blocks of rows.

    `blocks` have one binary column per name in `header`. `rows` holds the row of the file, from 0,
    of each row of the blocks.
    """

    header: list[str]
    blocks: list[pa.RecordBatch]
    rows: Int64[np.ndarray, " R"]
    num_rows: int

    def column(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the cells of one column as text, each with the row of the file."""
        position = self.header.index(name)
        cells = [cell for block in self.blocks for cell in block.column(position).to_pylist()]
        return zip(self.rows.tolist(), (cell.decode().strip() for cell in cells), strict=True)


def _common_spelling(name: str) -> str:
    """Write `wrist_0_X` as `wrist_left_X`, `wrist_1_X` as `wrist_right_X`."""
    return name.strip().replace("_0_", "_left_").replace("_1_", "_right_")


def _coordinates(landmark: str) -> tuple[str, str]:
    return f"{landmark}_X", f"{landmark}_Y"


def _check_text(path: Path, content: bytes) -> None:
    if not _CONTENT.match(content):
        raise DataError(f"{path}: is empty; expected a header and one row for each clip")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16 text, expected UTF-8; save it again as UTF-8")
    place = content.find(b"\0")
    if place < 0 and not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            place = error.start
    if place >= 0:
        line = content.count(b"\n", 0, place) + 1
        raise DataError(
            f"{path}: line {line}: found byte 0x{content[place]:02x}, which is no UTF-8 text "
            "(Latin-1, or damage?); save it again as UTF-8"
        )


def _split(path: Path, body: pa.Buffer, num_columns: int, broken: dict[int, int]) -> pa.Table:
    """Split the rows; those with a wrong number of cells are left out and counted in `broken`."""

    def leave_out(row: arrow_csv.InvalidRow) -> str:
        broken[row.number - 1] = row.actual_columns
        return "skip"

    def split(block_bytes: int) -> pa.Table:
        broken.clear()
        # The header may repeat a name, so the columns are called "0", "1", ...
        names = [str(index) for index in range(num_columns)]
        return arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(
                column_names=names,
                block_size=block_bytes,
                # Arrow's threads may drop the last hold on `body` while Python shuts down, which
                # aborts the process; and only a single thread knows the number of a row.
                use_threads=False,
            ),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, invalid_row_handler=leave_out
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                null_values=[],
                strings_can_be_null=False,
            ),
        )

    try:
        return split(_BLOCK_BYTES)
    except pa.ArrowInvalid:  # a row longer than a block, perhaps
        pass
    try:
        return split(min(body.size, _LARGEST_BLOCK_BYTES))
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0][:120]
        raise DataError(
            f"{path}: cannot be split into rows and cells ({reason}); "
            "look for a quotation mark that is never closed"
        ) from error


def _read_table(path: Path, content: bytes, findings: Findings) -> _Table:
    """Split the file into cells; rows with a wrong number of cells are noted in `findings`."""
    first = next(_FIRST_LINE.finditer(content))
    try:
        header = [name.strip() for name in next(csv.reader([first[1].decode()]))]
    except csv.Error:  # one pair of quotes around more than 128 KiB
        header = []
    if not 0 < len(header) <= _MOST_COLUMNS:
        raise DataError(f"{path}: line 1: found no header of about 110 names; put the header back")
    if not _CONTENT.match(content, first.end()):
        raise DataError(f"{path}: has a header but no row below it; expected one row for each clip")
    broken: dict[int, int] = {}
    table = _split(path, pa.py_buffer(content).slice(first.end()), len(header), broken)
    num_rows = table.num_rows + len(broken)
    for row, num_cells in broken.items():
        message = (
            f"has {num_cells} cells, expected {len(header)} as in the header; "
            "the row is cut off, or a list stands there without quotes"
        )
        findings.add(row, ClipProblem("wrong number of cells", message))
    rows = np.array([row for row in range(num_rows) if row not in broken], dtype=np.int64)
    return _Table(header, table.to_batches(), rows, num_rows)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _positive_numbers(table: _Table, name: str, findings: Findings) -> list[float | None]:
    """Read a number for each row; None where the column, or the cell in it, is empty, nan or 0."""
    if name not in table.header:
        return [None] * len(table.rows)
    numbers: list[float | None] = []
    for row, text in table.column(name):
        is_unknown = text.lower() in ("", "nan", "none", "null")
        number = 0.0 if is_unknown else _number(text)
        if not (math.isfinite(number) and number >= 0):
            message = f"found {quote(text)}, expected a positive number, or nothing if unknown"
            findings.add(row, ClipProblem(f"bad {name}", message, column=name))
        numbers.append(number or None)
    return numbers


def _frame_sizes(
    table: _Table, settings: DataSettings, findings: Findings
) -> Float[np.ndarray, "R 2"]:
    """Width and height of each row's image, from the file, else the settings, else NaN."""
    widths = _positive_numbers(table, WIDTH, findings)
    heights = _positive_numbers(table, HEIGHT, findings)
    default = settings.frame_size or (math.nan, math.nan)
    return np.array(
        [(w, h) if w and h else default for w, h in zip(widths, heights, strict=True)], dtype=float
    )


def _glosses(
    table: _Table, settings: DataSettings, classes: Sequence[str] | None, findings: Findings
) -> tuple[dict[int, str], str]:
    """Read the gloss of each row that has one, with a note on the base of the labels."""
    labels: dict[int, int] = {}
    for row, text in table.column(LABELS):
        number = _number(text)
        if math.isfinite(number) and number >= 0 and number == int(number):
            labels[row] = int(number)
        else:
            message = f"found {quote(text)}, expected a whole number from 0 up"
            findings.add(row, ClipProblem("label that is no integer", message, column=LABELS))
    names = None if settings.gloss_names is None else read_gloss_names(settings.gloss_names)
    found, note = glosses_of(list(labels.values()), names, classes)
    glosses: dict[int, str] = {}
    for (row, label), gloss in zip(labels.items(), found, strict=True):
        if gloss is not None:
            glosses[row] = gloss
            continue
        message = (
            f"found {label}, which {settings.gloss_names} does not name; "
            "expected a name for every integer of the training file"
        )
        findings.add(row, ClipProblem("label without a name", message, column=LABELS))
    return glosses, note


def _frames(
    table: _Table, landmarks: dict[int, list[int]], findings: Findings
) -> tuple[Float32[np.ndarray, "F 54 2"], Int64[np.ndarray, " R"]]:
    """Parse the coordinates of all rows, concatenated, and the frames of each row (0 if bad)."""
    positions = [position for pair in landmarks.values() for position in pair]
    names = [table.header[position] for position in positions]
    rows = iter(table.rows.tolist())
    frames, lengths = [], []
    for block in table.blocks:
        numbers = parse_lists([block.column(position) for position in positions], names)
        block_frames = np.zeros((numbers.values.shape[1], skeleton.NUM_LANDMARKS, 2), np.float32)
        coordinates = numbers.values.reshape(len(landmarks), 2, -1)
        block_frames[:, list(landmarks)] = coordinates.transpose(2, 0, 1)
        frames.append(block_frames)
        lengths.append(numbers.lengths)
        clips = np.split(block_frames, np.cumsum(numbers.lengths)[:-1])
        for index, (clip, row) in enumerate(zip(clips, rows, strict=False)):
            if index in numbers.problems:
                findings.add(row, numbers.problems[index])
            elif not ((clip != 0) & ~np.isnan(clip)).any():
                message = (
                    f"none of its {len(clip)} frames has a landmark (all are 0 or nan); "
                    "expected at least one"
                )
                findings.add(row, ClipProblem("no usable frame", message))
    return np.concatenate(frames), np.concatenate(lengths)


def _find_columns(path: Path, header: list[str]) -> tuple[dict[int, list[int]], list[str]]:
    """Find the positions of x and y of each landmark in the file, and the columns not read.

    Raises:
        DataError: a column is missing, or occurs twice.
    """
    spellings = [_common_spelling(name) for name in header]
    has_neck = not {"neck_X", "neck_Y"}.isdisjoint(spellings)
    landmarks = {
        index: _coordinates(name)
        for index, name in enumerate(skeleton.LANDMARK_NAMES)
        if has_neck or index != skeleton.NECK
    }
    wanted = [name for names in landmarks.values() for name in names]
    missing = [name for name in wanted if name not in spellings]
    if len(missing) == len(wanted):
        raise DataError(
            f"{path}: has no column with landmarks: found {some_of(header, 4)}; "
            f"{_EXPECTED}, and a column 'labels', separated by commas"
        )
    if LABELS not in header:
        raise DataError(
            f"{path}: column 'labels' is missing; expected the class of each clip as an integer, "
            "add it to the file"
        )
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: column {missing[0]!r} is missing{others}: found "
            f"{count_of(len(wanted) - len(missing), 'column')} of {len(wanted)}; {_EXPECTED}"
        )
    used = {*wanted, LABELS, FPS, WIDTH, HEIGHT}
    twice = next((name for name, n in Counter(spellings).items() if n > 1 and name in used), None)
    if twice is not None:
        same = [name for name in header if _common_spelling(name) == twice]
        raise DataError(f"{path}: the columns {some_of(same)} hold the same; keep one of them")
    ignored = [
        name for name, spelling in zip(header, spellings, strict=True) if spelling not in used
    ]
    return {
        index: [spellings.index(name) for name in names] for index, names in landmarks.items()
    }, ignored


def recognises(path: Path) -> bool:
    """True if the first line names coordinates in this layout."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        lines = file.read(_HEADER_BYTES).decode("utf-8-sig", "replace").strip().splitlines()
    names = next(csv.reader(lines[:1]), []) if lines and len(lines[0]) < _HEADER_BYTES else []
    known = {name for landmark in skeleton.LANDMARK_NAMES for name in _coordinates(landmark)}
    return not known.isdisjoint(map(_common_spelling, names))


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Read every clip of the file.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    findings = Findings(path)
    content = path.read_bytes()
    _check_text(path, content)
    table = _read_table(path, content, findings)
    landmarks, ignored = _find_columns(path, table.header)
    if not table.blocks:  # no row can be split into cells: this raises
        findings.settle(table.num_rows, skip=settings.skip_bad_clips)
    glosses, label_note = _glosses(table, settings, classes, findings)
    frames, lengths = _frames(table, landmarks, findings)
    sizes = _frame_sizes(table, settings, findings)
    fps = _positive_numbers(table, FPS, findings)
    notes, dropped = findings.settle(table.num_rows, skip=settings.skip_bad_clips)

    # Orientation and units are decided on the good clips alone.
    is_good = np.array([row not in findings.bad for row in table.rows.tolist()])
    frames, lengths = frames[np.repeat(is_good, lengths)], lengths[is_good]
    frames, lengths, cleaning_notes = clean_frames(frames, lengths, sizes[is_good])
    notes += [label_note, *cleaning_notes]
    if np.isnan(frames[:, skeleton.NECK]).all():
        neck_between_shoulders(frames)
        notes.append("no neck in the file: the midpoint of the shoulders is taken")
    if ignored:
        notes.append(f"{count_of(len(ignored), 'column')} not read: {some_of(ignored)}")

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
