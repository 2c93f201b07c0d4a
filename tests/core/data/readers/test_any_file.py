"""Whatever a file holds, reading it ends in clips or in one line that says what is wrong.

Files are generated from the parts of each format, right and wrong ones mixed, and then damaged
byte by byte. Reading has a limit of memory, so nothing can be allocated on a file's word.
"""

import io
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from pose_files import HOLISTIC, random_points, write_pose
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings

MEMORY = 400 << 20
NUM_EXAMPLES = pytest.mark.parametrize(
    "num_examples", [8, pytest.param(1250, marks=pytest.mark.slow)]
)


def explore(num_examples: int, strategy: st.SearchStrategy, check: Callable[[Any], None]) -> None:
    """Check many drawn examples, the same ones in every run; a hang ends in a failure."""
    settings(
        max_examples=num_examples,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=30),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )(given(strategy)(check))()


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


def read_both_ways(path: Path) -> None:
    """Read a path strictly and leniently, and check what comes of it."""
    strict, lenient = outcome(path, skip=False), outcome(path, skip=True)
    if isinstance(strict, SignDataset):
        assert isinstance(lenient, SignDataset)
        assert lenient.fingerprint() == strict.fingerprint()


def outcome(path: Path, *, skip: bool) -> SignDataset | str:
    try:
        with limited_memory(MEMORY):
            dataset = load_dataset(path, DataSettings(skip_bad_clips=skip))
    except DataError as error:
        message = str(error)
        assert message.startswith(str(path.parent))
        assert message.isprintable()
        assert len(message) < 1_500
        assert "malloc" not in message
        return message
    assert len(dataset) >= 1
    for clip in dataset:
        assert clip.gloss
        assert clip.landmarks.dtype == np.float32
        assert clip.landmarks.shape == (clip.num_frames, 54, 2)
        is_missing = np.isnan(clip.landmarks)
        assert (is_missing[..., 0] == is_missing[..., 1]).all()
        assert not np.isinf(clip.landmarks).any()
        assert not is_missing.all()
    return dataset


# --- damage -------------------------------------------------------------------------------------

BLOBS = st.binary(max_size=24) | st.sampled_from(
    [b"\0" * 16, b"\xff" * 8, b"\n", b"\r", b'"', b",", b"[", b"]", b"nan", b"inf", b"-1", b"1e999"]
)
# A share of the file, or bytes from its start or its end, where headers and footers are.
PLACES = st.floats(0, 1) | st.integers(-3000, 500)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["cut", "overwrite", "insert", "delete", "repeat", "flip"]),
        PLACES,
        st.integers(0, 200),
        BLOBS,
    ),
    min_size=1,
    max_size=4,
)
Step = tuple[str, float | int, int, bytes]


def damaged(content: bytes, steps: list[Step]) -> bytes:
    for kind, where, length, blob in steps:
        place = (
            int(where * len(content)) if isinstance(where, float) else where % (len(content) + 1)
        )
        if kind == "cut":
            content = content[:place]
        elif kind == "overwrite":
            content = content[:place] + blob + content[place + len(blob) :]
        elif kind == "insert":
            content = content[:place] + blob + content[place:]
        elif kind == "delete":
            content = content[:place] + content[place + length :]
        elif kind == "flip" and place < len(content):
            flipped = content[place] ^ (1 << length % 8)
            content = content[:place] + bytes([flipped]) + content[place + 1 :]
        else:
            content = content[:place] + content[place : place + length] + content[place:]
    return content


def a_csv(folder: Path) -> Path:
    return write_csv(folder / "signs.csv", [person(3), person(4, 1)], extra={"video_fps": [25, 30]})


def a_parquet(folder: Path) -> Path:
    clips = [Clip(name, "book", person(3).astype(np.float32), "ann") for name in ("a", "b")]
    write_parquet(clips, folder / "signs.parquet")
    return folder / "signs.parquet"


def a_long_parquet(folder: Path) -> Path:
    rows = [
        {"path": f"clips/{n}.parquet", "participant_id": 1, "sequence_id": n, "sign": "book"}
        for n in range(2)
    ]
    for row in rows:
        write_long(folder / row["path"], long_columns(holistic(2)))
    write_index(folder, rows)
    return folder / "clips" / "1.parquet"


def an_index(folder: Path) -> Path:
    return a_long_parquet(folder).parents[1] / "train.csv"


