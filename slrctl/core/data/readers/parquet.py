"""Clips in our own Parquet: one row a clip, landmarks as a flat list of float32.

This is the format everything is converted to: reading back what was written gives the same bits.
Rows are counted from 1 in messages.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip, groups_of_clips
from slrctl.core.data.readers.reading import (
    ClipProblem,
    Findings,
    Reading,
    check_landmarks,
    library_errors,
)
from slrctl.errors import count_of, quote, some_of
from slrctl.files import replacing
from slrctl.settings import DataSettings

MAGIC = b"PAR1"
_TEXTS = ("clip_id", "gloss", "signer", "session", "split")
SCHEMA = pa.schema(
    {
        **dict.fromkeys(_TEXTS, pa.string()),
        "fps": pa.float64(),
        "aspect": pa.float64(),
        "n_frames": pa.int32(),
        "landmarks": pa.list_(pa.float32()),
    }
)
_REQUIRED = ("clip_id", "gloss", "n_frames", "landmarks")
# Frames a second, and width over height; beyond these it is neither.
_LEAST, _MOST = 0.001, 10_000
# Rows that are decoded at a time: some 20 MB of landmarks where clips are long.
_ROWS_TOGETHER = 256
# Frames of a row group, some 57 MB of landmarks.
_FRAMES_TOGETHER = 1 << 17
# Landmarks shrink to a half or a third of their size; where hands are missing, to a tenth.
_LARGEST_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 1 << 28
_VALUE_BYTES = 8
_BUFFER_BYTES = 1 << 20


def is_integer(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)


def is_text(kind: pa.DataType) -> bool:
    """True for text, and for categories of text."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_name(kind: pa.DataType) -> bool:
    """True for text and for integers, which become text."""
    return is_text(kind) or is_integer(kind) or pa.types.is_null(kind)


def _is_number_list(kind: pa.DataType) -> bool:
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return pa.types.is_null(kind) or (is_list and is_number(kind.value_type))


# For each column that is read, a test of its type, and what to call the type that is expected.
Columns = Mapping[str, tuple[Callable[[pa.DataType], bool], str]]


_COLUMNS: Columns = {
    **dict.fromkeys(_TEXTS, (_is_name, "text")),
    **dict.fromkeys(("fps", "aspect", "n_frames"), (is_number, "numbers")),
    "landmarks": (_is_number_list, "flat lists of float32 (n_frames x 54 x 2 numbers)"),
}


