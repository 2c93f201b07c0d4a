"""Clips from the CSV layout of SPOTER, WLASL and the published SiFormer: one row a clip.

A row is counted from 0 in clip ids (`<file stem>:<row>`) and from 1 in messages, as a person does;
neither counts the header.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from jaxtyping import Float, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.cleaning import clean_frames, neck_between_shoulders
from slrctl.core.data.readers.labels import glosses_of, read_gloss_names
from slrctl.core.data.readers.number_lists import parse_lists
from slrctl.core.data.readers.reading import BadClips, Reading, count_of, quote, some_of
from slrctl.errors import DataError
from slrctl.settings import DataSettings

# Several rows (204 frames x 108 columns take half a megabyte), yet small enough for the memory of
# one block to serve the next: fresh memory costs as much time as the parsing.
_BLOCK_BYTES = 1 << 22
_LARGEST_BLOCK_BYTES = (1 << 31) - 1
# Each column takes room of its own, thousands of times that of its comma in the header.
_MOST_COLUMNS = 5_000
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
InvalidRowHandler = Callable[[arrow_csv.InvalidRow], str]


@dataclass(frozen=True)
class CellTable:
    """The header, and the cells below it as blocks of rows.

    `blocks` hold one binary column per name in `header`, named "0", "1", ... since a header may
    repeat a name. `rows` says which row of the file, from 0, each row of the blocks is.
    """

    header: tuple[str, ...]
    blocks: list[pa.RecordBatch]
    rows: Int64[np.ndarray, " R"]
    num_rows: int


def read_cells(path: Path, bad: BadClips) -> CellTable:
    """Read the table of a CSV file; rows with a wrong number of cells are noted in `bad`.

    Raises:
        DataError: the file is empty, is not UTF-8 text, or has no row below its header.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    _check_text(path, content)
    header, start = _header(path, content)
    body = pa.py_buffer(content).slice(start)
    # The first bytes settle it for most files, without a copy of them all.
    if not (content[start : start + 4096].strip() or content[start:].strip()):
        raise DataError(f"{path}: has a header but no row below it; expected one row for each clip")
    table, broken = _split(path, body, len(header))
    num_rows = table.num_rows + len(broken)
    for row, num_cells in broken.items():
        bad.add(
            row,
            "wrong number of cells",
            f"has {num_cells} cells, expected {len(header)} as in the header; "
            "the row is cut off, or a list stands there without quotes",
        )
    rows = np.array([row for row in range(num_rows) if row not in broken], dtype=np.int64)
    return CellTable(header, table.to_batches(), rows, num_rows)


def _check_text(path: Path, content: bytes) -> None:
    if not content or content.isspace():
        raise DataError(f"{path}: is empty; expected a header and one row for each clip")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: is UTF-16 text, expected UTF-8; save it again as UTF-8")
    if (zero := content.find(b"\0")) >= 0:
        raise DataError(
            f"{path}: line {_line(content, zero)}: found a null byte, expected UTF-8 text; "
            "the file is damaged or in another encoding, save or fetch it again"
        )
    if content.isascii():
        return
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: line {_line(content, error.start)}: found byte "
            f"0x{content[error.start]:02x}, which is not UTF-8 (Latin-1?); save it again as UTF-8"
        ) from error


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _header(path: Path, content: bytes) -> tuple[tuple[str, ...], int]:
    """The column names, and where the line after them starts."""
    start = len(_BYTE_ORDER_MARK) if content.startswith(_BYTE_ORDER_MARK) else 0
    start += len(content[start : start + 4096]) - len(content[start : start + 4096].lstrip())
    ends = [end for end in (content.find(b"\n", start), content.find(b"\r", start)) if end >= 0]
    end = min(ends, default=len(content))
    text = content[start:end].decode()
    try:
        names = next(csv.reader([text]))
    except csv.Error as error:  # a first line of over 128 KiB in one pair of quotes
        raise DataError(
            f"{path}: line 1: expected a header with column names, found a cell of more than "
            "131,072 characters; put the header back"
        ) from error
    if len(names) > _MOST_COLUMNS:
        raise DataError(
            f"{path}: line 1: found {len(names):,} cells, expected a header of about 110; "
            "put the header back"
        )
    return tuple(name.strip() for name in names), end


