"""Damaged and hostile files give clips or one line: no traceback, no hang, bounded memory.

Files of every format are damaged at random places, by a seed; wrong types and shapes stand in every
place of a format; and some files are made to fill the memory.
"""

import io
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from holistic_files import (
    LONG_SCHEMA,
    holistic,
    long_columns,
    vectors,
    write_frames,
    write_index,
    write_long,
)
from pose_files import HOLISTIC, random_points, write_pose
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings

MEMORY = 400 << 20


@contextmanager
def limited_memory(num_bytes: int) -> Iterator[None]:
    """Let the process grow by so many bytes and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(path: Path, *, skip: bool) -> SignDataset | str:
    try:
        with limited_memory(MEMORY):
            dataset = load_dataset(path, DataSettings(skip_bad_clips=skip))
            clips = list(dataset)
    except DataError as error:
        message = str(error)
        assert message.startswith(str(path.parent))
        assert message.isprintable()
        assert len(message) < 1_500
        return message
    landmarks = np.concatenate([clip.landmarks for clip in clips])
    is_missing = np.isnan(landmarks)
    assert landmarks.dtype == np.float32
    assert (is_missing[..., 0] == is_missing[..., 1]).all()
    assert not np.isinf(landmarks).any()
    assert all(clip.gloss and not np.isnan(clip.landmarks).all() for clip in clips)
    return dataset


def check(path: Path) -> None:
    """Read a path strictly and leniently, and check the result."""
    strict, lenient = outcome(path, skip=False), outcome(path, skip=True)
    if isinstance(strict, SignDataset):
        assert isinstance(lenient, SignDataset)
        assert lenient.fingerprint() == strict.fingerprint()


# --- damage at random places --------------------------------------------------------------------

BLOBS = [b"\0" * 16, b"\xff" * 8, b"\n", b"\r", b'"', b",", b"[", b"]", b"nan", b"inf", b"-1",
         b"1e999"]  # fmt: skip


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    for _ in range(rng.integers(1, 5)):
        # A share of the file, or bytes from its start or its end, where headers and footers are.
        place = int(rng.choice([rng.integers(len(content) + 1), rng.integers(-3000, 500)]))
        place = place % (len(content) + 1)
        length = int(rng.integers(200))
        blob = BLOBS[rng.integers(len(BLOBS))] if rng.random() < 0.5 else rng.bytes(length // 8)
        before, after = content[:place], content[place:]
        flipped = bytes([after[0] ^ 1 << length % 8]) + after[1:] if after else b""
        content = before + [
            b"", blob + after[len(blob) :], blob + after, after[length:],
            after[:length] + after, flipped,
        ][rng.integers(6)]  # fmt: skip
    return content


def csv_of(*clips: np.ndarray, **options) -> Callable[[Path], tuple[Path, Path]]:
    def make(folder: Path) -> tuple[Path, Path]:
        path = write_csv(folder / "signs.csv", clips, **options)
        return path, path

    return make


def a_parquet(folder: Path) -> tuple[Path, Path]:
    clips = [Clip(name, "book", person(3).astype(np.float32), "ann") for name in ("a", "b")]
    write_parquet(clips, folder / "signs.parquet")
    return folder / "signs.parquet", folder / "signs.parquet"


def a_long_parquet(folder: Path) -> tuple[Path, Path]:
    rows = [
        {"path": f"{n}.parquet", "participant_id": 1, "sequence_id": n, "sign": "book"}
        for n in range(2)
    ]
    for row in rows:
        write_long(folder / row["path"], long_columns(holistic(2)))
    write_index(folder, rows)
    return folder / "1.parquet", folder


def an_index(folder: Path) -> tuple[Path, Path]:
    a_long_parquet(folder)
    return folder / "train.csv", folder


def an_npy(folder: Path) -> tuple[Path, Path]:
    for clip in ("0", "1"):
        write_frames(folder / "book" / clip, vectors(holistic(2), with_face=False))
    return folder / "book" / "1" / "1.npy", folder


def a_pose(folder: Path) -> tuple[Path, Path]:
    for clip in ("0", "1"):
        points = random_points(2, sum(map(len, HOLISTIC.values())))
        write_pose(folder / "book" / f"{clip}.pose", HOLISTIC, points)
    return folder / "book" / "1.pose", folder


def pose_labels(folder: Path) -> tuple[Path, Path]:
    a_pose(folder)
    labels = folder / "book" / "labels.csv"
    labels.write_text("path,gloss,signer\n0.pose,book,ann\n1.pose,read,bob\n")
    return labels, labels.parent


PADDED = np.concatenate([person(2), np.zeros((2, 54, 2))])
SIZE = {"video_fps": [25], "video_size_width": [640], "video_size_height": [480]}
# Of each: a function that writes the file to damage and returns it with the path to read.
MAKERS = {
    "csv": (csv_of(person(2), person(1, 1)), 80),
    "padded csv": (csv_of(PADDED, person(2, 2), labels=[1, 2], numbered=True), 80),
    "csv without necks": (csv_of(person(1), labels=["7"], with_neck=False), 60),
    "csv in pixels": (csv_of(person(1) * [640, 480], extra=SIZE), 60),
    "parquet": (a_parquet, 60),
    "long parquet": (a_long_parquet, 40),
    "train.csv": (an_index, 40),
    "npy": (an_npy, 40),
    "pose": (a_pose, 40),
    "labels.csv": (pose_labels, 40),
}


@pytest.mark.parametrize(("make", "count"), MAKERS.values(), ids=MAKERS)
def test_a_damaged_file_gives_clips_or_one_line(make, count, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    target, path = make(folder)
    whole, rng = target.read_bytes(), np.random.default_rng(0)
    assert isinstance(outcome(path, skip=False), SignDataset)

    for _ in range(count):
        target.write_bytes(damaged(whole, rng))
        check(path)


# --- wrong types and shapes in every place ------------------------------------------------------

COLUMNS = [
    pa.nulls(2), pa.array(["a", None]), pa.array(["", ""]),
    pa.array(["a", "a"]).dictionary_encode(), pa.array([b"a", b"\xff"]),
    pa.array([1, 2]), pa.array([-1, 2**62]),
    pa.array([0.5, float("inf")]), pa.array([float("nan"), 1.0]), pa.array([True, False]),
    pa.array([[0.5] * 216, None]), pa.array([[0.5] * 216, [None]]),
    pa.array([[0.5] * 216, [1e39] * 216]), pa.array([[1] * 216, [2] * 216]),
    pa.array([[], [0.5] * 216]), pa.array([["a"], ["b"]]), pa.array([[[0.5]], [[0.5]]]),
    pa.array([{"x": 1}, {"x": 2}]), pa.array([0, 1], pa.timestamp("s")), pa.array(["2", "2"]),
    pa.array([2, 2], pa.uint8()), pa.array([2, 2**63], pa.uint64()),
    pa.array(["\x1b[2J\r\n", "\u202e" * 500]), pa.array([2, 2], pa.decimal128(5)),
    pa.array(["a", "b"], pa.large_string()), pa.array([[0.5] * 216] * 2, pa.list_(pa.float16())),
    pa.array([[None] * 216] * 2, pa.list_(pa.null())), pa.array([7, 8]).dictionary_encode(),
]  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type)[:30])
@pytest.mark.parametrize("name", ["clip_id", "gloss", "signer", "fps", "n_frames", "landmarks"])
def test_a_column_of_any_type_in_our_parquet_gives_clips_or_one_line(tmp_path, name, column):
    good = {
        "clip_id": pa.array(["a", "b"]), "gloss": pa.array(["x", "y"]),
        "n_frames": pa.array([2, 2]),
        "landmarks": pa.array([[0.5] * 216] * 2, pa.list_(pa.float32())),
    }  # fmt: skip
    pq.write_table(pa.table(good | {name: column}), tmp_path / "signs.parquet")

    check(tmp_path / "signs.parquet")


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type)[:30])
@pytest.mark.parametrize("name", ["frame", "type", "x"])
def test_a_column_of_any_type_in_a_long_parquet_gives_clips_or_one_line(tmp_path, name, column):
    target, path = a_long_parquet(tmp_path)
    good = pa.table(long_columns(holistic(2)), schema=LONG_SCHEMA).slice(0, 2)
    index = good.schema.get_field_index(name)
    pq.write_table(good.set_column(index, name, column), target)

    check(path)


@pytest.mark.parametrize("shape", [(), (0,), (258,), (258, 1), (0, 258), (2, 258), (1, 1, 258)])
@pytest.mark.parametrize("kind", ["f2", ">f8", "i8", "?", "c16", "U3", "S3", "M8[s]", "O"])
@pytest.mark.parametrize("name", ["book/1/1.npy", "book/2.npy"])
def test_any_array_gives_clips_or_one_line(name, kind, shape, tmp_path):
    an_npy(tmp_path)
    np.save(tmp_path / name, np.ones(shape).astype(kind), allow_pickle=True)

    check(tmp_path)


@pytest.mark.parametrize("name", ["٣", "²", "-1", " ", "x\n", "\x1b[2J", "0.npy", "9" * 200])
@pytest.mark.parametrize("place", ["book/0/{}.npy", "book/{}/0.npy", "{}/0/0.npy", "book/{}.pose"])
def test_any_name_of_a_file_or_folder_gives_clips_or_one_line(place, name, tmp_path):
    frame = io.BytesIO()
    np.save(frame, vectors(holistic(2), with_face=False)[0])
    path = tmp_path / "set" / place.format(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(frame.getvalue())

    check(tmp_path / "set")


# --- files made to fill the memory --------------------------------------------------------------


def refused(path: Path) -> str:
    before = pa.default_memory_pool().max_memory()
    message = outcome(path, skip=False)
    assert isinstance(message, str)
    assert pa.default_memory_pool().max_memory() <= max(before, 100 << 20)
    return message


def test_equal_numbers_that_unpack_to_gigabytes_are_refused_unread(tmp_path):
    rows, values = 1_000, 20 * 108
    zeros = pa.array(np.zeros(rows * values, np.float32))
    landmarks = pa.FixedSizeListArray.from_arrays(zeros, values)
    ids = pa.array(np.arange(rows))
    table = pa.table(
        {"clip_id": ids, "gloss": ids, "n_frames": pa.array([20] * rows), "landmarks": landmarks}
    )
    with pq.ParquetWriter(tmp_path / "signs.parquet", table.schema) as writer:
        for _ in range(20):
            writer.write_table(table)
    assert (tmp_path / "signs.parquet").stat().st_size < 3 << 20

    assert "0.3 GB" in refused(tmp_path / "signs.parquet")


@pytest.mark.slow
def test_one_page_of_gigabytes_is_refused_unread(tmp_path):
    columns = {"clip_id": ["a"], "gloss": ["x"], "n_frames": [1]}
    zeros = pa.array(np.zeros(1 << 27, np.float32))
    table = pa.table(columns | {"landmarks": pa.ListArray.from_arrays([0, len(zeros)], zeros)})
    path = tmp_path / "signs.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    del table, zeros

    assert "0.5 GB" in refused(path)


def test_rows_of_the_competition_that_take_no_room_are_refused_unread(tmp_path):
    target, path = a_long_parquet(tmp_path)
    zeros = pa.array(np.zeros(1_000_000))
    integers = zeros.cast(pa.int16())
    columns = {name: zeros for name in "xyz"} | dict.fromkeys(("frame", "landmark_index"), integers)
    table = pa.table(columns | {"type": pa.array(["pose"]).take(integers)})
    with pq.ParquetWriter(target, table.schema) as writer:
        for _ in range(9):
            writer.write_table(table)

    assert "0.4 GB" in refused(path)


def test_a_long_text_in_every_row_is_held_once(tmp_path):
    path = tmp_path / "signs.parquet"
    rows, text = 2_000, "x" * 500_000  # a gigabyte, were every row to have its own
    columns = {
        "clip_id": pa.array(np.arange(rows)),
        "gloss": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text]),
        "n_frames": pa.array([1] * rows),
        "landmarks": pa.array([[0.5] * 108] * rows, pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), path)

    dataset = outcome(path, skip=False)

    assert isinstance(dataset, SignDataset)
    assert dataset.classes == (text,)


def test_frames_of_a_pose_file_without_people_are_not_allocated(tmp_path):
    """Version 0 has two bytes for a frame without people, and a number for each point in memory."""
    names = b"".join(struct.pack("<H", 1) + b"p" for _ in range(60_000))
    component = struct.pack("<H4sH3sHHH", 4, b"POSE", 3, b"XYC", 60_000, 0, 0) + names
    header = struct.pack("<fHHHH", 0.0, 640, 480, 0, 1) + component
    (tmp_path / "a.pose").write_bytes(header + struct.pack("<HH", 25, 60_000) + bytes(120_000))

    assert "60000 frames" in refused(tmp_path / "a.pose")
