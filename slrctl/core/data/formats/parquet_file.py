"""Open a Parquet file that may be damaged, or made to grow beyond all measure when unpacked."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from slrctl.core.data.formats.parquet_footer import ColumnChunk, Page, column_chunks, pages
from slrctl.core.data.formats.reading import ClipProblem

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
