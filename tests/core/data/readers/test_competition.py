"""The Google competition's train.csv and long Parquet files become clips."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holistic_files import (
    LONG_SCHEMA,
    Holistic,
    expected_landmarks,
    holistic,
    long_columns,
    write_index,
    write_long,
)
from numpy.testing import assert_allclose

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import _ALWAYS_ALLOWED_BYTES, write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings


def row(number: int, sign: str = "blow", **changes: object) -> dict[str, object]:
    path = f"train_landmark_files/26734/{number}.parquet"
    return {"path": path, "participant_id": 26734, "sequence_id": number, "sign": sign} | changes


def write_set(folder: Path, clips: dict[str, Holistic]) -> Path:
    """A folder with one clip for each sign."""
    rows = [row(1000 + n, sign) for n, sign in enumerate(clips)]
    for line, parts in zip(rows, clips.values(), strict=True):
        write_long(folder / str(line["path"]), long_columns(parts))
    return write_index(folder, rows)


@pytest.fixture
def two_clips(tmp_path) -> tuple[Path, dict[str, Holistic]]:
    clips = {"blow": holistic(4), "wait": holistic(6, seed=1)}
    return write_set(tmp_path / "asl-signs", clips), clips


@pytest.mark.parametrize("given", ["the folder", "train.csv"])
def test_every_landmark_is_the_one_of_its_name(two_clips, given):
    index, clips = two_clips

    dataset = load_dataset(index if given == "train.csv" else index.parent)

    assert [(c.clip_id, c.gloss, c.signer) for c in dataset] == [
        ("1000", "blow", "26734"),
        ("1001", "wait", "26734"),
    ]
    for clip, parts in zip(dataset, clips.values(), strict=True):
        for name, track in expected_landmarks(parts).items():
            landmark = clip.landmarks[:, skeleton.LANDMARK_NAMES.index(name)]
            assert_allclose(landmark, track, rtol=1e-6, err_msg=name)


def test_rows_may_come_in_any_order_and_missing_ones_be_left_out(two_clips):
    index, _ = two_clips
    before = load_dataset(index)
    path = index.parent / str(row(1000)["path"])
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(table.num_rows)
    table = table.take(order)
    table = table.filter(table["x"].is_valid())
    pq.write_table(table, path, row_group_size=300)

    assert load_dataset(index).fingerprint() == before.fingerprint()


def test_left_out_frame_numbers_are_told(two_clips):
    index, clips = two_clips
    columns = long_columns(clips["blow"])
    columns["frame"] = [frame + (frame > 21) for frame in columns["frame"]]
    write_long(index.parent / str(row(1000)["path"]), columns)

    dataset = load_dataset(index)

    assert dataset[0].num_frames == 4
    assert dataset.notes[0].startswith("1 clip without some frame numbers: the frames that are")


def test_a_path_stands_in_for_a_sequence_id_that_is_missing_or_shared(tmp_path):
    index = write_set(tmp_path, {"blow": holistic()})
    write_index(tmp_path, [row(1000, sequence_id="")])

    assert [clip.clip_id for clip in load_dataset(index)] == [row(1000)["path"]]


def test_a_single_parquet_says_where_the_signs_stand(two_clips):
    index, _ = two_clips
    path = index.parent / str(row(1000)["path"])

    with pytest.raises(DataError, match=r"not its sign, which stands in train\.csv"):
        load_dataset(path)


def columns_with(**changes) -> dict[str, list]:
    columns = long_columns(holistic())
    for name, (place, value) in changes.items():
        columns[name][place] = value
    return columns


def without_x(columns):
    table = pa.table(columns, schema=LONG_SCHEMA)
    return table.drop_columns(["x"])


def all_missing() -> dict[str, list]:
    columns = long_columns(holistic())
    return columns | {axis: [None] * len(columns["x"]) for axis in "xy"}


BAD = {
    "an unknown type": (
        columns_with(type=(700, "hand")), "unknown type",
        "row 701, column 'type': found 'hand', expected pose, left_hand, right_hand, face",
    ),
    "no type": (
        columns_with(type=(0, None)), "unknown type", "row 1, column 'type': found None, expected",
    ),
    "an index too large": (
        columns_with(landmark_index=(32, 33)), "unknown landmark",
        "row 33, column 'landmark_index': found 33 of pose, expected 0 to 32",
    ),
    "an index below 0": (
        columns_with(landmark_index=(522, -1)), "unknown landmark",
        "row 523, column 'landmark_index': found -1 of right_hand, expected 0 to 20",
    ),
    "no frame": (
        columns_with(frame=(543, None)), "no frame",
        "row 544, column 'frame': found null, expected an integer",
    ),
    "inf": (
        columns_with(y=(3, np.inf)), "inf",
        "row 4, column 'y': found inf in frame 20, expected a finite number, or nan if missing",
    ),
    "a landmark there twice": (
        columns_with(landmark_index=(5, 4)), "landmark there twice",
        "row 6: found pose landmark 4 of frame 20 a second time; expected one row for each",
    ),
    "nothing detected": (
        all_missing(), "no usable frame", "none of its 4 frames has a landmark of pose or hands",
    ),
    "no rows": (
        {name: [] for name in LONG_SCHEMA.names}, "no frame", "has 0 rows, expected 543 for each",
    ),
    "a missing column": (
        without_x(long_columns(holistic())), "missing column",
        "column 'x' is not there, or twice; expected frame, type, landmark_index, x, y",
    ),
    "words for numbers": (
        pa.table(long_columns(holistic()) | {"x": ["a"] * 4 * 543}), "wrong type of column",
        "column 'x' holds string, expected numbers",
    ),
    "half frames": (
        pa.table(long_columns(holistic()) | {"frame": [0.5] * 4 * 543}), "wrong type of column",
        "column 'frame' holds double, expected integers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("columns", "kind", "story"), BAD.values(), ids=BAD)
def test_a_bad_file_is_named_or_left_out(two_clips, columns, kind, story):
    index, _ = two_clips
    path = index.parent / str(row(1001)["path"])
    if isinstance(columns, pa.Table):
        pq.write_table(columns, path)
    else:
        write_long(path, columns)

    check_refused(index, f"row 2: {path}: {story}", kind)


ROWS = {
    "a missing file": (
        row(7), "missing file", "row 2: column 'path': the file 'train_landmark_files/26734/7.par",
    ),
    "no sign": (row(1001, ""), "no sign", "row 2: column 'sign': found an empty cell"),
    "a path out of the folder": (
        row(1001, path="../1001.parquet"), "path elsewhere",
        "row 2: column 'path': found '../1001.parquet', expected a path inside the folder",
    ),
    "an absolute path": (row(1001, path="/etc/passwd"), "path elsewhere", "row 2: column 'path'"),
}  # fmt: skip


@pytest.mark.parametrize(("line", "kind", "story"), ROWS.values(), ids=ROWS)
def test_a_bad_row_is_named_or_left_out(two_clips, line, kind, story):
    index, _ = two_clips
    write_index(index.parent, [row(1000), line])

    check_refused(index, story, kind)


def check_refused(index: Path, story: str, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(index)
    dataset = load_dataset(index, DataSettings(skip_bad_clips=True))

    assert str(caught.value).startswith(f"{index}: {story}")
    assert "\n" not in str(caught.value)
    assert [clip.clip_id for clip in dataset] == ["1000"]
    assert dataset.notes[0] == f"left out 1 of 2 clips: 1 {kind}"


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, 0.99])
def test_a_cut_off_file_is_left_out(two_clips, kept):
    index, _ = two_clips
    path = index.parent / str(row(1001)["path"])
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])

    check_refused(index, f"row 2: {path}: cannot be read as Parquet: it is cut off", "damaged file")


@pytest.mark.slow
def test_rows_that_take_no_room_in_the_file_are_refused_unread(two_clips):
    index, _ = two_clips
    path = index.parent / str(row(1001)["path"])
    number = 1_000_000  # a million rows of zeros in a few kilobytes; its footer is cheap to read
    zeros = pa.array(np.zeros(number))
    columns = {name: zeros for name in ("x", "y", "z")}
    columns |= {name: zeros.cast(pa.int16()) for name in ("frame", "landmark_index")}
    table = pa.table(columns | {"type": pa.array(["pose"]).take(zeros.cast(pa.int16()))})
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(9):
            writer.write_table(table)
    assert path.stat().st_size * 100 < _ALWAYS_ALLOWED_BYTES
    before = pa.default_memory_pool().max_memory()

    check_refused(index, f"row 2: {path}: claims 0.4 GB of values in a file", "unpacks to too much")

    assert pa.default_memory_pool().max_memory() == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"right_hand", b"right\xdfhand", "cannot be read as Parquet"),
        (b"landmark_index", b"landmark\x80index", "cannot be read as Parquet"),
    ],
)
def test_a_clip_with_text_that_is_not_utf8_is_refused(two_clips, old, new, reason):
    index, _ = two_clips
    path = index.parent / str(row(1001)["path"])
    path.write_bytes(path.read_bytes().replace(old, new))

    check_refused(index, f"row 2: {path}: {reason}", "damaged file")


def test_an_index_without_rows_is_explained(tmp_path):
    index = write_index(tmp_path, [])

    with pytest.raises(DataError, match="has a header but no row below it"):
        load_dataset(index)


def test_an_index_whose_header_ends_at_a_carriage_return_is_explained(tmp_path):
    index = tmp_path / "train.csv"
    index.write_bytes(b"path,participant_id\r,sequence_id,sign\na,1,2,blow\n")

    with pytest.raises(DataError, match="found the columns 'path', 'participant_id', expected"):
        load_dataset(index)


def test_an_index_that_is_not_utf8_is_explained(tmp_path):
    index = tmp_path / "train.csv"
    index.write_bytes(b"path,participant_id,sequence_id,sign\na,1,2,fr\xfch\n")

    with pytest.raises(DataError, match="is not UTF-8 text; save it again as UTF-8"):
        load_dataset(index)


def test_our_own_parquet_is_not_taken_for_one(tmp_path):
    clip = Clip("a", "blow", np.zeros((2, 54, 2), np.float32))
    write_parquet([clip], tmp_path / "own.parquet")

    assert [clip.clip_id for clip in load_dataset(tmp_path / "own.parquet")] == ["a"]
