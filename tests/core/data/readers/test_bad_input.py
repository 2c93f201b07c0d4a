"""Whatever is wrong with a file is told in one line: where, what was found, what was expected."""

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError
from slrctl.settings import DataSettings

ADVICE = "; correct the file, or leave such clips out with --skip-bad-clips"


def error_of(path: Path, classes: list[str] | None = None) -> str:
    """The message of the error that reading the file ends in."""
    with pytest.raises(DataError) as caught:
        load_dataset(path, classes=classes)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in message
    assert "  " not in message
    return message


# --- cells of a CSV -----------------------------------------------------------------------------

ROWS = {
    "a shorter list": (
        "wrist_left_Y", "[0.5, 0.5]", "unequal list lengths",
        "found a list of 2 numbers, expected 3 as in column 'nose_X'; "
        "all lists of a row have one number a frame",
    ),
    "another first list": (
        "nose_X", "[0.5]", "unequal list lengths",
        "found a list of 1 numbers, expected 3 as in column 'nose_Y'; "
        "all lists of a row have one number a frame",
    ),
    "a word": (
        "nose_Y", "[0.5, left, 0.5]", "non-numeric cell",
        "found 'left' as number 2 of the list, expected a number",
    ),
    "a number in quotes": (
        "nose_Y", "['0.5', 0.5, 0.5]", "non-numeric cell",
        "found \"'0.5'\" as number 1 of the list, expected a number",
    ),
    "a number that is none": (
        "nose_Y", "[0.5, 0.5.1, 0.5]", "non-numeric cell",
        "found '0.5.1' as number 2 of the list, expected a number",
    ),
    "a missing number": (
        "nose_Y", "[0.5, , 0.5]", "non-numeric cell",
        "found '' as number 2 of the list, expected a number",
    ),
    "a missing comma": (
        "nose_Y", "[0.5, 0.5 0.5]", "non-numeric cell",
        "found '0.5 0.5' as number 2 of the list, expected a number",
    ),
    "a list in a list": (
        "nose_Y", "[0.5, [0.5, 0.5]", "non-numeric cell",
        "found '[0.5' as number 2 of the list, expected a number",
    ),
    "an underscore": (
        "nose_Y", "[0.5, 1_0, 0.5]", "non-numeric cell",
        "found '1_0' as number 2 of the list, expected a number",
    ),
    "no list": (
        "nose_Y", "0.5", "cell without a list",
        "found '0.5', expected a list with one number a frame, such as [0.5, 0.51]",
    ),
    "a cut-off list": (
        "nose_Y", "[0.5, 0.5", "cell without a list",
        "found '[0.5, 0.5', expected a list with one number a frame, such as [0.5, 0.51]",
    ),
    "no text": (
        "nose_Y", "", "empty cell",
        "found an empty cell, expected a list with one number a frame, such as [0.5, 0.51]",
    ),
    "no number": (
        "nose_Y", "[]", "empty list",
        "found an empty list, expected a list with one number a frame, such as [0.5, 0.51]",
    ),
    "inf": (
        "indexTip_right_X", "[0.5, 0.5, -inf]", "inf",
        "found '-inf' in frame 3, expected a finite number",
    ),
    "too large a number": (
        "nose_Y", "[1e39, 0.5, 0.5]", "inf",
        "found '1e39' in frame 1, expected a finite number",
    ),
    "a gloss for a label": (
        "labels", "book", "label that is no integer",
        "found 'book', expected a whole number from 0 up",
    ),
    "no label": (
        "labels", "", "label that is no integer", "found '', expected a whole number from 0 up"
    ),
    "half a label": (
        "labels", "1.5", "label that is no integer",
        "found '1.5', expected a whole number from 0 up",
    ),
    "a negative label": (
        "labels", "-1", "label that is no integer", "found '-1', expected a whole number from 0 up"
    ),
    "a frame rate of text": (
        "video_fps", "fast", "bad video_fps",
        "found 'fast', expected a positive number, or nothing if unknown",
    ),
    "a negative frame rate": (
        "video_fps", "-25", "bad video_fps",
        "found '-25', expected a positive number, or nothing if unknown",
    ),
}  # fmt: skip


def csv_with(folder: Path, column: str, text: str) -> Path:
    """A CSV of three clips of three frames; a cell of the second one is changed."""
    clips = [person(3, seed) for seed in range(3)]
    extra = {"video_fps": [25, 25, 25]}
    changes = {(1, column): text}
    return write_csv(folder / "signs.csv", clips, extra=extra, changes=changes)


