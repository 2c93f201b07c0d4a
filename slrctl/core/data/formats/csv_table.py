"""Split a CSV file into cells of raw bytes, row by row, and say exactly what is wrong with it.

The cells stay bytes: a landmark file is lists of numbers, and turning megabytes of them into
Python strings first would cost more than reading the numbers.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from jaxtyping import Int64

from slrctl.core.data.formats.reading import BadClips
from slrctl.errors import DataError

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
