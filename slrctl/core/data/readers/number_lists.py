"""Read a single list of numbers in a cell: slower than a block of them, but exact about faults."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from jaxtyping import Float32, Int64

from slrctl.core.data.readers.reading import quote

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)
_NUMPY_SCALAR = re.compile(rb"np\.float\d+\(([^()]*)\)")
_EXAMPLE = "a list with one number a frame, such as [0.5, 0.51]"


def as_plain_lists(column: pa.Array) -> pa.Array:
    """Rewrite what numpy and Python print for a list of numbers into the plain form."""
    return pa.array([_as_plain_list(cell) for cell in column.to_pylist()], pa.binary())


def _as_plain_list(cell: bytes) -> bytes:
    cell = _NUMPY_SCALAR.sub(rb"\1", cell.strip()) if b"np.float" in cell else cell.strip()
    cell = cell.replace(b"None", b"nan").replace(b"null", b"nan")
    if b"," in cell or not (cell.startswith(b"[") and cell.endswith(b"]")):
        return cell
    return b"[" + b", ".join(cell[1:-1].split()) + b"]"


def parse_cell(cell: bytes) -> Float32[np.ndarray, " N"] | tuple[str, str]:
    """The numbers of one list, or the tally word and the story of what is wrong with it."""
    text = cell.strip()
    if not text:
        return "empty cell", f"found an empty cell, expected {_EXAMPLE}"
    if not (text.startswith(b"[") and text.endswith(b"]")):
        return "cell without a list", f"found {quote(cell)}, expected {_EXAMPLE}"
    inside = text[1:-1]
    if not inside.strip():
        return "empty list", f"found an empty list, expected {_EXAMPLE}"
    words = [word.strip() for word in inside.split(b",")]
    for place, word in enumerate(words):
        if not _NUMBER.fullmatch(word):
            return (
                "non-numeric cell",
                f"found {quote(word)} as number {place + 1} of the list, expected a number",
            )
    with np.errstate(over="ignore"):  # found and reported as infinite
        return np.array([float(word) for word in words]).astype(np.float32)


_LIST_TO_LINES = bytes.maketrans(b"[,]", b" \n\n")
_PARSE_BYTES = 1 << 20


class CellProblem(NamedTuple):
    """A list that cannot be read: its row in the block, its column, the tally word, the story."""

    row: int
    column: int
    kind: str
    message: str


class NumberBlock(NamedTuple):
    """The numbers of the good rows, one line a column, and how many each row has (0 if bad)."""

    values: Float32[np.ndarray, "N F"]
    lengths: Int64[np.ndarray, " R"]
    problems: list[CellProblem]


def parse_lists(columns: Sequence[pa.Array], names: Sequence[str]) -> NumberBlock:
    """Read a block of cells, each a list such as `[0.5, nan, 0.51]`.

    Lists as numpy prints them (no commas, `np.float64(0.5)`) and `None` for `nan` are read too.

    Args:
        columns: binary arrays of one length, a cell for each row.
        names: their names, for the messages.
    """
    parsed = _parse_together(columns)
    if parsed is None:
        columns = [as_plain_lists(column) for column in columns]
        parsed = _parse_together(columns)
    block = _parse_apart(columns, names) if parsed is None else NumberBlock(*parsed, [])
    return _without_infinite(block, columns) if np.isinf(block.values).any() else block


def _cells(column: pa.Array) -> tuple[memoryview, Int64[np.ndarray, "..."]]:
    """The bytes of all cells in one piece, and where each cell starts and the last one ends."""
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(column) + 1, column.offset * 4)
    text = memoryview(data or b"")[offsets[0] : offsets[-1]]
    return text, (offsets - offsets[0]).astype(np.int64)


def _parse_together(
    columns: Sequence[pa.Array],
) -> tuple[Float32[np.ndarray, "N F"], Int64[np.ndarray, " R"]] | None:
    """Read all columns in one go; None where a cell or a length is not as it should be."""
    texts, offsets = zip(*(_cells(column) for column in columns), strict=True)
    joined = b"".join(texts)
    num_cells = sum(len(column) for column in columns)
    shifts = np.cumsum([0, *(len(text) for text in texts[:-1])])
    starts = np.concatenate([offset[:-1] + s for offset, s in zip(offsets, shifts, strict=True)])
    ends = np.concatenate([offset[1:] + s for offset, s in zip(offsets, shifts, strict=True)])
    letters = np.frombuffer(joined, np.uint8)
    if not (
        (ends - starts).min(initial=2) >= 2
        # A second "]" in a cell ends a line too many, which the lengths would show.
        and joined.count(b"[") == num_cells
        and (letters[starts] == ord("[")).all()
        and (letters[ends - 1] == ord("]")).all()
    ):
        return None
    commas = (letters == ord(",")).view(np.uint8)
    lengths = 1 + np.add.reduceat(commas, starts, dtype=np.int32).reshape(len(columns), -1)
    if (lengths != lengths[0]).any():
        return None
    values = _parse_lines(joined.translate(_LIST_TO_LINES))
    if values is None or len(values) != lengths.sum():
        return None
    return values.reshape(len(columns), -1), lengths[0].astype(np.int64)


def _parse_lines(lines: bytes) -> Float32[np.ndarray, " N"] | None:
    """One number a line; None if a line holds anything else."""
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(lines),
            # One thread, for the reason given beside `csv_table._read_csv`.
            read_options=arrow_csv.ReadOptions(
                column_names=["v"], block_size=_PARSE_BYTES, use_threads=False
            ),
            parse_options=arrow_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types={"v": pa.float32()}, null_values=[]
            ),
        )
    except pa.ArrowInvalid:
        return None
    chunks = table.column("v").chunks
    # Arrow's own conversion would load pandas, which takes longer than most files.
    arrays = [
        np.frombuffer(chunk.buffers()[1], np.float32, len(chunk), 4 * chunk.offset)
        for chunk in chunks
    ]
    return np.concatenate([np.zeros(0, np.float32), *arrays])


def _parse_apart(columns: Sequence[pa.Array], names: Sequence[str]) -> NumberBlock:
    """Read column by column, and cell by cell where a column is irregular."""
    num_rows = len(columns[0])
    problems: list[CellProblem] = []
    values, lengths = [], np.zeros((len(columns), num_rows), dtype=np.int64)
    for index, column in enumerate(columns):
        parsed = _parse_together([column])
        if parsed is None:
            cells = [parse_cell(cell) for cell in column.to_pylist()]
            problems += [
                CellProblem(row, index, *cell)
                for row, cell in enumerate(cells)
                if isinstance(cell, tuple)
            ]
            lists = [np.zeros(0, np.float32) if isinstance(c, tuple) else c for c in cells]
            parsed = np.concatenate(lists)[None], np.array([len(numbers) for numbers in lists])
        values.append(parsed[0][0])
        lengths[index] = parsed[1]
    problems += _unequal_lengths(lengths, names, {problem.row for problem in problems})
    is_good = np.ones(num_rows, dtype=bool)
    is_good[[problem.row for problem in problems]] = False
    kept = [v[np.repeat(is_good, n)] for v, n in zip(values, lengths, strict=True)]
    return NumberBlock(np.stack(kept), np.where(is_good, lengths[0], 0), sorted(problems))


def _unequal_lengths(
    lengths: Int64[np.ndarray, "N R"], names: Sequence[str], known: set[int]
) -> list[CellProblem]:
    problems = []
    for row in np.flatnonzero((lengths != lengths[0]).any(axis=0)).tolist():
        if row in known:
            continue
        counts = np.bincount(lengths[:, row])
        usual = int(counts.argmax())
        odd = int(np.flatnonzero(lengths[:, row] != usual)[0])
        like = int(np.flatnonzero(lengths[:, row] == usual)[0])
        message = (
            f"found a list of {lengths[odd, row]} numbers, expected {usual} "
            f"as in column {names[like]!r}; all lists of a row have one number a frame"
        )
        problems.append(CellProblem(row, odd, "unequal list lengths", message))
    return problems


def _without_infinite(block: NumberBlock, columns: Sequence[pa.Array]) -> NumberBlock:
    """Take out the rows with infinite numbers and say where they are."""
    row_of_frame = np.repeat(np.arange(len(block.lengths)), block.lengths)
    starts = np.cumsum(block.lengths) - block.lengths
    problems, is_good = list(block.problems), np.ones(len(block.lengths), dtype=bool)
    for column, frame in np.argwhere(np.isinf(block.values)).tolist():
        row = int(row_of_frame[frame])
        if not is_good[row]:
            continue
        is_good[row] = False
        place = frame - int(starts[row])
        words = re.split(rb"[,\s]+", columns[column][row].as_py().strip(b"[] "))
        message = f"found {quote(words[place])} in frame {place + 1}, expected a finite number"
        problems.append(CellProblem(row, column, "inf", message))
    kept = block.values[:, is_good[row_of_frame]]
    return NumberBlock(kept, np.where(is_good, block.lengths, 0), sorted(problems))