@pytest.mark.parametrize(("column", "text", "kind", "story"), ROWS.values(), ids=ROWS.keys())
def test_a_bad_cell_is_named(tmp_path, column, text, kind, story):
    path = csv_with(tmp_path, column, text)

    assert error_of(path) == f"{path}: row 2, column {column!r}: {story}{ADVICE}"


@pytest.mark.parametrize(("column", "text", "kind", "story"), ROWS.values(), ids=ROWS.keys())
def test_a_bad_cell_is_left_out_on_demand(tmp_path, column, text, kind, story):
    path = csv_with(tmp_path, column, text)

    dataset = load_dataset(path, DataSettings(skip_bad_clips=True))

    assert [clip.clip_id for clip in dataset] == ["signs:0", "signs:2"]
    assert [clip.gloss for clip in dataset] == ["0", "2"]
    for clip, seed in zip(dataset, (0, 2), strict=True):
        np.testing.assert_array_equal(clip.landmarks, person(3, seed).astype(np.float32))
    assert dataset.notes[0] == f"left out 1 of 3 clips: 1 {kind}"


def test_a_long_value_is_shortened(tmp_path):
    path = csv_with(tmp_path, "nose_Y", "[" + "x" * 500 + "]")

    assert f"found '{'x' * 55}...'" in error_of(path)


def test_a_clip_without_any_landmark_is_named(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3), np.full((4, 54, 2), np.nan)])

    assert error_of(path) == (
        f"{path}: row 2: none of its 4 frames has a landmark (all are 0 or nan); "
        f"expected at least one{ADVICE}"
    )


def test_a_row_with_too_few_cells_is_named(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3)] * 3)
    lines = path.read_bytes().split(b"\r\n")
    lines[2] = lines[2][: lines[2].rindex(b',"[')]
    path.write_bytes(b"\r\n".join(lines))

    assert error_of(path).startswith(
        f"{path}: row 2: has 108 cells, expected 109 as in the header; the row is cut off"
    )


def test_lists_without_quotes_are_named(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3)] * 2)
    path.write_bytes(path.read_bytes().replace(b'"', b""))

    assert error_of(path).startswith(
        f"{path}: row 1: has 325 cells, expected 109 as in the header; "
        "the row is cut off, or a list stands there without quotes"
    )


def test_rows_are_counted_the_same_after_a_row_that_is_left_out(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3, seed) for seed in range(4)])
    lines = path.read_bytes().split(b"\r\n")
    lines[2] = b"1"
    path.write_bytes(b"\r\n".join(lines).replace(b"\r\n3,", b"\r\nthree,"))

    dataset = load_dataset(path, DataSettings(skip_bad_clips=True))

    assert [clip.clip_id for clip in dataset] == ["signs:0", "signs:2"]
    assert dataset.notes[0] == (
        "left out 2 of 4 clips: 1 wrong number of cells, 1 label that is no integer"
    )


def test_bad_clips_are_counted_by_kind(tmp_path):
    changes = {
        (0, "nose_X"): "[0.5]",
        (2, "nose_X"): "[inf, 0.5, 0.5]",
        (3, "nose_Y"): "[0.5]",
        (3, "nose_X"): "[inf, 0.5, 0.5]",
    }
    path = write_csv(tmp_path / "signs.csv", [person(3)] * 6, changes=changes)

    notes = load_dataset(path, DataSettings(skip_bad_clips=True)).notes

    assert notes[0] == "left out 3 of 6 clips: 2 unequal list lengths, 1 inf"


def test_the_first_fault_of_a_row_is_the_one_that_counts(tmp_path):
    changes = {(1, "labels"): "book", (1, "nose_X"): "[0.5]"}
    path = write_csv(tmp_path / "signs.csv", [person(3)] * 3, changes=changes)

    assert "row 2, column 'labels': found 'book'" in error_of(path)
    notes = load_dataset(path, DataSettings(skip_bad_clips=True)).notes
    assert notes[0] == "left out 1 of 3 clips: 1 label that is no integer"


def test_a_file_of_bad_clips_alone_is_an_error_even_if_they_are_skipped(tmp_path):
    path = csv_with(tmp_path, "nose_X", "[0.5]")
    path = write_csv(path, [person(3)] * 2, changes={(n, "nose_X"): "[0.5]" for n in (0, 1)})

    with pytest.raises(DataError, match="none of its 2 clips can be read; the first is row 1, col"):
        load_dataset(path, DataSettings(skip_bad_clips=True))


# --- the header of a CSV ------------------------------------------------------------------------