def an_npy(folder: Path) -> Path:
    for clip in ("0", "1"):
        write_frames(folder / "book" / clip, vectors(holistic(2), with_face=False))
    return folder / "book" / "1" / "1.npy"


def a_pose(folder: Path) -> Path:
    for clip in ("0", "1"):
        points = random_points(2, sum(map(len, HOLISTIC.values())))
        write_pose(folder / "book" / f"{clip}.pose", HOLISTIC, points)
    return folder / "book" / "1.pose"


def pose_labels(folder: Path) -> Path:
    a_pose(folder)
    labels = folder / "book" / "labels.csv"
    labels.write_text("path,gloss,signer\n0.pose,book,ann\n1.pose,read,bob\n")
    return labels


MAKERS = [a_csv, a_parquet, a_long_parquet, an_index, an_npy, a_pose, pose_labels]


def read_as(target: Path, folder: Path) -> Path:
    """What is read when this file of a folder is damaged."""
    if target.name == "labels.csv":
        return target.parent
    return target if target.name.startswith("signs") else folder


@NUM_EXAMPLES
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_damaged_file_gives_clips_or_one_line(make, num_examples, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    target = make(folder)
    whole = target.read_bytes()
    path = (
        target
        if target.name.startswith("signs")
        else target.parent
        if make is pose_labels
        else folder
    )

    def check(steps: list[Step]) -> None:
        target.write_bytes(damaged(whole, steps))
        read_both_ways(path)

    explore(num_examples, DAMAGE, check)


# --- files put together from right and wrong parts ----------------------------------------------

CELLS = st.sampled_from(
    [
        "", "[]", "[0.5, 0.5, 0.5]", "[nan, nan, nan]", "[0.5 0.5 0.5]", "[inf, 0, 0]", "0.5",
        "[None, 1, 2]", "[[0.5], 1, 2]", "[1e39, 0, 0]", "[-0.0, 0, 0]", "nan", "[,,]", "[0.5,]",
        "[np.float64(0.5), 1, 2]", "(0.5, 0.5, 0.5)", "-1", "1e400", "999999999999999999999", "0x1",
    ]
) | st.text(max_size=8)  # fmt: skip


@NUM_EXAMPLES
def test_any_cells_of_a_csv_give_clips_or_one_line(num_examples, tmp_path):
    whole = [person(3), person(3, 1)]
    columns = ["labels", "video_fps", "nose_X", "nose_Y", "wrist_left_X", "thumbCMC_right_Y"]
    places = st.tuples(st.integers(0, 1), st.sampled_from(columns))

    def check(changes: dict[tuple[int, str], str]) -> None:
        path = write_csv(
            tmp_path / "signs.csv", whole, extra={"video_fps": [25, 30]}, changes=changes
        )
        read_both_ways(path)

    explore(num_examples, st.dictionaries(places, CELLS, min_size=1, max_size=4), check)


ROWS = 2
COLUMNS = st.sampled_from(
    [
        pa.nulls(ROWS), pa.array(["a", "b"]), pa.array(["a", None]), pa.array(["", ""]),
        pa.array(["a", "a"]).dictionary_encode(), pa.array([b"a", b"\xff"]), pa.array([1, 2]),
        pa.array([-1, 2**62]), pa.array([0.5, float("inf")]), pa.array([float("nan"), 1.0]),
        pa.array([True, False]), pa.array([[0.5] * 216, None]), pa.array([[0.5] * 216, [None]]),
        pa.array([[0.5] * 216, [1e39] * 216]), pa.array([[1] * 216, [2] * 216]),
        pa.array([[], [0.5] * 216]), pa.array([["a"], ["b"]]), pa.array([[[0.5]], [[0.5]]]),
        pa.array([{"x": 1}, {"x": 2}]), pa.array([0, 1], pa.timestamp("s")),
        pa.array(["2", "2"]), pa.array([2, 2], pa.uint8()), pa.array([2.0, 2.5]),
        pa.array(["\x1b[2J\r\n", "\u202e" * 500]), pa.array([2, 2], pa.decimal128(5)),
        pa.array(["a", "b"], pa.large_string()),
        pa.array([[0.5] * 216] * 2, pa.list_(pa.float16())),
    ]
)  # fmt: skip


@NUM_EXAMPLES
def test_any_columns_of_a_parquet_give_clips_or_one_line(num_examples, tmp_path):
    path = tmp_path / "signs.parquet"
    good = {
        "clip_id": pa.array(["a", "b"]), "gloss": pa.array(["x", "y"]),
        "n_frames": pa.array([2, 2]),
        "landmarks": pa.array([[0.5] * 216] * 2, pa.list_(pa.float32())),
    }  # fmt: skip
    names = st.sampled_from([*good, "signer", "session", "split", "fps", "aspect", "other"])

    def check(changes: dict[str, pa.Array]) -> None:
        pq.write_table(pa.table(good | changes), path)
        read_both_ways(path)

    explore(num_examples, st.dictionaries(names, COLUMNS, min_size=1, max_size=4), check)


def short_columns() -> dict[str, list]:
    columns = long_columns(holistic(2))
    return {name: values[:60] for name, values in columns.items()}


VALUES = {
    "frame": st.integers(-(2**15), 2**15 - 1) | st.none(),
    "type": st.sampled_from(["pose", "face", "left_hand", "right_hand", "", "POSE", None]),
    "landmark_index": st.integers(-1, 500) | st.none(),
    "x": st.floats() | st.none(),
    "y": st.floats() | st.none(),
}


@NUM_EXAMPLES
def test_any_values_of_a_long_parquet_give_clips_or_one_line(num_examples, tmp_path):
    a_long_parquet(tmp_path)
    whole = short_columns()
    change = st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(st.just(name), st.integers(0, 59), VALUES[name])
    )

    def check(changes: list[tuple[str, int, Any]]) -> None:
        columns = {name: list(values) for name, values in whole.items()}
        for name, row, value in changes:
            columns[name][row] = value
        write_long(tmp_path / "clips" / "1.parquet", columns)
        read_both_ways(tmp_path)

    explore(num_examples, st.lists(change, min_size=1, max_size=6), check)