def _split(path: Path, body: pa.Buffer, num_columns: int) -> tuple[pa.Table, dict[int, int]]:
    """The cells, and the number of cells of each row that has too few or too many."""
    try:
        return _read_csv(body, num_columns, None), {}
    except pa.ArrowInvalid:
        broken: dict[int, int] = {}

        def leave_out(row: arrow_csv.InvalidRow) -> str:
            broken[row.number - 1] = row.actual_columns
            return "skip"

    try:
        return _read_csv(body, num_columns, leave_out), broken
    except pa.ArrowInvalid as error:
        reason = str(error).splitlines()[0][:120]
        raise DataError(
            f"{path}: cannot be split into rows and cells ({reason}); "
            "look for a quotation mark that is never closed"
        ) from error


def _largest_block(body: pa.Buffer) -> int:
    return min(body.size, _LARGEST_BLOCK_BYTES)


def _read_csv(
    body: pa.Buffer, num_columns: int, on_invalid_row: InvalidRowHandler | None
) -> pa.Table:
    names = [str(index) for index in range(num_columns)]
    return arrow_csv.read_csv(
        pa.BufferReader(body),
        read_options=arrow_csv.ReadOptions(
            column_names=names,
            # The second attempt, after a failure, takes rows of any length.
            block_size=_BLOCK_BYTES if on_invalid_row is None else _largest_block(body),
            # Arrow's threads may drop the last hold on `body` while Python shuts down, which aborts
            # the process; and only a single thread knows the number of a row.
            use_threads=False,
        ),
        parse_options=arrow_csv.ParseOptions(
            newlines_in_values=True, invalid_row_handler=on_invalid_row
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()),
            null_values=[],
            strings_can_be_null=False,
        ),
    )


LABELS, FPS, WIDTH, HEIGHT = "labels", "video_fps", "video_size_width", "video_size_height"
_EXPECTED = (
    "expected <landmark>_X and <landmark>_Y, such as nose_X for the body and wrist_left_X, "
    "wrist_right_X (or wrist_0_X, wrist_1_X) for the hands"
)


class SpoterColumns(NamedTuple):
    """Positions of columns in the header; None where the file has none.

    `coordinates` has a position for each x and y, in the order of the landmarks; those of the neck
    are left out if the file has no neck, and `landmarks` says which landmarks they belong to.
    """

    labels: int
    coordinates: list[int]
    landmarks: list[int]
    fps: int | None
    width: int | None
    height: int | None
    ignored: list[str]

    @property
    def has_neck(self) -> bool:
        return skeleton.NECK in self.landmarks


def is_spoter_header(header: Sequence[str]) -> bool:
    """Whether a header names at least one of the layout's coordinates."""
    known = {spelling for name in skeleton.LANDMARK_NAMES for spelling in _spellings(name, "X")}
    return not known.isdisjoint(header)


def find_columns(path: Path, header: Sequence[str]) -> SpoterColumns:
    """Find every column we read.

    Raises:
        DataError: a column is missing, or stands in the header twice.
    """
    positions = {name: index for index, name in enumerate(header)}
    has_neck = any(name in positions for name in ("neck_X", "neck_Y"))
    landmarks = [
        index for index in range(skeleton.NUM_LANDMARKS) if has_neck or index != skeleton.NECK
    ]
    wanted = [(skeleton.LANDMARK_NAMES[index], axis) for index in landmarks for axis in "XY"]
    found = [
        [name for name in _spellings(landmark, axis) if name in positions]
        for landmark, axis in wanted
    ]
    _check_complete(path, header, wanted, found)
    _check_unique(path, header, found)
    names = [spellings[0] for spellings in found]
    used = {*names, LABELS, FPS, WIDTH, HEIGHT}
    return SpoterColumns(
        labels=positions[LABELS],
        coordinates=[positions[name] for name in names],
        landmarks=landmarks,
        fps=positions.get(FPS),
        width=positions.get(WIDTH),
        height=positions.get(HEIGHT),
        ignored=[name for name in header if name not in used],
    )


def _spellings(landmark: str, axis: str) -> list[str]:
    """The names a coordinate's column may have: `wrist_left_X` is also written `wrist_0_X`."""
    name, _, side = landmark.partition("_")
    if not side:
        return [f"{name}_{axis}"]
    return [f"{landmark}_{axis}", f"{name}_{'0' if side == 'left' else '1'}_{axis}"]