def csv_with_header(folder: Path, change: Callable[[str], str]) -> Path:
    path = write_csv(folder / "signs.csv", [person(3)])
    header, rest = path.read_text(encoding="utf-8").split("\n", 1)
    path.write_text(f"{change(header)}\n{rest}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "story"),
    [
        (lambda header: header.replace("labels", "label"), "column 'labels' is missing"),
        (lambda header: header.replace("nose_Y", "nose_Z"),
         "column 'nose_Y' is missing: found 107 columns of 108; expected <landmark>_X"),
        (lambda header: header.replace("_left_", "_l_"),
         "column 'wrist_left_X' is missing (and 41 more): found 66 columns of 108"),
        (lambda header: header.replace("neck_Y", "other"), "column 'neck_Y' is missing"),
        (lambda header: header.lower(),
         "has no column with landmarks: found 'labels', 'nose_x', 'nose_y', 'neck_x' and 105 more"),
        (lambda header: header.replace(",", ";"), "has no column with landmarks: found 'labels;"),
        (lambda header: header.replace("nose_Y", "nose_X"), "column 'nose_Y' is missing"),
        (lambda header: header.replace("neck_X", "nose_X").replace("neck_Y", "other"),
         "column 'nose_X' stands in the header 2 times; keep one"),
        (lambda header: header.replace("neck_X", "wrist_0_X").replace("neck_Y", "other"),
         "columns 'wrist_left_X' and 'wrist_0_X' are the same landmark; remove one of them"),
    ],
)  # fmt: skip
def test_a_bad_header_is_explained(tmp_path, change, story):
    path = csv_with_header(tmp_path, change)

    assert error_of(path).startswith(f"{path}: {story}")


# --- whole files --------------------------------------------------------------------------------


def excel_file() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return buffer.getvalue()


FILES = {
    "nothing": ("signs.csv", lambda csv: b"", "is empty (0 bytes)"),
    "no bytes of a Parquet": ("signs.parquet", lambda csv: b"", "is empty (0 bytes)"),
    "blank lines": ("signs.csv", lambda csv: b"\n \r\n", "is empty; expected a header and one row"),
    "a header alone": ("signs.csv", lambda csv: csv.split(b"\r\n")[0] + b"\r\n",
                       "has a header but no row below it"),
    "UTF-16": ("signs.csv", lambda csv: csv.decode().encode("utf-16"),
               "is UTF-16 text, expected UTF-8; save it again as UTF-8"),
    "UTF-16 without a mark": ("signs.csv", lambda csv: csv.decode().encode("utf-16-le"),
                              "line 1: found a null byte, expected UTF-8 text"),
    "a null byte": ("signs.csv", lambda csv: csv.replace(b"0.5", b"0\x005", 1),
                    "line 2: found a null byte, expected UTF-8 text"),
    "Latin-1": ("signs.csv", lambda csv: csv.replace(b"\r\n0,", b"\r\nG\xfcnther,"),
                "line 2: found byte 0xfc, which is not UTF-8 (Latin-1?); save it again as UTF-8"),
    "gzip": ("signs.csv", gzip.compress, "is a gzip archive; unpack it first; we read"),
    "Excel": ("signs.csv", lambda csv: excel_file(), "is a zip archive or an Excel file; unpack"),
    "Git LFS": ("signs.parquet",
                lambda csv: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "is a Git LFS pointer, not the data; fetch it with git lfs pull"),
    "another type": ("signs.mp4", lambda csv: b"\0\0\0\x18ftypmp42",
                     r"is of a type we do not know, it starts with '\x00\x00\x00\x18ftyp'"),
    "text named Parquet": ("signs.parquet", lambda csv: b"hello there",
                           "is not Parquet: it starts with 'hello th', expected b'PAR1'"),
    "an open quotation": ("signs.csv", lambda csv: csv[: csv.rindex(b'"') - 3],
                          "row 1, column 'thumbCMC_right_Y': found '[0"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "story"), FILES.values(), ids=FILES.keys())
def test_a_file_that_is_no_table_of_clips_is_explained(tmp_path, name, content, story):
    path = write_csv(tmp_path / name, [person(3)])
    path.write_bytes(content(path.read_bytes()))

    assert error_of(path).startswith(f"{path}: {story}")


def test_a_path_to_nothing_is_explained(tmp_path):
    path = tmp_path / "absent.csv"

    assert error_of(path) == f"{path}: is not there; check the path"


def test_a_folder_is_explained(tmp_path):
    assert "is a folder without clips we can read; name one of: a SPOTER" in error_of(tmp_path)


def test_a_csv_by_another_name_is_still_read(tmp_path):
    path = write_csv(tmp_path / "signs.txt", [person(3)])

    assert len(load_dataset(path)) == 1


# --- Parquet ------------------------------------------------------------------------------------


