"""The columns of our own Parquet: their types, and how lenient we are about them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from slrctl.core.data.formats.parquet_file import (
    UNREADABLE,
    check_unpacked_size,
    open_parquet,
    reason_of,
)
from slrctl.core.data.formats.reading import BadClips, ClipProblem, quote, some_of
from slrctl.errors import DataError

SCHEMA = pa.schema(
    {
        "clip_id": pa.string(),
        "gloss": pa.string(),
        "signer": pa.string(),
        "session": pa.string(),
        "split": pa.string(),
        "fps": pa.float64(),
        "aspect": pa.float64(),
        "n_frames": pa.int32(),
        "landmarks": pa.list_(pa.float32()),
    }
)
_TEXTS = ("clip_id", "gloss", "signer", "session", "split")
_REQUIRED = ("clip_id", "gloss", "n_frames", "landmarks")
# Rows that are unpacked at a time: some 20 MB of landmarks where clips are long.
_ROWS_TOGETHER = 256


class FlatLandmarks(NamedTuple):
    """All coordinates behind one another, and how many each row has; -1 where it has no list."""

    values: Float32[np.ndarray, " N"]
    lengths: Int64[np.ndarray, " R"]


class ParquetRows(NamedTuple):
    """A file with the columns we need, which is unpacked block by block: it may be of any size."""

    path: Path
    names: list[str]
    num_rows: int

    def blocks(self, *names: str) -> Iterator[tuple[int, pa.Table]]:
        """Some columns of some rows at a time, each with the place of its first row.

        Raises:
            DataError: the file is damaged.
        """
        present = [name for name in names if name in self.names]
        if not present:
            return
        first_row = 0
        with _damage_reported(self.path), open_parquet(self.path, _TEXTS) as file:
            for batch in file.iter_batches(_ROWS_TOGETHER, columns=present):
                yield first_row, pa.Table.from_batches([batch])
                first_row += batch.num_rows
            if first_row != self.num_rows:
                raise ClipProblem(
                    "damaged file",
                    f"claims {self.num_rows:,} rows and holds {first_row:,}: the file is damaged; "
                    "fetch or convert it again",
                )


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except ClipProblem as problem:
        raise DataError(f"{path}: {problem}") from problem
    except UNREADABLE as error:
        raise DataError(
            f"{path}: cannot be read as Parquet: the file is cut off or damaged "
            f"({reason_of(error)}); fetch or convert it again"
        ) from error


def open_rows(path: Path) -> ParquetRows:
    """Look at what a file holds.

    Raises:
        DataError: the file is damaged, lacks a column, has one of another type, or has no row.
    """
    with _damage_reported(path), open_parquet(path, _TEXTS) as file:
        names, num_rows = file.schema_arrow.names, file.metadata.num_rows
        _check_complete(path, names)
        check_unpacked_size(path, SCHEMA.names)
    if num_rows == 0:
        raise DataError(
            f"{path}: is empty: it has columns but no row; expected a row for each clip"
        )
    return ParquetRows(path, names, num_rows)


def _check_complete(path: Path, names: list[str]) -> None:
    missing = [name for name in _REQUIRED if name not in names]
    if missing:
        others = f" (and {some_of(missing[1:])})" if len(missing) > 1 else ""
        raise DataError(
            f"{path}: column {missing[0]!r} is missing{others}: found {some_of(names, 9)}; "
            f"expected {', '.join(_REQUIRED)} and, where known, signer, session, split, fps, aspect"
        )
    twice = [name for name in SCHEMA.names if names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} is there twice; keep one")


def read_texts(path: Path, table: pa.Table, name: str) -> list[str | None]:
    """A column of text, None where unknown; integers and categories become text."""
    if name not in table.column_names:
        return [None] * table.num_rows
    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise DataError(
            f"{path}: column {name!r}: found values of type {kind}, expected text; convert them"
        )
    try:
        if not pa.types.is_dictionary(column.type):
            return column.cast(pa.string()).to_pylist()
        # Every distinct text once: repeated in a row each they could take any amount of memory.
        encoded = column.unify_dictionaries().combine_chunks()
        texts = [*encoded.dictionary.cast(pa.string()).to_pylist(), None]
        codes = encoded.indices.fill_null(-1).to_pylist()
        if not all(-1 <= code < len(texts) - 1 for code in codes):
            raise DataError(
                f"{path}: column {name!r}: refers to texts that are not there: the file is cut off "
                "or damaged; fetch or convert it again"
            )
        return [texts[code] for code in codes]
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: column {name!r}: found text that is not UTF-8; write the file again as UTF-8"
        ) from error


# Frames a second, and width over height; beyond these it is neither.
_LEAST, _MOST = 0.001, 10_000


def read_numbers(
    path: Path, table: pa.Table, name: str, bad: BadClips, first_row: int = 0
) -> list[float | None]:
    """A column of positive numbers, None where null or nan; anything else is noted in `bad`."""
    if name not in table.column_names:
        return [None] * table.num_rows
    numbers: list[float | None] = []
    for row, number in enumerate(_numeric(path, table, name).to_pylist()):
        if number is None or math.isnan(number):
            numbers.append(None)
            continue
        if not _LEAST <= number <= _MOST:
            message = (
                f"found {number}, expected a number from {_LEAST} to {_MOST:,}, or null if unknown"
            )
            bad.add(first_row + row, f"bad {name}", message, column=name)
        numbers.append(float(number))
    return numbers


def read_landmarks(path: Path, table: pa.Table) -> FlatLandmarks:
    """The lists of coordinates as one writable array."""
    column = table.column("landmarks").combine_chunks()
    kind = column.type
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    if not pa.types.is_null(kind) and not (is_list and _is_number(kind.value_type)):
        raise DataError(
            f"{path}: column 'landmarks': found values of type {kind}, "
            "expected flat lists of float32 (n_frames x 54 x 2 numbers); convert them"
        )
    if pa.types.is_null(kind):
        return FlatLandmarks(np.zeros(0, np.float32), np.full(table.num_rows, -1))
    lengths = np.array(column.value_lengths().fill_null(-1).to_pylist(), dtype=np.int64)
    # Not `to_numpy`, which would load pandas. Numbers beyond float32 become inf and are reported.
    numbers = column.flatten().cast(pa.float32(), safe=False).fill_null(math.nan)
    values = np.frombuffer(numbers.buffers()[1], np.float32, len(numbers), 4 * numbers.offset)
    return FlatLandmarks(values.copy(), lengths)


def read_counts(path: Path, table: pa.Table) -> list[Any]:
    """The frames of each row as they stand there; None where null."""
    return _numeric(path, table, "n_frames").to_pylist()


def _numeric(path: Path, table: pa.Table, name: str) -> pa.ChunkedArray:
    column = table.column(name)
    if not (_is_number(column.type) or pa.types.is_null(column.type)):
        raise DataError(
            f"{path}: column {name!r}: found values of type {column.type}, expected numbers; "
            f"convert them, {quote(column[0].as_py())} for one"
        )
    return column


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)