@NUM_EXAMPLES
def test_any_types_of_a_long_parquet_give_clips_or_one_line(num_examples, tmp_path):
    a_long_parquet(tmp_path)
    good = pa.table(short_columns(), schema=LONG_SCHEMA).slice(0, ROWS)
    columns = {name: good[name] for name in good.column_names}

    def check(changes: dict[str, pa.Array]) -> None:
        pq.write_table(pa.table(columns | changes), tmp_path / "clips" / "1.parquet")
        read_both_ways(tmp_path)

    explore(num_examples, st.dictionaries(st.sampled_from(sorted(VALUES)), COLUMNS), check)


SHAPES = st.sampled_from(
    [(), (0,), (258,), (1, 258), (258, 1), (0, 258), (2, 258), (1662,), (1, 1, 258)]
)
ARRAYS = (
    st_np.arrays(st_np.scalar_dtypes() | st_np.unicode_string_dtypes(max_len=3), SHAPES)
    | st_np.arrays(np.float64, (258,), elements=st.floats(), fill=st.floats())
    | SHAPES.map(lambda shape: np.full(shape, None))
)


@NUM_EXAMPLES
@pytest.mark.parametrize("name", ["book/1/1.npy", "book/2.npy"])
def test_any_array_gives_clips_or_one_line(name, num_examples, tmp_path):
    an_npy(tmp_path)

    def check(array: np.ndarray) -> None:
        np.save(tmp_path / name, array, allow_pickle=True)
        read_both_ways(tmp_path)

    explore(num_examples, ARRAYS, check)


SHORT = st.integers(0, 3) | st.integers(0, 2**16 - 1)
NAMES = st.sampled_from([*HOLISTIC, "pose_keypoints_2d", "", "\x1b[2J"]) | st.text(max_size=4)
COMPONENTS = st.lists(
    st.tuples(
        NAMES,
        st.sampled_from(["XYZC", "XYC", "YXC", "C", "", "YCX", "XYZWVUC", "abc"]),
        st.sampled_from([*HOLISTIC.values(), [], ["1"]]),
        SHORT,
    ),
    max_size=4,
)
BODIES = st.tuples(
    st.sampled_from([0.0, 0.1, 0.2, 0.3, float("nan")]),
    st.tuples(SHORT, SHORT, SHORT),
    COMPONENTS,
    st.tuples(st.floats(width=32), st.integers(0, 3) | st.integers(0, 2**32 - 1), SHORT),
    st.booleans(),
    st.binary(max_size=64),
)