def parquet_with(folder: Path, **columns: object) -> Path:
    """A Parquet of three clips of two frames; whole columns are replaced, or dropped by None."""
    path = folder / "signs.parquet"
    clips = [Clip(f"clip{n}", "book", person(2, n).astype(np.float32)) for n in range(3)]
    write_parquet(clips, path)
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return path


NUMBERS = person(2).ravel().tolist()

COLUMNS = {
    "a clip id of null": (
        {"clip_id": ["a", None, "c"]}, "row 2, column 'clip_id'", "no clip id",
        "found null, expected the clip's id",
    ),
    "a clip id twice": (
        {"clip_id": ["a", "b", "a"]}, "row 3, column 'clip_id'", "duplicate clip id",
        "found 'a', which row 1 has already; expected an id of its own for every clip",
    ),
    "a gloss of null": (
        {"gloss": ["a", None, "c"]}, "row 2, column 'gloss'", "no gloss",
        "found null, expected the name of the sign",
    ),
    "an empty gloss": (
        {"gloss": ["a", "b", ""]}, "row 3, column 'gloss'", "no gloss",
        "found an empty text, expected the name of the sign",
    ),
    "no landmarks": (
        {"landmarks": [NUMBERS, None, NUMBERS]}, "row 2, column 'landmarks'", "no landmarks",
        "found null, expected 2 x 54 x 2 numbers",
    ),
    "an empty list": (
        {"landmarks": [NUMBERS, NUMBERS, []]}, "row 3, column 'landmarks'", "no landmarks",
        "found an empty list, expected 2 x 54 x 2 numbers",
    ),
    "a short list": (
        {"landmarks": [NUMBERS, NUMBERS[:-1], NUMBERS]}, "row 2, column 'landmarks'",
        "wrong number of landmarks",
        "found 215 numbers, expected n_frames x 54 x 2 = 2 x 54 x 2 = 216",
    ),
    "another number of frames": (
        {"n_frames": [2, 3, 2]}, "row 2, column 'landmarks'", "wrong number of landmarks",
        "found 216 numbers, expected n_frames x 54 x 2 = 3 x 54 x 2 = 324",
    ),
    "no number of frames": (
        {"n_frames": [2, None, 2]}, "row 2, column 'n_frames'", "bad n_frames",
        "found null, expected the number of frames, at least 1",
    ),
    "no frame": (
        {"n_frames": [2, 0, 2]}, "row 2, column 'n_frames'", "bad n_frames",
        "found 0, expected the number of frames, at least 1",
    ),
    "nan frames": (
        {"n_frames": [2.0, float("nan"), 2.0]}, "row 2, column 'n_frames'", "bad n_frames",
        "found nan, expected the number of frames, at least 1",
    ),
    "inf frames": (
        {"n_frames": [2.0, float("inf"), 2.0]}, "row 2, column 'n_frames'", "bad n_frames",
        "found inf, expected the number of frames, at least 1",
    ),
    "inf": (
        {"landmarks": [NUMBERS, [*NUMBERS[:-1], float("inf")], NUMBERS]},
        "row 2, column 'landmarks'", "inf",
        "found inf in frame 2, expected a finite number, or nan if missing",
    ),
    "beyond float32": (
        {"landmarks": [[1e200, *NUMBERS[1:]], NUMBERS, NUMBERS]},
        "row 1, column 'landmarks'", "inf",
        "found inf in frame 1, expected a finite number, or nan if missing",
    ),
    "nothing detected": (
        {"landmarks": [NUMBERS, NUMBERS, [float("nan")] * 216]}, "row 3, column 'landmarks'",
        "no usable frame",
        "none of its 2 frames has a landmark (all are nan); expected at least one",
    ),
    "a negative aspect": (
        {"aspect": [1.0, -1.0, None]}, "row 2, column 'aspect'", "bad aspect",
        "found -1.0, expected a number from 0.001 to 10,000, or null if unknown",
    ),
    "an aspect of no image": (
        {"aspect": [1.0, 1.0, 1e308]}, "row 3, column 'aspect'", "bad aspect",
        "found 1e+308, expected a number from 0.001 to 10,000, or null if unknown",
    ),
    "a frame rate of zero": (
        {"fps": [0.0, 25.0, None]}, "row 1, column 'fps'", "bad fps",
        "found 0.0, expected a number from 0.001 to 10,000, or null if unknown",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "where", "kind", "story"), COLUMNS.values(), ids=COLUMNS.keys()
)
def test_a_bad_row_of_a_parquet_is_named(tmp_path, columns, where, kind, story):
    path = parquet_with(tmp_path, **columns)

    assert error_of(path) == f"{path}: {where}: {story}{ADVICE}"