def _check_complete(
    path: Path,
    header: Sequence[str],
    wanted: Sequence[tuple[str, str]],
    found: Sequence[Sequence[str]],
) -> None:
    if not any(found):
        raise DataError(
            f"{path}: has no column with landmarks: found {some_of(list(header), 4)}; "
            f"{_EXPECTED}, and a column 'labels', separated by commas"
        )
    if LABELS not in header:
        raise DataError(
            f"{path}: column 'labels' is missing; expected the class of each clip as an integer, "
            "add it to the file"
        )
    missing = [
        f"{landmark}_{axis}"
        for (landmark, axis), names in zip(wanted, found, strict=True)
        if not names
    ]
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: column {missing[0]!r} is missing{others}: found "
            f"{count_of(len(wanted) - len(missing), 'column')} of {len(wanted)}; {_EXPECTED}"
        )


def _check_unique(path: Path, header: Sequence[str], found: Sequence[Sequence[str]]) -> None:
    for names in found:
        if len(names) > 1:
            raise DataError(
                f"{path}: columns {names[0]!r} and {names[1]!r} are the same landmark; "
                "remove one of them"
            )
    counts = Counter(header)
    used = [names[0] for names in found] + [LABELS, FPS, WIDTH, HEIGHT]
    for name in used:
        if counts[name] > 1:
            raise DataError(
                f"{path}: column {name!r} stands in the header {counts[name]} times; keep one"
            )


def _column(table: CellTable, position: int) -> Iterator[tuple[int, str]]:
    """The cells of one column as text, each with the row of the file."""
    cells = [cell for block in table.blocks for cell in block.column(position).to_pylist()]
    return zip(table.rows.tolist(), (cell.decode().strip() for cell in cells), strict=True)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_positive_numbers(
    table: CellTable, position: int | None, name: str, bad: BadClips
) -> list[float | None]:
    """A number for each row; None where the column, or the cell in it, is empty, nan or 0."""
    if position is None:
        return [None] * len(table.rows)
    numbers: list[float | None] = []
    for row, text in _column(table, position):
        is_unknown = text.lower() in ("", "nan", "none", "null")
        number = 0.0 if is_unknown else _number(text)
        if not (math.isfinite(number) and number >= 0):
            message = f"found {quote(text)}, expected a positive number, or nothing if unknown"
            bad.add(row, f"bad {name}", message, column=name)
        numbers.append(number or None)
    return numbers


def read_frame_sizes(
    table: CellTable, columns: SpoterColumns, settings: DataSettings, bad: BadClips
) -> Float[np.ndarray, "R 2"]:
    """Width and height of each row's image, from the file, else the settings, else NaN."""
    widths = read_positive_numbers(table, columns.width, WIDTH, bad)
    heights = read_positive_numbers(table, columns.height, HEIGHT, bad)
    default = settings.frame_size or (math.nan, math.nan)
    return np.array(
        [(w, h) if w and h else default for w, h in zip(widths, heights, strict=True)], dtype=float
    )


def _labels(table: CellTable, columns: SpoterColumns, bad: BadClips) -> dict[int, int]:
    """The integer label of each row that has one."""
    labels = {}
    for row, text in _column(table, columns.labels):
        number = _number(text)
        if math.isfinite(number) and number >= 0 and number == int(number):
            labels[row] = int(number)
        else:
            message = f"found {quote(text)}, expected a whole number from 0 up"
            bad.add(row, "label that is no integer", message, column=LABELS)
    return labels


def read_glosses(
    table: CellTable,
    columns: SpoterColumns,
    settings: DataSettings,
    classes: Sequence[str] | None,
    bad: BadClips,
) -> tuple[dict[int, str], str]:
    """The gloss of each row that has one, and a note on what the labels count from."""
    names = None if settings.gloss_names is None else read_gloss_names(settings.gloss_names)
    labels = _labels(table, columns, bad)
    found, note = glosses_of(list(labels.values()), names, classes)
    glosses = {}
    for (row, label), gloss in zip(labels.items(), found, strict=True):
        if gloss is not None:
            glosses[row] = gloss
            continue
        message = (
            f"found {label}, which {settings.gloss_names} does not name; "
            "expected a name for every integer of the training file"
        )
        bad.add(row, "label without a name", message, column=LABELS)
    return glosses, note


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
