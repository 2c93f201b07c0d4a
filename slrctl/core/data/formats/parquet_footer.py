"""What a Parquet file says of its columns and their pages, read without trusting it.

Arrow gives the same of columns, but ends the whole process where a damaged file contradicts itself;
of pages it tells nothing, and takes the memory that they claim.
The structures are those of Parquet's `parquet.thrift`, written in Thrift's compact protocol.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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