@pytest.mark.parametrize(
    ("columns", "where", "kind", "story"), COLUMNS.values(), ids=COLUMNS.keys()
)
def test_a_bad_row_of_a_parquet_is_left_out_on_demand(tmp_path, columns, where, kind, story):
    path = parquet_with(tmp_path, **columns)
    bad_row = int(re.findall(r"row (\d)", where)[0]) - 1

    dataset = load_dataset(path, DataSettings(skip_bad_clips=True))

    good = [
        columns.get("clip_id", ["clip0", "clip1", "clip2"])[n] for n in range(3) if n != bad_row
    ]
    assert [clip.clip_id for clip in dataset] == good
    assert {clip.landmarks.shape for clip in dataset} == {(2, 54, 2)}
    assert dataset.notes[0] == f"left out 1 of 3 clips: 1 {kind}"


@pytest.mark.parametrize(
    ("columns", "story"),
    [
        ({"landmarks": None}, "column 'landmarks' is missing: found 'clip_id', 'gloss', 'signer'"),
        (
            {"clip_id": None, "n_frames": None},
            "column 'clip_id' is missing (and 'n_frames'): found",
        ),
        ({"landmarks": ["[0.5]"] * 3}, "column 'landmarks': found values of type string, expected"),
        (
            {"landmarks": [1.0, 2.0, 3.0]},
            "column 'landmarks': found values of type double, expected",
        ),
        ({"n_frames": ["2", "2", "2"]}, "column 'n_frames': found values of type string, expected"),
        ({"gloss": [0.5, 1.5, 2.5]}, "column 'gloss': found values of type double, expected text"),
        (
            {"gloss": [b"G\xfc", b"a", b"b"]},
            "column 'gloss': found values of type binary, expected",
        ),
        (
            {"fps": ["fast", "a", "b"]},
            "column 'fps': found values of type string, expected numbers",
        ),
    ],
)
def test_a_parquet_of_other_columns_is_explained(tmp_path, columns, story):
    path = parquet_with(tmp_path, **columns)

    assert error_of(path).startswith(f"{path}: {story}")


def test_a_parquet_without_rows_is_explained(tmp_path):
    path = tmp_path / "signs.parquet"
    write_parquet([], path)

    assert error_of(path).startswith(f"{path}: is empty: it has columns but no row")


@pytest.mark.parametrize("kept", [4, 12, 100, 0.5, 0.99])
def test_a_cut_off_parquet_is_explained(tmp_path, kept):
    path = parquet_with(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])

    message = error_of(path)

    assert message.startswith(f"{path}: cannot be read as Parquet: the file is cut off or damaged")
    assert message.endswith("fetch or convert it again")


def test_a_damaged_parquet_is_explained(tmp_path):
    path = parquet_with(tmp_path)
    content = bytearray(path.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    path.write_bytes(content)

    assert error_of(path).startswith(f"{path}: cannot be read as Parquet: the file is cut off or")


def test_text_that_is_not_utf8_is_explained(tmp_path):
    path = parquet_with(tmp_path)
    table = pq.read_table(path)
    latin = pa.array([b"G\xfcnther", b"a", b"b"]).view(pa.string())
    pq.write_table(table.set_column(1, "gloss", latin), path)

    assert error_of(path) == (
        f"{path}: column 'gloss': found text that is not UTF-8; write the file again as UTF-8"
    )


# --- glosses that training lacks ----------------------------------------------------------------


def test_a_gloss_that_training_lacks_is_named(tmp_path):
    path = parquet_with(tmp_path, gloss=["book", "tree", "tree"])

    message = error_of(path, classes=["book", "house"])

    assert message.startswith(
        f"{path}: found 2 clips of 3 with a gloss that training lacks: 'tree' "
        "(2 clips of 'tree', the first is 'clip1'); expected the 2 glosses of training"
    )
    assert "--skip-bad-clips" in message


def test_glosses_that_training_lacks_are_left_out_on_demand(tmp_path):
    path = parquet_with(tmp_path, gloss=["book", "tree", "tree"])

    dataset = load_dataset(path, DataSettings(skip_bad_clips=True), classes=["book", "house"])

    assert [clip.gloss for clip in dataset] == ["book"]
    assert dataset.classes == ("book", "house")
    assert dataset.notes == ("left out 2 clips of 3 with a gloss that training lacks: 'tree'",)


def test_numbers_beside_names_are_told_to_need_names(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3)])

    assert "--set data.gloss_names=FILE" in error_of(path, classes=["book", "house"])