def open_parquet(path: Path, columns: Columns) -> pq.ParquetFile:
    """Open a file to read some of its columns a little at a time."""
    metadata = pq.read_metadata(path)
    fields = metadata.schema.to_arrow_schema()
    return pq.ParquetFile(
        path,
        metadata=metadata,
        # Every distinct text once, however often it is repeated: written out in a row each, a long
        # text could take any amount of memory.
        read_dictionary=[
            field.name for field in fields if field.name in columns and is_text(field.type)
        ],
        # Bytes are fetched as they are needed, not a whole column at once.
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _check_unpacked_size(path: Path, file: pq.ParquetFile) -> None:
    """Refuse a file of a few kilobytes that unpacks to gigabytes of equal values."""
    size = path.stat().st_size
    allowed = max(_ALWAYS_ALLOWED_BYTES, size * _LARGEST_RATIO)
    groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
    claimed = sum(group.total_byte_size for group in groups)
    if claimed <= allowed:
        # Decodes a little at a time, and finds damage that would end the process below.
        file.scan_contents()
        claimed = _VALUE_BYTES * sum(
            group.column(index).num_values for group in groups for index in range(group.num_columns)
        )
    if claimed > allowed:
        raise ClipProblem(
            "unpacks to too much",
            f"claims {claimed / 1e9:,.1f} GB of values in a file of {size / 1e6:,.2f} MB; "
            "no landmarks shrink so far, the file is damaged or made to fill the memory",
        )


def check_columns(
    path: Path, file: pq.ParquetFile, columns: Columns, required: Collection[str]
) -> None:
    """Check that the columns have the names and types that are expected, and a possible size.

    Raises:
        ClipProblem: a column is missing, occurs twice or has another type, or the file would
            unpack to more than any landmarks do.
    """
    schema = file.schema_arrow
    missing = [name for name in required if name not in schema.names]
    if missing:
        others = f" (and {some_of(missing[1:])})" if len(missing) > 1 else ""
        raise ClipProblem(
            "missing column",
            f"column {missing[0]!r} is missing{others}: found {some_of(schema.names, 9)}; "
            f"expected {', '.join(required)}",
        )
    for name in columns:
        if schema.names.count(name) > 1:
            raise ClipProblem("column twice", f"column {name!r} is there twice; keep one")
        is_expected, expected = columns[name]
        if name in schema.names and not is_expected(kind := schema.field(name).type):
            raise ClipProblem(
                "wrong type of column",
                f"column {name!r}: found values of type {kind}, expected {expected}; convert them",
            )
    _check_unpacked_size(path, file)


def _batches_of(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield some rows at a time: the file may be larger than the memory."""
    with library_errors("Parquet"), open_parquet(path, _COLUMNS) as file:
        names = [name for name in SCHEMA.names if name in file.schema_arrow.names]
        for batch in file.iter_batches(_ROWS_TOGETHER, columns=names):
            for name in names:
                with library_errors(f"column {name!r} of a Parquet file"):
                    batch.column(name).validate(full=True)
            yield batch


def _values_of(batch: pa.RecordBatch, name: str) -> list[Any]:
    if name not in batch.schema.names:
        return [None] * batch.num_rows
    column = batch.column(name)
    if pa.types.is_dictionary(column.type):
        texts = column.dictionary.cast(pa.string()).to_pylist()
        return [None if code is None else texts[code] for code in column.indices.to_pylist()]
    if name in _TEXTS:
        return column.cast(pa.string()).to_pylist()
    numbers = column.cast(pa.float64(), safe=False).to_pylist()
    return numbers if name == "n_frames" else [None if n is None or n != n else n for n in numbers]


def _facts_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the content of each row besides its landmarks; None where unknown."""
    names = SCHEMA.names[:-1]
    columns = [_values_of(batch, name) for name in names]
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _numbers_of(batch: pa.RecordBatch) -> Iterator[Float32[np.ndarray, " N"] | None]:
    """Yield the list of coordinates of each row, None where null."""
    column = batch.column("landmarks")
    if pa.types.is_null(column.type):
        return iter([None] * batch.num_rows)
    lengths = column.value_lengths().to_pylist()
    # Numbers beyond float32 become infinite and are reported.
    numbers = column.flatten().cast(pa.float32(), safe=False)
    if numbers.null_count:  # only then, because `fill_null` loads pandas, which takes a while
        numbers = numbers.fill_null(math.nan)
    values = np.array(np.from_dlpack(numbers))  # a copy, because clips can be written to
    ends = accumulate(length or 0 for length in lengths)
    return (
        None if length is None else values[end - length : end]
        for length, end in zip(lengths, ends, strict=True)
    )


def _clip_of(
    facts: dict[str, Any],
    numbers: Float32[np.ndarray, " N"] | None,
    row: int,
    row_of: dict[str, int],
) -> Clip:
    """Check a row: an id of its own, a gloss, and n_frames x 54 x 2 finite numbers or NaN."""
    clip_id, count = facts["clip_id"], facts.pop("n_frames")
    if clip_id is None:
        raise ClipProblem("no clip id", "found null, expected the clip's id", column="clip_id")
    if row_of.setdefault(clip_id, row) != row:
        raise ClipProblem(
            "duplicate clip id",
            f"found {quote(clip_id)}, which row {row_of[clip_id] + 1} has already; "
            "expected an id of its own for every clip",
            column="clip_id",
        )
    if not facts["gloss"]:
        found = "null" if facts["gloss"] is None else "an empty text"
        raise ClipProblem(
            "no gloss", f"found {found}, expected the name of the sign", column="gloss"
        )
    for name in ("fps", "aspect"):
        if facts[name] is not None and not _LEAST <= facts[name] <= _MOST:
            raise ClipProblem(
                f"bad {name}",
                f"found {facts[name]}, expected a number from {_LEAST} to {_MOST:,}, "
                "or null if unknown",
                column=name,
            )
    if count is None or not (count >= 1 and count.is_integer()):
        found = "null" if count is None else f"{count:g}"
        raise ClipProblem(
            "bad n_frames",
            f"found {found}, expected the number of frames, at least 1",
            column="n_frames",
        )
    num_values = int(count) * 2 * skeleton.NUM_LANDMARKS
    if numbers is None or len(numbers) != num_values:
        found = "null" if numbers is None else f"{len(numbers)} numbers"
        raise ClipProblem(
            "wrong number of landmarks",
            f"found {found}, expected n_frames x 54 x 2 = {int(count)} x 54 x 2 = {num_values}",
            column="landmarks",
        )
    landmarks = numbers.reshape(-1, skeleton.NUM_LANDMARKS, 2)
    return Clip(**{**facts, "aspect": facts["aspect"] or 1.0}, landmarks=landmarks)


def _rows_of(path: Path, findings: Findings) -> Iterator[tuple[Clip, int]]:
    """Yield the good clips and how many landmarks of each had only one of x and y.

    The other clips are noted in `findings`.
    """
    row_of: dict[str, int] = {}
    row = 0
    for batch in _batches_of(path):
        for facts, numbers in zip(_facts_of(batch), _numbers_of(batch), strict=True):
            try:
                clip = _clip_of(facts, numbers, row, row_of)
                yield clip, check_landmarks(clip.landmarks, column="landmarks")
            except ClipProblem as problem:
                findings.add(row, problem)
            row += 1


@dataclass(frozen=True)
class _LazyClips:
    """The good clips of a file that has been checked; each iteration reads them anew."""

    path: Path

    def __iter__(self) -> Iterator[Clip]:
        return (clip for clip, _ in _rows_of(self.path, Findings(self.path)))


def other_columns(path: Path) -> list[str]:
    """List the columns of a Parquet file that clips do not have."""
    return [name for name in pq.read_schema(path).names if name not in SCHEMA.names]


def table_of(clips: Sequence[Clip]) -> pa.Table:
    """Put clips into the columns of the format."""
    columns: dict[str, Any] = {
        name: [getattr(clip, name) for clip in clips] for name in SCHEMA.names[:-2]
    }
    columns["n_frames"] = [clip.num_frames for clip in clips]
    offsets = np.cumsum([0, *(clip.landmarks.size for clip in clips)]).astype(np.int32)
    values = np.concatenate([clip.landmarks.ravel() for clip in clips])
    columns["landmarks"] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
    return pa.table(columns, schema=SCHEMA)


def write_parquet(clips: Iterable[Clip], path: Path) -> None:
    """Write clips so that reading them gives the same ones to the bit; whole or not at all."""
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd", write_page_checksum=True) as writer,
    ):
        for group in groups_of_clips(clips, _FRAMES_TOGETHER):
            writer.write_table(table_of(group))


def recognises(path: Path) -> bool:
    """True if the file begins as a Parquet file does. Other layouts of Parquet are asked first."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: Path, settings: DataSettings, classes: Sequence[str] | None) -> Reading:
    """Check the whole file, so that its clips can be read one after the other.

    Glosses are names, so `classes` change nothing.

    Raises:
        DataError: the file or one of its rows is not as it should be.
    """
    with library_errors("Parquet"), open_parquet(path, _COLUMNS) as file:
        check_columns(path, file, _COLUMNS, _REQUIRED)
        names, num_rows = file.schema_arrow.names, file.metadata.num_rows
    if num_rows == 0:
        raise ClipProblem(
            "no row", "is empty: it has columns but no row; expected a row for each clip"
        )
    findings = Findings(path)
    num_halves = sum(count for _, count in _rows_of(path, findings))
    notes, dropped = findings.settle(num_rows, skip=settings.skip_bad_clips)
    ignored = [name for name in names if name not in SCHEMA.names]
    if ignored:
        notes.append(f"{count_of(len(ignored), 'column')} not read: {some_of(ignored)}")
    if num_halves:
        number = count_of(num_halves, "landmark")
        notes.append(f"{number} with only one of x and y: taken as missing")
    return Reading(_LazyClips(path), notes, dropped)
