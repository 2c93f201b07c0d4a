"""Careless files are refused in one line with file, row, column and value, or left out on demand.

Each entry of a table is a set of clips of which the second one is bad; the first is good.
"""

import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from functools import partial
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
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings

Make = Callable[[Path], Path]
LENIENT = DataSettings(skip_bad_clips=True)


def message_of(path: Path, classes: list[str] | None = None) -> str:
    """The one line in which reading a path ends."""
    with pytest.raises(DataError) as caught:
        load_dataset(path, classes=classes)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert message.isprintable()
    return message


def written(name: str, content: bytes) -> Make:
    """A file of this content."""
    return changed(lambda folder: folder / name, name, lambda _: content)


def changed(make: Make, name: str, change: Callable[[bytes], bytes]) -> Make:
    """A set of which one file is changed, or written where it is not there."""

    def make_changed(folder: Path) -> Path:
        path, target = make(folder), folder / name
        target.write_bytes(change(target.read_bytes() if target.exists() else b""))
        return path

    return make_changed


# --- bad clips ----------------------------------------------------------------------------------


def cell(column: str, text: str) -> Make:
    def make(folder: Path) -> Path:
        clips = [person(3, seed) for seed in range(3)]
        extra = {"video_fps": [25, 25, 25]}
        return write_csv(folder / "a.csv", clips, extra=extra, changes={(1, column): text})

    return make


def line(change: Callable[[bytes], bytes]) -> Make:
    """Change the line of the second clip of a CSV."""

    def change_second(content: bytes) -> bytes:
        lines = content.split(b"\r\n")
        return b"\r\n".join([*lines[:2], change(lines[2]), *lines[3:]])

    clips = [person(3, seed) for seed in range(3)]
    return changed(lambda folder: write_csv(folder / "a.csv", clips), "a.csv", change_second)


NUMBERS = person(2).ravel().tolist()


def columns(**changes: list | pa.Array | None) -> Make:
    """A Parquet of three clips of two frames; columns are replaced, or dropped by None."""

    def make(folder: Path) -> Path:
        path = folder / "a.parquet"
        write_parquet(
            [Clip(f"clip{n}", "book", person(2, n).astype(np.float32)) for n in range(3)], path
        )
        table = pq.read_table(path)
        for name, values in changes.items():
            table = table.drop_columns([name])
            table = table if values is None else table.append_column(name, pa.array(values))
        pq.write_table(table, path)
        return path

    return make


def frames(change: Callable[[Path], object]) -> Make:
    """Two folders of vectors; something is done to the second one."""

    def make(folder: Path) -> Path:
        for clip in "01":
            write_frames(folder / "bye" / clip, vectors(holistic()))
        change(folder / "bye" / "1")
        return folder

    return make


def frame(value: np.ndarray, name: str = "2.npy", **options: bool) -> Make:
    return frames(lambda clip: np.save(clip / name, value, **options))


def one_value(index: int, value: float) -> Make:
    vector = vectors(holistic())[2]
    vector[index] = value
    return frame(vector)


def frame_bytes(change: Callable[[bytes], bytes]) -> Make:
    return changed(frames(lambda clip: None), "bye/1/2.npy", change)


NUM_POINTS = sum(map(len, HOLISTIC.values()))
BODY_BYTES = 3 * NUM_POINTS * 4 * 4


def pose(change: Callable[[bytes], bytes]) -> Make:
    """Two `.pose` files; the bytes of the second one are changed."""

    def make(folder: Path) -> Path:
        for clip in "01":
            points = random_points(3, NUM_POINTS)
            write_pose(folder / "book" / f"{clip}.pose", HOLISTIC, points)
        return folder

    return changed(make, "book/1.pose", change)


def patched(place: int, content: bytes) -> Make:
    """`place` counts from the start of the body, whose first ten bytes are its own header."""

    def change(file: bytes) -> bytes:
        start = len(file) - BODY_BYTES - 10 + place
        return file[:start] + content + file[start + len(content) :]

    return pose(change)


def labels(line: str) -> Make:
    def make(folder: Path) -> Path:
        write_pose(folder / "1.pose", HOLISTIC, random_points(3, NUM_POINTS))
        (folder / "labels.csv").write_text(f"path,gloss\n1.pose,book\n{line}\n")
        return folder

    return make


