"""Clips in our own Parquet: one row a clip, landmarks as a flat list of float32.

This is the format everything is converted to: reading back what was written gives the same bits.
Rows are counted from 1 in messages.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64

from slrctl.core import skeleton
from slrctl.core.clip import Clip, groups_of_clips
from slrctl.core.data.readers.reading import (
    BadClips,
    ClipProblem,
    Reading,
    count_of,
    quote,
    some_of,
)
from slrctl.errors import DataError
from slrctl.files import replacing
from slrctl.settings import DataSettings

_TAIL_BYTES = 8  # the length of the footer in four, and Parquet's mark
_DEEPEST = 16
_LARGEST_SHIFT = 63

# The numbers of the fields we follow, in FileMetaData, RowGroup, ColumnChunk and ColumnMetaData,
_ROW_GROUPS, _COLUMNS, _METADATA = 4, 1, 3
_PATH, _NUM_VALUES, _UNCOMPRESSED, _COMPRESSED, _DATA, _DICTIONARY = 3, 5, 6, 7, 9, 11
# and in PageHeader, and in what it holds of data, of a dictionary, or of data in version 2.
_PAGE_UNCOMPRESSED, _PAGE_COMPRESSED, _PAGE_KINDS, _PAGE_VALUES = 2, 3, (5, 7, 8), 1
# Of a page's header, statistics included; what is longer is read anew with ten times as much.
_HEADER_BYTES, _LONGEST_HEADER = 1 << 9, 1 << 24

_TRUE, _FALSE, _BYTE, _DOUBLE, _TEXT, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)


class ColumnChunk(NamedTuple):
    """What a row group claims to hold of a column, by the column's outermost name, and where."""

    name: str
    num_values: int
    num_bytes: int
    start: int
    num_stored: int


class Page(NamedTuple):
    """What a page claims to hold."""

    num_values: int
    num_bytes: int