def pose_bytes(version, dimensions, components, claims, is_exact, tail) -> bytes:
    """A file with a header of any content and a body that may fit what it claims."""
    file = io.BytesIO()
    file.write(struct.pack("<fHHHH", version, *dimensions, len(components)))
    for name, axes, points, num_colors in components:
        for text in (name, axes):
            file.write(struct.pack("<H", len(text.encode())) + text.encode())
        colors = num_colors if num_colors < 4 else 0
        file.write(struct.pack("<HHH", len(points), 0, num_colors))
        for point in points:
            file.write(struct.pack("<H", len(point)) + point.encode())
        file.write(bytes(6 * colors))
    fps, num_frames, num_people = claims
    if version == 0.2:
        file.write(struct.pack("<fIH", fps, num_frames, num_people))
    else:
        file.write(struct.pack("<HHH", 25, num_frames % 65536, num_people))
    num_points = sum(len(points) for _, _, points, _ in components)
    num_axes = max((len(axes) for _, axes, _, _ in components), default=0)
    num_values = num_frames * num_people * num_points * num_axes
    if is_exact and num_values < 100_000:
        file.write(np.linspace(0.1, 500, num_values, dtype=np.float32).tobytes())
    file.write(tail if not is_exact else b"")
    return file.getvalue()


@NUM_EXAMPLES
def test_any_pose_file_gives_clips_or_one_line(num_examples, tmp_path):
    a_pose(tmp_path)

    def check(parts: tuple) -> None:
        (tmp_path / "book" / "1.pose").write_bytes(pose_bytes(*parts))
        read_both_ways(tmp_path)

    explore(num_examples, BODIES, check)


@NUM_EXAMPLES
def test_any_names_of_files_and_folders_give_clips_or_one_line(num_examples):
    parts = st.sampled_from(
        [
            "0",
            "1",
            "01",
            "10",
            "a",
            "٣",
            "²",
            "-1",
            " ",
            "x\n",
            "\x1b[2J",
            "0.npy",
            "[b]",
            "9" * 200,
        ]
    )
    paths = st.lists(
        st.tuples(
            st.lists(parts, max_size=3), parts, st.sampled_from([".npy", ".pose", "", ".csv"])
        ),
        min_size=1,
        max_size=5,
    )

    def check(names: list[tuple[list[str], str, str]]) -> None:
        with TemporaryDirectory() as folder:
            root = Path(folder) / "set"
            root.mkdir()
            for folders, name, suffix in names:
                path = root.joinpath(*folders, name + suffix)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(FRAME)
                except OSError:
                    continue  # a file stands where a folder should be, or the other way round
            read_both_ways(root)

    explore(num_examples, paths, check)


def _frame_bytes() -> bytes:
    file = io.BytesIO()
    np.save(file, vectors(holistic(2), with_face=False)[0])
    return file.getvalue()


FRAME = _frame_bytes()


# --- files made to fill the memory --------------------------------------------------------------


def test_equal_numbers_that_unpack_to_gigabytes_are_refused_unread(tmp_path):
    path = tmp_path / "signs.parquet"
    rows, values = 1_000, 20 * 108
    landmarks = pa.FixedSizeListArray.from_arrays(
        pa.array(np.zeros(rows * values, np.float32)), values
    )
    ids = pa.array(np.arange(rows))
    table = pa.table(
        {"clip_id": ids, "gloss": ids, "n_frames": pa.array([20] * rows), "landmarks": landmarks}
    )
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(20):
            writer.write_table(table)
    assert path.stat().st_size < 3 << 20

    message = outcome(path, skip=True)

    assert isinstance(message, str)
    assert "claims 0.3 GB of values in a file of" in message


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


def test_a_header_of_a_million_columns_is_refused(tmp_path):
    path = tmp_path / "signs.csv"
    path.write_bytes(b"nose_X" + b",a" * 1_000_000 + b"\n" + b"," * 1_000_000 + b"\n")

    message = outcome(path, skip=True)

    assert isinstance(message, str)
    assert "line 1: found 1,000,001 cells, expected a header of about 110" in message


def test_a_file_that_is_too_large_for_a_frame_is_not_read(tmp_path):
    an_npy(tmp_path)
    with (tmp_path / "book" / "1" / "1.npy").open("r+b") as file:
        file.truncate(1 << 40)  # a hole on the disk: a terabyte that takes no room

    message = outcome(tmp_path, skip=False)

    assert isinstance(message, str)
    assert "frame '1.npy': has 1,099,511,627,776 bytes, expected at most 65,536" in message