def index(**changes: object) -> Make:
    """Two clips of the competition; the second row of train.csv is changed."""

    def make(folder: Path) -> Path:
        rows = [
            {"path": f"{n}.parquet", "participant_id": 4, "sequence_id": n, "sign": "blow"}
            for n in (1000, 1001)
        ]
        for row in rows:
            write_long(folder / str(row["path"]), long_columns(holistic()))
        return write_index(folder, [rows[0], rows[1] | changes])

    return make


def long(**changes: tuple[int, object] | pa.Array | None) -> Make:
    """The second clip of the competition has a value or a column changed, or a column less."""

    def make(folder: Path) -> Path:
        values = long_columns(holistic())
        table = pa.table(values, schema=LONG_SCHEMA)
        for name, change in changes.items():
            if isinstance(change, tuple):
                values[name][change[0]] = change[1]
                column = pa.array(values[name], LONG_SCHEMA.field(name).type)
                table = table.set_column(table.schema.get_field_index(name), name, column)
            else:
                table = table.drop_columns([name])
                table = table if change is None else table.append_column(name, change)
        path = index()(folder)
        pq.write_table(table, folder / "1001.parquet")
        return path

    return make


# Column and text of a cell of a CSV; the kind of the fault, and words that the message holds.
CELLS = [
    ("wrist_left_Y", "[0.5, 0.5]", "unequal list lengths", ["2 numbers", "expected 3", "'nose_X'"]),
    ("nose_X", "[0.5]", "unequal list lengths", ["1 numbers", "expected 3", "'nose_Y'"]),
    ("nose_Y", "[0.5, left, 0.5]", "non-numeric cell", ["'left'", "number 2"]),
    ("nose_Y", "['0.5', 0.5, 0.5]", "non-numeric cell", ["\"'0.5'\"", "number 1"]),
    ("nose_Y", "[0.5, 0.5.1, 0.5]", "non-numeric cell", ["'0.5.1'", "number 2"]),
    ("nose_Y", "[0.5, , 0.5]", "non-numeric cell", ["''", "number 2"]),
    ("nose_Y", "[0.5, 0.5 0.5]", "non-numeric cell", ["'0.5 0.5'", "number 2"]),
    ("nose_Y", "[0.5, [0.5, 0.5]", "non-numeric cell", ["'[0.5'", "number 2"]),
    ("nose_Y", "[0.5, 1_0, 0.5]", "non-numeric cell", ["'1_0'"]),
    ("nose_Y", "[" + "x" * 500 + "]", "non-numeric cell", ["xxx...'"]),
    ("nose_Y", "0.5", "cell without a list", ["'0.5'", "[0.5, 0.51]"]),
    ("nose_Y", "[0.5, 0.5", "cell without a list", ["'[0.5, 0.5'"]),
    ("nose_Y", "", "empty cell", []),
    ("nose_Y", "[]", "empty list", []),
    ("indexTip_right_X", "[0.5, 0.5, -inf]", "inf", ["'-inf'", "frame 3"]),
    ("nose_Y", "[1e39, 0.5, 0.5]", "inf", ["'1e39'", "frame 1"]),
    ("labels", "book", "label that is no integer", ["'book'", "from 0 up"]),
    ("labels", "", "label that is no integer", ["''"]),
    ("labels", "1.5", "label that is no integer", ["'1.5'"]),
    ("labels", "-1", "label that is no integer", ["'-1'"]),
    ("video_fps", "fast", "bad video_fps", ["'fast'", "positive"]),
    ("video_fps", "-25", "bad video_fps", ["'-25'"]),
]
LINES = {
    "nothing detected": (
        lambda line: b'1' + b',"[0.0, 0.0]"' * 108, "no usable frame", ["2 frames"]),
    "cut off row": (
        lambda line: line[: line.rindex(b',"[')], "wrong number of cells", ["108 cells", "109"]),
    "no quotes": (
        lambda line: line.replace(b'"', b""), "wrong number of cells", ["325 cells", "109"]),
}  # fmt: skip
NAN, INF = float("nan"), float("inf")
# Columns of our Parquet, the one at fault first; the kind of the fault, and words of the message.
ROWS = [
    ({"clip_id": ["a", None, "c"]}, "no clip id", ["null"]),
    ({"clip_id": ["a", "a", "c"]}, "duplicate clip id", ["'a'", "row 1"]),
    ({"gloss": ["a", None, "c"]}, "no gloss", ["null"]),
    ({"gloss": ["a", "", "c"]}, "no gloss", ["empty"]),
    ({"landmarks": [NUMBERS, None, NUMBERS]}, "wrong number of landmarks", ["null", "2 x 54 x 2"]),
    ({"landmarks": [NUMBERS, [], NUMBERS]}, "wrong number of landmarks", ["0 numbers", "216"]),
    ({"landmarks": [NUMBERS, NUMBERS[1:], NUMBERS]}, "wrong number of landmarks", ["215", "216"]),
    ({"landmarks": [NUMBERS, [*NUMBERS[1:], INF], NUMBERS]}, "inf", ["thumbCMC_right", "frame 2"]),
    ({"landmarks": [NUMBERS, [1e200, *NUMBERS[1:]], NUMBERS]}, "inf", ["x of nose", "frame 1"]),
    ({"landmarks": [NUMBERS, [NAN] * 216, NUMBERS]}, "no usable frame", ["2 frames"]),
    ({"landmarks": [NUMBERS] * 3, "n_frames": [2, 3, 2]}, "wrong number of landmarks",
     ["216 numbers", "3 x 54 x 2 = 324"]),
    ({"n_frames": [2, None, 2]}, "bad n_frames", ["null"]),
    ({"n_frames": [2, 0, 2]}, "bad n_frames", ["found 0,"]),
    ({"n_frames": [2, NAN, 2]}, "bad n_frames", ["nan"]),
    ({"n_frames": [2, INF, 2]}, "bad n_frames", ["inf"]),
    ({"aspect": [1.0, -1.0, None]}, "bad aspect", ["-1.0", "0.001 to 10,000"]),
    ({"aspect": [1.0, 1e308, 1.0]}, "bad aspect", ["1e+308"]),
    ({"fps": [25.0, 0.0, None]}, "bad fps", ["0.0"]),
]  # fmt: skip
# The second of two folders of vectors.
VECTORS = {
    "size of no vector": (frame(np.zeros(100)), "wrong size", ["'2.npy'", "(100,)", "1662", "258"]),
    "three axes": (frame(np.zeros((1, 1, 1662))), "wrong size", ["'2.npy'"]),
    "two vectors": (frame(np.zeros((2, 1662))), "wrong size", ["2 vectors"]),
    "other size": (frame(np.ones(258)), "mixed sizes", ["'2.npy'", "258", "1662"]),
    "objects": (frame(np.array([{}, None]), allow_pickle=True), "damaged file", ["'2.npy'"]),
    "text": (frame(np.array(["a", "b"])), "no numbers", ["'2.npy'", "<U1"]),
    "nan": (one_value(4 * 14 + 1, NAN), "nan or inf", ["nan", "frame 3"]),
    "inf in a hand": (one_value(1662 - 63, -INF), "nan or inf", ["-inf", "frame 3"]),
    "1e300": (one_value(1662 - 126, 1e300), "nan or inf", ["inf", "frame 3"]),
    "cut off": (frame_bytes(lambda file: file[:-100]), "damaged file", ["'2.npy'", "cut off"]),
    "shape beyond the file": (
        frame_bytes(lambda file: file.replace(b"(1662,), ", b"(9999999999,), ")),
        "damaged file", ["'2.npy'"]),
    "empty": (frame_bytes(lambda file: b""), "damaged file", ["'2.npy'"]),
    "zip": (frame_bytes(lambda file: b"PK\x03\x04 and so on"), "damaged file", ["'2.npy'"]),
    "a terabyte of nothing": (
        frames(lambda clip: os.truncate(clip / "2.npy", 1 << 40)),
        "too large file", ["'2.npy'", "1,099,511,627,776"]),
    "gap": (frames(lambda clip: (clip / "1.npy").unlink()),
            "gap between frames", ["'0.npy'", "'2.npy'"]),
    "frame twice": (frame(np.zeros(1662), "02.npy"), "gap between frames", ["'02.npy'", "'2.npy'"]),
    "name of no number": (frame(np.zeros(1662), "last.npy"), "frame without a number",
                          ["'last.npy'"]),
    "no frame": (frames(lambda clip: [file.unlink() for file in clip.iterdir()]),
                 "no frame", ["0.npy"]),
    "nothing detected": (
        frames(lambda clip: [np.save(file, np.zeros(1662)) for file in clip.iterdir()]),
        "no usable frame", ["4 frames"]),
}  # fmt: skip
# The second of two `.pose` files.
POSES = {
    "cut off": (pose(lambda file: file[:-100]), "damaged file", ["cut off"]),
    "a billion frames": (patched(4, struct.pack("<I", 10**9)), "damaged file", []),
    "too few frames": (
        patched(4, struct.pack("<I", 2)), "damaged file", [f"{BODY_BYTES // 3} bytes"]),
    "cut off header": (pose(lambda file: file[:300]), "damaged file", []),
    "other version": (
        pose(lambda file: struct.pack("<f", 7.0) + file[4:]), "damaged file", ["7.0"]),
    "empty": (pose(lambda file: b""), "damaged file", []),
    "no frames": (pose(lambda file: file[: -BODY_BYTES - 6] + struct.pack("<IH", 0, 1)),
                  "no usable frame", ["0 frames"]),
    "no people": (pose(lambda file: file[: -BODY_BYTES - 2] + bytes(2)),
                  "no usable frame", ["0 people"]),
    "inf": (patched(10, struct.pack("<f", INF)), "inf", ["x of nose", "frame 1"]),
    "no confidence": (patched(10 + BODY_BYTES * 3 // 4, bytes(BODY_BYTES // 4)),
                      "no usable frame", ["3 frames"]),
    "no size": (pose(lambda file: file[:4] + bytes(4) + file[8:]),
                "no frame size", ["0 x 0", "--set data.frame_size=[640,480]"]),
    "other points": (
        pose(lambda file: file.replace(b"HAND", b"FOOT").replace(b"POSE", b"LEGS")),
        "unknown points", ["'LEGS_LANDMARKS'", "MediaPipe Holistic"]),
}  # fmt: skip
LABELS = [
    ("2.pose,tree", "2", "missing file", ["'path'", "'2.pose'"]),
    ("../1.pose,tree", "../1", "path elsewhere", ["'path'", "'../1.pose'"]),
    ("1.pose,", "1", "no gloss", ["'gloss'", "labels.csv"]),
]
NUM_ROWS = 4 * 543
# The second row of train.csv, or its Parquet.
COMPETITION = {
    "unknown type": (long(type=(700, "hand")), "unknown landmark",
                     ["1001.parquet: row 701", "'type'", "'hand'", "left_hand"]),
    "no type": (long(type=(0, None)), "unknown landmark", ["row 1,", "None"]),
    "index too large": (long(landmark_index=(32, 33)), "unknown landmark",
                        ["row 33", "'landmark_index'", "'pose' and 33", "0 to 32"]),
    "index below 0": (long(landmark_index=(522, -1)), "unknown landmark",
                      ["row 523", "'right_hand' and -1", "0 to 20"]),
    "frame of null": (long(frame=(543, None)), "no frame", ["row 544, column 'frame'", "null"]),
    "inf": (long(y=(522, INF)), "inf", ["1001.parquet: row 523, column 'y'", "found inf"]),
    "landmark twice": (long(landmark_index=(5, 4)), "landmark there twice",
                       ["row 6", "pose landmark 4", "frame 20"]),
    "all missing": (long(x=pa.nulls(NUM_ROWS), y=pa.nulls(NUM_ROWS)),
                    "no usable frame", ["4 frames"]),
    "no x": (long(x=None), "missing column", ["1001.parquet", "'x'"]),
    "words for x": (long(x=pa.array(["a"] * NUM_ROWS)), "wrong type of column",
                    ["column 'x'", "string", "numbers"]),
    "half frames": (long(frame=pa.array([0.5] * NUM_ROWS)), "wrong type of column",
                    ["column 'frame'", "double", "integers"]),
    "clip not there": (index(path="7.parquet"), "missing file", ["'path'", "7.parquet"]),
    "clip elsewhere": (index(path="../1001.parquet"), "path elsewhere",
                       ["'path'", "'../1001.parquet'"]),
    "absolute path": (index(path="/etc/passwd"), "path elsewhere", ["'/etc/passwd'"]),
    "no sign": (index(sign=""), "no sign", ["'sign'"]),
}  # fmt: skip
# A function that writes the set, the place that the message names, the kind and the words.
BAD_CLIPS: dict[str, tuple[Make, str, str, list[str]]] = {
    **{f"{column} {text:.20}": (cell(column, text), f"row 2, column {column!r}", kind, words)
       for column, text, kind, words in CELLS},
    **{name: (line(change), "row 2", kind, words)
       for name, (change, kind, words) in LINES.items()},
    **{f"{next(iter(changes))} {kind} {words[0]}":
       (columns(**changes), f"row 2, column {next(iter(changes))!r}", kind, words)
       for changes, kind, words in ROWS},
    **{f"npy {name}": (make, "clip 'bye/1'", kind, words)
       for name, (make, kind, words) in VECTORS.items()},
    **{f"pose {name}": (make, "clip 'book/1'", kind, words)
       for name, (make, kind, words) in POSES.items()},
    **{f"labels.csv {kind}": (labels(text), f"clip {clip!r}", kind, words)
       for text, clip, kind, words in LABELS},
    **{f"long {name}": (make, "row 2", kind, words)
       for name, (make, kind, words) in COMPETITION.items()},
}  # fmt: skip


@pytest.mark.parametrize(("make", "where", "kind", "words"), BAD_CLIPS.values(), ids=BAD_CLIPS)
def test_a_bad_clip_is_named_or_left_out_on_demand(tmp_path, make, where, kind, words):
    path = make(tmp_path)

    message = message_of(path)
    dataset = load_dataset(path, LENIENT)

    assert message.startswith(f"{path}: {where}: ")
    assert [word for word in words if word not in message] == []
    assert "--skip-bad-clips" in message
    num_good = 2 if path.is_file() and path.name != "train.csv" else 1
    assert len(dataset) == num_good
    assert f"left out 1 of {num_good + 1} clips: 1 {kind}" in dataset.notes


def test_bad_clips_are_counted_by_the_first_fault_of_each(tmp_path):
    changes = {
        (0, "nose_X"): "[0.5]",
        (2, "nose_X"): "[inf, 0.5, 0.5]",
        (3, "nose_Y"): "[0.5]",
        (3, "nose_X"): "[inf, 0.5, 0.5]",
        (4, "labels"): "book",
        (4, "nose_X"): "[0.5]",
    }
    path = write_csv(tmp_path / "a.csv", [person(3, seed) for seed in range(7)], changes=changes)
    content = path.read_bytes().split(b"\r\n")
    path.write_bytes(b"\r\n".join([*content[:2], b"1", *content[3:]]))

    dataset = load_dataset(path, LENIENT)

    assert [clip.clip_id for clip in dataset] == ["a:5", "a:6"]
    np.testing.assert_array_equal(dataset[1].landmarks, person(3, 6).astype(np.float32))
    counts = dataset.notes[0].partition(": ")[2].split(", ")
    assert sorted(counts) == [
        "1 inf", "1 label that is no integer", "1 wrong number of cells", "2 unequal list lengths"
    ]  # fmt: skip


def test_a_file_of_bad_clips_alone_is_an_error_even_if_they_are_skipped(tmp_path):
    path = write_csv(
        tmp_path / "a.csv", [person(3)] * 2, changes={(n, "nose_X"): "[0.5]" for n in (0, 1)}
    )

    with pytest.raises(DataError, match=r"none of its 2 clips .* row 1, column 'nose_X'"):
        load_dataset(path, LENIENT)


@pytest.mark.parametrize("cut", [1, 100, 2848, 50_000])
def test_an_old_pose_file_that_was_cut_off_is_not_read_with_its_points_in_wrong_places(
    tmp_path, shared_data, cut
):
    """Version 0.1, whose number of frames is computed from the length of the file."""
    content = (shared_data / "pose" / "pizza.pose").read_bytes()
    (tmp_path / "pizza.pose").write_bytes(content[:-cut])

    assert "cut off" in message_of(tmp_path / "pizza.pose")


# --- bad files ----------------------------------------------------------------------------------


def content(name: str, change: Callable[[bytes], bytes]) -> Make:
    """A CSV whose bytes are changed, under any name."""
    return changed(lambda folder: write_csv(folder / name, [person(3)]), name, change)


def csv_header(old: str, new: str, *more: str) -> Make:
    """A CSV of which words in the header are replaced."""
    pairs = dict(zip((old, *more[::2]), (new, *more[1::2]), strict=True))

    def change(csv: bytes) -> bytes:
        header, rest = csv.decode().split("\n", 1)
        for word, other in pairs.items():
            header = header.replace(word, other)
        return f"{header}\n{rest}".encode()

    return content("a.csv", change)


def zip_file(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return folder / "a.csv"


def latin_gloss(folder: Path) -> Path:
    latin = pa.array([b"G\xfcnther", b"a", b"b"]).view(pa.string())
    return columns(gloss=latin)(folder)


def no_rows(folder: Path) -> Path:
    write_parquet([], folder / "a.parquet")
    return folder / "a.parquet"


def vectors_at(place: str) -> Make:
    def make(folder: Path) -> Path:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / place, np.zeros(1662))
        return folder

    return make


a_parquet = partial(changed, columns(), "a.parquet")
a_labels_csv = partial(changed, labels(""), "labels.csv")
BAD_FILES: dict[str, tuple[Make, tuple[str, ...]]] = {
    # the header of a CSV
    "no labels": (csv_header("labels", "label"), ("column 'labels'",)),
    "no nose_Y": (csv_header("nose_Y", "nose_Z"),
                  ("column 'nose_Y'", "107 columns of 108")),
    "no left hand": (csv_header("_left_", "_l_"),
                     ("column 'wrist_left_X'", "41 more", "66 columns of 108")),
    "half a neck": (csv_header("neck_Y", "other"), ("column 'neck_Y'",)),
    "lower case": (csv_header("_X", "_x", "_Y", "_y"), ("'nose_x'", "<landmark>_X")),
    "semicolons": (csv_header(",", ";"), ("'labels;", "commas")),
    "column twice": (
        csv_header("neck_X", "nose_X", "neck_Y", "other"),
        ("'nose_X', 'nose_X'",)),
    "landmark twice": (
        csv_header("neck_X", "wrist_0_X", "neck_Y", "other"),
        ("'wrist_0_X', 'wrist_left_X'",)),
    "a million columns": (
        content("a.csv", lambda csv: b"nose_X" + b",a" * 1_000_000 + b"\n"), ("line 1",)),
    # files that are no table of clips
    "0 bytes": (content("a.csv", lambda csv: b""), ("empty",)),
    "0 bytes of Parquet": (content("a.parquet", lambda csv: b""), ("empty",)),
    "blank lines": (content("a.csv", lambda csv: b"\n \r\n"), ("empty",)),
    "header alone": (content("a.csv", lambda csv: csv.split(b"\r\n")[0] + b"\r\n"), ("no row",)),
    "UTF-16": (content("a.csv", lambda csv: csv.decode().encode("utf-16")), ("UTF-16", "UTF-8")),
    "UTF-16 without a mark": (
        content("a.csv", lambda csv: csv.decode().encode("utf-16-le")), ("line 1", "0x00")),
    "null byte": (
        content("a.csv", lambda csv: csv.replace(b"0.5", b"0\x005", 1)), ("line 2", "0x00")),
    "Latin-1": (content("a.csv", lambda csv: csv.replace(b"\r\n0,", b"\r\nG\xfcnther,")),
                ("line 2", "0xfc", "UTF-8")),
    "gzip": (content("a.csv", gzip.compress), ("gzip", "unpack")),
    "Excel": (zip_file, ("zip", "Excel")),
    "Git LFS": (written("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid 0\n"),
                ("git lfs pull",)),
    "video": (written("a.mp4", b"\0\0\0\x18ftypmp42"), ("ftyp",)),
    "text named Parquet": (written("a.parquet", b"hello there"), ("'hello th'", "PAR1")),
    "open quotation": (content("a.csv", lambda csv: csv[: csv.rindex(b'"') - 3]),
                       ("row 1, column 'thumbCMC_right_Y'", "'[0")),
    "no file": (lambda folder: folder / "absent.csv", ("not there",)),
    "empty folder": (lambda folder: folder, ("folder", "SPOTER")),
    "vectors beside each other": (vectors_at("0.npy"), ("<gloss>/<clip>/<frame>.npy",)),
    "vectors too deep": (vectors_at("a/b/c/0.npy"), ("<gloss>/<clip>/<frame>.npy",)),
    # the columns of our Parquet
    "no column landmarks": (columns(landmarks=None), ("column 'landmarks'", "'clip_id'")),
    "no ids": (columns(clip_id=None, n_frames=None), ("column 'clip_id'", "'n_frames'")),
    "landmarks of text": (columns(landmarks=["[0.5]"] * 3), ("'landmarks'", "string", "lists")),
    "landmarks of numbers": (columns(landmarks=[1.0, 2.0, 3.0]), ("'landmarks'", "double")),
    "n_frames of text": (columns(n_frames=["2"] * 3), ("'n_frames'", "string", "numbers")),
    "gloss of numbers": (columns(gloss=[0.5, 1.5, 2.5]), ("'gloss'", "double", "text")),
    "gloss of bytes": (columns(gloss=[b"G\xfc", b"a", b"b"]), ("'gloss'", "binary")),
    "gloss of records": (columns(gloss=[{"x": 1}] * 3), ("'gloss'", "struct")),
    "fps of text": (columns(fps=["fast"] * 3), ("'fps'", "string", "numbers")),
    "gloss in Latin-1": (latin_gloss, ("'gloss'", "UTF8")),
    "no rows": (no_rows, ("empty", "no row")),
    **{f"Parquet cut after {n} bytes": (a_parquet(lambda file, n=n: file[:n]), ("cut off",))
       for n in (4, 12, 100, 2000)},
    "overwritten Parquet": (
        a_parquet(lambda file: file[:4] + bytes(1000) + file[1004:]), ("damaged",)),
    # tables beside the clips
    "one clip of the competition": (
        lambda folder: long()(folder).with_name("1000.parquet"), ("train.csv",)),
    "train.csv without rows": (lambda folder: write_index(folder, []), ("0 rows",)),
    "train.csv with a carriage return": (
        written("train.csv", b"path,participant_id\r,sequence_id,sign\na,1,2,blow\n"),
        ("'path', 'participant_id'", "sign")),
    "train.csv in Latin-1": (
        written("train.csv", b"path,participant_id,sequence_id,sign\na,1,2,fr\xfch\n"),
        ("UTF-8",)),
    "labels.csv without rows": (a_labels_csv(lambda _: b""), ("labels.csv", "0 rows")),
    "labels.csv of other columns": (
        a_labels_csv(lambda _: b"name,sign\n1.pose,book\n"), ("labels.csv", "'name'")),
    "labels.csv in Latin-1": (
        a_labels_csv(lambda _: b"path,gloss\n\xff\xfe,\xfc"), ("labels.csv", "UTF-8")),
}  # fmt: skip


@pytest.mark.parametrize(("make", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_explained(tmp_path, make, words):
    path = make(tmp_path)

    message = message_of(path)

    assert message.startswith(str(path))
    assert [word for word in words if word not in message] == []


# --- padding ------------------------------------------------------------------------------------


def empty_frames(folder: Path) -> Path:
    write_frames(folder / "book" / "1", np.concatenate([vectors(holistic()), np.zeros((3, 1662))]))
    return folder


def empty_poses(folder: Path) -> Path:
    points = random_points(7, NUM_POINTS)
    points[4:] = np.nan
    write_pose(folder / "book.pose", HOLISTIC, points)
    return folder / "book.pose"


def repeated_landmarks(folder: Path) -> Path:
    parts = {name: points[[0, 1, 2, 3, 3, 3, 3]] for name, points in holistic().items()}
    path = index()(folder)
    for clip in ("1000", "1001"):
        write_long(folder / f"{clip}.parquet", long_columns(parts))
    return path


@pytest.mark.parametrize("make", [empty_frames, empty_poses, repeated_landmarks])
def test_padding_of_every_foreign_format_is_cut_and_reported(tmp_path, make):
    dataset = load_dataset(make(tmp_path))

    assert [clip.num_frames for clip in dataset] == [4] * len(dataset)
    padding = f"{len(dataset)} of {len(dataset)} clips: trailing padding cut ({3 * len(dataset)} "
    assert any(note.startswith(padding) for note in dataset.notes)


# --- glosses that training lacks ----------------------------------------------------------------


def test_a_gloss_that_training_lacks_is_named_or_left_out(tmp_path):
    path = columns(gloss=["book", "tree", "tree"])(tmp_path)

    message = message_of(path, ["book", "house"])
    dataset = load_dataset(path, LENIENT, classes=["book", "house"])

    for part in ("2 clips of 3", "'tree'", "'clip1'", "'book', 'house'", "--skip-bad-clips"):
        assert part in message
    assert [clip.gloss for clip in dataset] == ["book"]
    assert dataset.classes == ("book", "house")
    assert "2 clips of 3" in dataset.notes[0]


def test_numbers_beside_names_need_names(tmp_path):
    path = write_csv(tmp_path / "a.csv", [person(3)])

    assert "--set data.gloss_names=FILE" in message_of(path, ["book", "house"])
