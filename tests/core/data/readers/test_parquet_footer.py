"""The footer of a Parquet file, read by our own few lines, is what Arrow reads."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holistic_files import holistic, long_columns, write_long

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import ColumnChunk, column_chunks, pages, write_parquet
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


def claims_of(path):
    return [chunk[:3] for chunk in column_chunks(path)]


@pytest.fixture
def clips():
    return [Clip(f"ü{n}", "book", np.full((n, 54, 2), n, np.float32)) for n in range(1, 40)]


def test_our_own_files_claim_what_arrow_reads(clips, tmp_path):
    write_parquet(clips, tmp_path / "own.parquet")

    assert claims_of(tmp_path / "own.parquet") == arrows_claims(tmp_path / "own.parquet")


def test_a_long_file_claims_what_arrow_reads(tmp_path):
    write_long(tmp_path / "long.parquet", long_columns(holistic(3)))

    assert claims_of(tmp_path / "long.parquet") == arrows_claims(tmp_path / "long.parquet")


@pytest.mark.parametrize("name", ["asl9", "asl14", "ksl13"])
def test_a_real_set_claims_what_arrow_reads(shared_data, name):
    path = shared_data / f"{name}.parquet"

    assert claims_of(path) == arrows_claims(path)


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

    claims = claims_of(path)

    assert claims == arrows_claims(path)
    assert len(claims) == 6 * 6


@pytest.mark.parametrize("page_version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_the_pages_of_a_column_hold_what_it_claims(tmp_path, page_version, use_dictionary):
    path = tmp_path / "pages.parquet"
    texts = [f"a text long enough to fill a page or two {number % 50}" for number in range(3000)]
    pq.write_table(
        pa.table({"text": texts, "number": [[number] * 3 for number in range(3000)]}),
        path,
        data_page_size=4096,
        data_page_version=page_version,
        use_dictionary=use_dictionary,
        write_statistics=True,
    )

    for chunk in column_chunks(path):
        with path.open("rb") as file:
            found = list(pages(file, chunk))
        num_distinct = {"text": 50, "number": 3000}[chunk.name] if use_dictionary else 0
        assert len(found) > 1
        assert sum(page.num_values for page in found) == chunk.num_values + num_distinct
        # A column counts the headers of its pages too.
        num_in_headers = chunk.num_bytes - sum(page.num_bytes for page in found)
        assert 10 * len(found) < num_in_headers < 300 * len(found)


def varint(number: int, length: int | None = None) -> bytes:
    """As Thrift's compact protocol has it, or spread over more bytes than it takes."""
    number, parts = number << 1, []
    while number or len(parts) < (length or 1):
        parts.append(number & 127 | 128)
        number >>= 7
    parts[-1] &= 127
    return bytes(parts)


@pytest.mark.slow
def test_a_page_that_would_fill_the_memory_is_refused_whatever_its_column_claims(tmp_path):
    path = tmp_path / "signs.parquet"
    num = 60_000_000
    zeros = pa.ListArray.from_arrays(pa.array([0, num]), pa.nulls(num, pa.float32()).fill_null(0.0))
    table = pa.table({"clip_id": ["a"], "gloss": ["b"], "n_frames": [2], "landmarks": zeros})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, data_page_size=1 << 30)
    (chunk,) = (chunk for chunk in column_chunks(path) if chunk.name == "landmarks")
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:]
    for claim in chunk.num_values, chunk.num_bytes:
        assert varint(claim) in footer
        footer = footer.replace(varint(claim), varint(216, len(varint(claim))))
    path.write_bytes(content[:start] + footer)
    (lying,) = (chunk for chunk in column_chunks(path) if chunk.name == "landmarks")
    assert lying[1:3] == (216, 216)
    before = pa.default_memory_pool().max_memory()

    with pytest.raises(DataError, match=r"claims 0\.5 GB of values in a file of 0\.0\d MB"):
        load_dataset(path)

    assert pa.default_memory_pool().max_memory() == before


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
    ("header", "reason"),
    [
        (b"", "a page ends in its header"),
        (b"\x15\x00", "a page ends in its header"),
        (b"\x15\x00\x15\x02\x15\x01\x00", "less than nothing"),
        (b"\x25\x02\x15\x02\x2c\x00\x00", "does not say what it holds"),
        (b"\x35\x02\x00", "does not say what it holds"),
        (b"\x28\x01a\x15\x02\x00", "does not say what it holds"),
        (b"\x25\x02\x18\x01a\x00", "does not say what it holds"),
        (b"\x25\x02\x15\x02\x29\x03\x00", "does not say what it holds"),
    ],
)
def test_a_page_that_makes_no_sense_is_refused(tmp_path, header, reason):
    (tmp_path / "page").write_bytes(header)

    with (tmp_path / "page").open("rb") as file, pytest.raises(ValueError, match=reason):
        list(pages(file, ColumnChunk("x", 1, 8, 0, 100)))


def test_a_page_before_the_start_of_the_file_is_refused(tmp_path):
    (tmp_path / "page").write_bytes(b"PAR1")

    with (tmp_path / "page").open("rb") as file, pytest.raises(ValueError, match="not in the file"):
        list(pages(file, ColumnChunk("x", 1, 8, -5, 100)))


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
        claims_of(path)


def test_a_footer_longer_than_the_file_is_refused(tmp_path):
    path = tmp_path / "bad.parquet"
    path.write_bytes(b"PAR1" + (2**32 - 1).to_bytes(4, "little") + b"PAR1")

    with pytest.raises(ValueError, match=r"a footer of 4,294,967,295 bytes in a file of 12"):
        claims_of(path)