def column_chunks(path: Path) -> list[ColumnChunk]:
    """Read what is said of every column of every row group.

    Raises:
        ValueError: the footer is not what Parquet asks for.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        length = int.from_bytes(file.read(4), "little")
        if length > size - _TAIL_BYTES:
            raise ValueError(f"a footer of {length:,} bytes in a file of {size:,}")
        file.seek(size - _TAIL_BYTES - length)
        footer = file.read(length)
    try:
        groups = _Compact(footer).struct().get(_ROW_GROUPS, [])
        return [_chunk(chunk[_METADATA]) for group in groups for chunk in group[_COLUMNS]]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("the footer does not list the columns") from error


def _chunk(fields: dict[int, Any]) -> ColumnChunk:
    return ColumnChunk(
        bytes(fields[_PATH][0]).decode("utf-8", "replace"),
        int(fields[_NUM_VALUES]),
        int(fields[_UNCOMPRESSED]),
        int(fields.get(_DICTIONARY) or fields[_DATA]),
        int(fields[_COMPRESSED]),
    )


def pages(file: BinaryIO, chunk: ColumnChunk) -> Iterator[Page]:
    """Go from header to header through the pages of a column, without unpacking one.

    Raises:
        ValueError: a header is not what Parquet asks for.
    """
    place, end = chunk.start, chunk.start + chunk.num_stored
    while place < end:
        fields, length = _page_header(file, place)
        kinds = [fields[kind] for kind in _PAGE_KINDS if kind in fields]
        try:
            page = Page(sum(kind[_PAGE_VALUES] for kind in kinds), fields[_PAGE_UNCOMPRESSED])
            stored = fields[_PAGE_COMPRESSED]
            is_possible = min(stored, *page) >= 0
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError("a page does not say what it holds") from error
        if not is_possible:
            raise ValueError("a page claims to hold less than nothing")
        place += length + stored
        yield page


def _page_header(file: BinaryIO, place: int) -> tuple[dict[int, Any], int]:
    """The header at a place of the file, and how long it is."""
    length = _HEADER_BYTES
    while True:
        try:
            file.seek(place)
        except (OSError, ValueError) as error:
            raise ValueError("a page that is not in the file") from error
        content = file.read(length)
        header = _Compact(content)
        try:
            return header.struct(), header.place
        except IndexError:
            if len(content) < length or length > _LONGEST_HEADER:
                raise ValueError("a page ends in its header") from None
            length *= 10


class _Compact:
    """Thrift's compact protocol: a structure becomes a dictionary of its fields by number."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields, number = dict[int, Any](), 0
        while head := self._byte():
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("values within values without end")
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind in _INTEGERS:
            return self._integer()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _TEXT:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = self._varint() if head >> 4 == 15 else head >> 4
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"a value of type {kind}, which Parquet does not use")

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _bytes(self, count: int) -> bytes:
        start, self.place = self.place, self.place + count
        if self.place > len(self.content):
            raise IndexError
        return self.content[start : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value |= (byte & 127) << shift
            shift += 7
            if shift > _LARGEST_SHIFT:
                raise ValueError("an integer of more than 64 bits")
        return value | byte << shift

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


# Landmarks shrink to a half or a third of their size; where hands are missing, to a tenth.
_LARGEST_RATIO = 100
_ALWAYS_ALLOWED_BYTES = 1 << 28
_VALUE_BYTES = 8
_BUFFER_BYTES = 1 << 20

UNREADABLE = (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError)
"""What Arrow raises at a file that is damaged, a name of a column that is not UTF-8 included."""


def open_parquet(path: Path, texts: Collection[str]) -> pq.ParquetFile:
    """Open one file, without guessing from folder names as `pq.read_table` does.

    Args:
        path: the file.
        texts: columns that hold every distinct text once, however often it is repeated. Written
            out in a row each, a long text could take any amount of memory.
    """
    metadata = pq.read_metadata(path)
    # Columns of other types lie deeper, and asking for them is a KeyError.
    leaves = {metadata.schema.column(index).path for index in range(metadata.num_columns)}
    return pq.ParquetFile(
        path,
        metadata=metadata,
        read_dictionary=[name for name in texts if name in leaves],
        # Bytes are fetched as they are needed, not a whole column at once.
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
    )


def reason_of(error: Exception) -> str:
    """What Arrow says is wrong, on one line; it quotes bytes of the damaged file as they are."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(error))
    return " ".join(text.split())[:120]


def check_unpacked_size(path: Path, columns: Sequence[str]) -> None:
    """Check what the columns claim to hold against the size of the file.

    Equal values take next to no room in a file, so a few kilobytes can unpack to any size.

    Raises:
        ClipProblem: the columns would take over a hundred times the room of the file.
    """
    try:
        chunks = [chunk for chunk in column_chunks(path) if chunk.name in columns]
        with path.open("rb") as file:
            of_pages = [_unpacked(page) for chunk in chunks for page in pages(file, chunk)]
    except ValueError as error:
        raise ClipProblem(
            "damaged file",
            f"cannot be read as Parquet: the file is cut off or damaged ({error}); "
            "fetch or convert it again",
        ) from error
    claimed = max(sum(map(_unpacked, chunks)), sum(of_pages))
    size = path.stat().st_size
    if claimed > max(_ALWAYS_ALLOWED_BYTES, size * _LARGEST_RATIO):
        raise ClipProblem(
            "unpacks to too much",
            f"claims {claimed / 1e9:,.1f} GB of values in a file of {size / 1e6:,.2f} MB; "
            "no landmarks shrink so far, the file is damaged or made to fill the memory",
        )


def _unpacked(claim: ColumnChunk | Page) -> int:
    """The bytes of the values, or of what they are encoded as where that is more."""
    return max(claim.num_values * _VALUE_BYTES, claim.num_bytes)


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


MAGIC = b"PAR1"
_VALUES_PER_FRAME = 2 * skeleton.NUM_LANDMARKS
_TEXTS_parquet = ("clip_id", "gloss", "signer", "session", "split")
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
    texts = [read_texts(path, block, name) for name in _TEXTS_parquet]
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
    with (
        replacing(path) as unfinished,
        pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as writer,
    ):
        for group in groups_of_clips(clips, _FRAMES_TOGETHER):
            writer.write_table(_table_of(group))


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
    for name in _TEXTS_parquet:
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
