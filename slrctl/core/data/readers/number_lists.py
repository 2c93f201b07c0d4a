"""Lists of numbers in the cells of a CSV, parsed in blocks by Arrow's CSV reader.

A block of regular lists is turned into one number a line and parsed at once, 26 times faster than
`ast.literal_eval`. A block with an irregular cell is parsed cell by cell, to name the fault.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from jaxtyping import Float32, Int64

from slrctl.core.data.readers.reading import ClipProblem
from slrctl.errors import quote

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I)
_NUMPY_SCALAR = re.compile(rb"np\.float\d+\(([^()]*)\)")
_EXAMPLE = "a list with one number a frame, such as [0.5, 0.51]"
_LIST_TO_LINES = bytes.maketrans(b"[,]", b" \n\n")
_PARSE_BYTES = 1 << 20


class NumberBlock(NamedTuple):
    """The numbers of the good rows, one line a column, the count of each row (0 if bad), faults."""

    values: Float32[np.ndarray, "N F"]
    lengths: Int64[np.ndarray, " R"]
    problems: dict[int, ClipProblem]


def _as_plain_list(cell: bytes) -> bytes:
    """Rewrite a list as numpy or Python prints it into the plain form."""
    cell = _NUMPY_SCALAR.sub(rb"\1", cell.strip()) if b"np.float" in cell else cell.strip()
    cell = cell.replace(b"None", b"nan").replace(b"null", b"nan")
    if b"," in cell or not (cell.startswith(b"[") and cell.endswith(b"]")):
        return cell
    return b"[" + b", ".join(cell[1:-1].split()) + b"]"


def _bytes_of(column: pa.Array) -> tuple[memoryview, Int64[np.ndarray, "..."]]:
    """Return the bytes of all cells in one piece, and the offsets of the cells within them."""
    _, offset_buffer, data = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(column) + 1, column.offset * 4)
    text = memoryview(data or b"")[offsets[0] : offsets[-1]]
    return text, (offsets - offsets[0]).astype(np.int64)


def _parse_lines(lines: bytes) -> Float32[np.ndarray, " N"] | None:
    """Parse one number a line; None if a line holds anything else."""
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(lines),
            # One thread, for the reason given beside `spoter_csv._split`.
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
    # `from_dlpack`, because Arrow's own `to_numpy` would load pandas, which takes longer than
    # most files.
    chunks = [np.from_dlpack(chunk) for chunk in table.column("v").chunks]
    return np.concatenate([np.zeros(0, np.float32), *chunks])


def _parse_together(columns: Sequence[pa.Array]) -> NumberBlock | None:
    """Parse all columns at once; None where a cell or a length is irregular."""
    texts, offsets = zip(*(_bytes_of(column) for column in columns), strict=True)
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
    return NumberBlock(values.reshape(len(columns), -1), lengths[0].astype(np.int64), {})


def _words_of(cell: bytes, name: str) -> list[bytes]:
    """Split one list into its numbers, still as text."""
    text = cell.strip()
    if not text:
        raise ClipProblem("empty cell", f"found an empty cell, expected {_EXAMPLE}", column=name)
    if not (text.startswith(b"[") and text.endswith(b"]")):
        raise ClipProblem(
            "cell without a list", f"found {quote(cell)}, expected {_EXAMPLE}", column=name
        )
    if not text[1:-1].strip():
        raise ClipProblem("empty list", f"found an empty list, expected {_EXAMPLE}", column=name)
    words = [word.strip() for word in text[1:-1].split(b",")]
    for place, word in enumerate(words):
        if not _NUMBER.fullmatch(word):
            raise ClipProblem(
                "non-numeric cell",
                f"found {quote(word)} as number {place + 1} of the list, expected a number",
                column=name,
            )
    return words


def _parse_row(cells: Sequence[bytes], names: Sequence[str]) -> Float32[np.ndarray, "N F"]:
    words = [_words_of(cell, name) for cell, name in zip(cells, names, strict=True)]
    lengths = [len(column) for column in words]
    usual = max(lengths, key=lengths.count)
    for column, length in enumerate(lengths):
        if length != usual:
            raise ClipProblem(
                "unequal list lengths",
                f"found a list of {length} numbers, expected {usual} as in column "
                f"{names[lengths.index(usual)]!r}; all lists of a row have one number a frame",
                column=names[column],
            )
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite and are reported
        numbers = np.array(words, dtype=np.float64).astype(np.float32)
    if np.isinf(numbers).any():
        column, frame = map(int, np.argwhere(np.isinf(numbers))[0])
        raise ClipProblem(
            "inf",
            f"found {quote(words[column][frame])} in frame {frame + 1}, expected a finite number",
            column=names[column],
        )
    return numbers


def _parse_rows(columns: Sequence[pa.Array], names: Sequence[str]) -> NumberBlock:
    """Parse row by row, and note the first problem of each row that has one."""
    rows: list[Float32[np.ndarray, "N F"]] = []
    problems: dict[int, ClipProblem] = {}
    cells_of_rows = zip(*(column.to_pylist() for column in columns), strict=True)
    for row, cells in enumerate(cells_of_rows):
        try:
            rows.append(_parse_row(cells, names))
        except ClipProblem as problem:
            problems[row] = problem
            rows.append(np.zeros((len(columns), 0), np.float32))
    lengths = np.array([numbers.shape[1] for numbers in rows], dtype=np.int64)
    return NumberBlock(np.concatenate(rows, axis=1), lengths, problems)


def parse_lists(columns: Sequence[pa.Array], names: Sequence[str]) -> NumberBlock:
    """Parse a block of cells, each a list such as `[0.5, nan, 0.51]`.

    Lists as numpy prints them (no commas, `np.float64(0.5)`) and `None` for `nan` are accepted.

    Args:
        columns: binary arrays of one length, a cell for each row.
        names: their names, for the messages.
    """
    block = _parse_together(columns)
    if block is None:
        columns = [
            pa.array([_as_plain_list(cell) for cell in column.to_pylist()], pa.binary())
            for column in columns
        ]
        block = _parse_together(columns)
    if block is None or np.isinf(block.values).any():
        return _parse_rows(columns, names)
    return block
