"""Refuse a Parquet file that would grow beyond all measure, before anything of it is unpacked."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from slrctl.core.data.formats.reading import ClipProblem

# Landmarks shrink to a half or a third of their size; where hands are missing, to a tenth.
_LARGEST_RATIO = 500
_ALWAYS_ALLOWED_BYTES = 1 << 28
_VALUE_BYTES = 8


def check_unpacked_size(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Check what the columns claim to hold against the size of the file.

    Equal values take next to no room in a file, so a few kilobytes can unpack to any size.

    Raises:
        ClipProblem: the columns would take hundreds of times the room of the file.
    """
    metadata = file.metadata
    claimed = 0
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.path_in_schema.partition(".")[0] in columns:
                claimed += max(column.num_values * _VALUE_BYTES, column.total_uncompressed_size)
    size = path.stat().st_size
    if claimed > max(_ALWAYS_ALLOWED_BYTES, size * _LARGEST_RATIO):
        raise ClipProblem(
            "unpacks to too much",
            f"claims {claimed / 1e9:,.1f} GB of values in a file of {size / 1e6:,.2f} MB; "
            "no landmarks shrink so far, the file is damaged or made to fill the memory",
        )
