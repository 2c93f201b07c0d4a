"""The footer of a Parquet file, read by our own few lines, is what Arrow reads."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holistic_files import holistic, long_columns, write_long

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.formats.parquet import write_parquet
from slrctl.core.data.formats.parquet_footer import column_claims
from slrctl.errors import DataError


def arrows_claims(path):
    metadata = pq.read_metadata(path)
    columns = [
        metadata.row_group(group).column(index)
        for group in range(metadata.num_row_groups)
        for index in range(metadata.num_columns)
    ]
    return [
        (c.path_in_schema.partition(".")[0], c.num_values, c.total_uncompressed_size)
        for c in columns
    ]


@pytest.fixture
def clips():
    return [Clip(f"ü{n}", "book", np.full((n, 54, 2), n, np.float32)) for n in range(1, 40)]


def test_our_own_files_claim_what_arrow_reads(clips, tmp_path):
    write_parquet(clips, tmp_path / "own.parquet")

    assert column_claims(tmp_path / "own.parquet") == arrows_claims(tmp_path / "own.parquet")


def test_a_long_file_claims_what_arrow_reads(tmp_path):
    write_long(tmp_path / "long.parquet", long_columns(holistic(3)))

    assert column_claims(tmp_path / "long.parquet") == arrows_claims(tmp_path / "long.parquet")


@pytest.mark.parametrize("name", ["asl9", "asl14", "ksl13"])
def test_a_real_set_claims_what_arrow_reads(shared_data, name):
    path = shared_data / f"{name}.parquet"

    assert column_claims(path) == arrows_claims(path)


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_many_row_groups_with_all_that_can_be_said_of_a_column_are_read(
    tmp_path, version, compression
):
    table = pa.table(
        {
            "text": ["a", None, "c"] * 7,
            "nested": [[[1.5], []], None, [[2.5, None]]] * 7,
            "mapped": pa.array([[("k", 1)], [], None] * 7, pa.map_(pa.string(), pa.int8())),
            "when": pa.array([0, 1, None] * 7, pa.timestamp("us", "UTC")),
            "true": [True, False, None] * 7,
        }
    )
    path = tmp_path / "all.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=4,
        version=version,
        compression=compression,
        write_page_index=True,
        write_page_checksum=True,
        store_schema=True,
        sorting_columns=[pq.SortingColumn(0)],
    )

    claims = column_claims(path)

    assert claims == arrows_claims(path)
    assert len(claims) == 6 * 6


def end_of_reading(path) -> str:
    try:
        return "clips" if len(load_dataset(path)) else "nothing"
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_any_flipped_bit_of_a_footer_gives_clips_or_one_line(clips, tmp_path, step):
    """Arrow ends the process when asked for a column that contradicts itself; nobody may ask."""
    path = tmp_path / "signs.parquet"
    write_parquet(clips, path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    ends = []
    for place in range(len(whole) - 8 - length, len(whole) - 8, step):
        for mask in (1, 2, 0x10, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= mask
            path.write_bytes(damaged)
            ends.append(end_of_reading(path))
    assert "clips" in ends
    assert len(set(ends)) > 2
    assert all(end.isprintable() for end in ends)


@pytest.mark.parametrize(
    ("footer", "reason"),
    [
        (b"\x19" * 99, "within values without end"),
        (b"\x4c" + b"\x1c" * 99, "within values without end"),
        (b"\x16" + b"\xff" * 99, "more than 64 bits"),
        (b"\x4b\x00", "a value of type 11"),
        (b"\x48\xff\xff\x03", "does not list the columns"),
        (b"\x46\x02\x00", "does not list the columns"),
        (b"\x49\x1c\x00\x00", "does not list the columns"),
        (b"\x49\xfc\xff\xff\xff\xff\x07", "does not list the columns"),
        (b"", "does not list the columns"),
    ],
)
def test_a_footer_that_makes_no_sense_is_refused(tmp_path, footer, reason):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")

    with pytest.raises(ValueError, match=reason):
        column_claims(path)


def test_a_footer_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1" + (2**32 - 1).to_bytes(4, "little") + b"PAR1")

    with pytest.raises(ValueError, match=r"a footer of 4,294,967,295 bytes in a file of 12"):
        column_claims(path)
