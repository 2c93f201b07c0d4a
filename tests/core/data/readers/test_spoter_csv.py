import ast
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from spoter_files import LEFT_SHOULDER, NECK, NOSE, RIGHT_SHOULDER, person, write_csv

from slrctl.core import skeleton
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.cleaning import padding_length
from slrctl.errors import DataError
from slrctl.settings import DataSettings


def landmarks_of(path: Path, row: int = 0, **settings) -> np.ndarray:
    return load_dataset(path, DataSettings(**settings))[row].landmarks


def read_plainly(path: Path) -> list[np.ndarray]:
    """The lists of a file as they stand there, by Python's own csv and literal_eval."""
    csv.field_size_limit(1 << 27)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in skeleton.LANDMARK_NAMES if f"{name}_X" in rows[0]]
    cells = [[[ast.literal_eval(row[f"{n}_{a}"]) for a in "XY"] for n in names] for row in rows]
    return [np.array(clip).transpose(2, 0, 1) for clip in cells]


def test_a_clip_holds_what_the_cells_say(tmp_path):
    clips = [person(4, seed=1), person(7, seed=2)]
    clips[1][2:5, skeleton.LEFT_HAND] = np.nan

    dataset = load_dataset(write_csv(tmp_path / "signs.csv", clips))

    assert [clip.clip_id for clip in dataset] == ["signs:0", "signs:1"]
    assert [clip.gloss for clip in dataset] == ["0", "1"]
    assert dataset.notes == ("labels count from 0",)
    for clip, written in zip(dataset, clips, strict=True):
        assert_array_equal(clip.landmarks, written.astype(np.float32))
        assert (clip.fps, clip.aspect, clip.signer, clip.split) == (None, 1.0, None, None)


def test_lists_are_read_as_literal_eval_reads_them(shared_data):
    path = shared_data / "csv" / "ksl_train.csv"

    clips = load_dataset(path)

    for clip, plain in zip(clips, read_plainly(path), strict=True):
        plain[(plain == 0).all(-1)] = np.nan
        assert_array_equal(clip.landmarks, plain.astype(np.float32))


SOME = [person(3 + seed % 5, seed) for seed in range(30)]


@pytest.mark.parametrize(
    "clips", [SOME, [person(3), person(60)]], ids=["many blocks", "a row longer than a block"]
)
def test_blocks_of_rows_read_as_one(tmp_path, monkeypatch, clips):
    monkeypatch.setattr("slrctl.core.data.readers.spoter_csv._BLOCK_BYTES", 1 << 15)
    monkeypatch.setattr("slrctl.core.data.readers.number_lists._PARSE_BYTES", 1 << 10)

    dataset = load_dataset(write_csv(tmp_path / "signs.csv", clips))

    for clip, written in zip(dataset, clips, strict=True):
        assert_array_equal(clip.landmarks, written.astype(np.float32))


def test_numbered_hands_and_no_neck_are_the_same_clips(tmp_path):
    clip = person(5)
    clip[:, NECK] = (clip[:, RIGHT_SHOULDER] + clip[:, LEFT_SHOULDER]) / 2
    clip[1, [NECK, LEFT_SHOULDER]] = np.nan
    numbered = write_csv(tmp_path / "numbered.csv", [clip], numbered=True, with_neck=False)

    dataset = load_dataset(numbered)

    assert_allclose(dataset[0].landmarks, clip, atol=1e-6)
    assert "no neck in the file: the midpoint of the shoulders is taken" in dataset.notes


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\r\n", "\n"),
        lambda text: text.replace("\r\n", "\r"),
        lambda text: text.replace("\r\n", "\r\n\r\n"),
        lambda text: "\n" + text,
        lambda text: text.rstrip(),
        lambda text: text.replace("labels,", " labels ,"),
        lambda text: text.replace("[", " [ ").replace("]", " ] "),
        lambda text: text.replace(", ", ","),
        lambda text: text.replace(", ", ",\n "),
        lambda text: text.replace(", ", " "),
        lambda text: text.replace(", ", "\n   "),
        lambda text: text.replace("0.5,", "np.float64(0.5),"),
        lambda text: text.replace("0.5,", "5e-1,").replace("0.3,", "+.3,"),
        lambda text: text.replace("0.0,", "nan,").replace("0.0]", "NaN]"),
        lambda text: text.replace("0.0,", "None,").replace("0.0]", "null]"),
        lambda text: text.replace("0.0,", "0,").replace("0.0]", "-0.0]"),
    ],
    ids=[
        "byte order mark", "LF", "CR", "blank lines", "leading blank line", "no last line end",
        "spaces in the header", "spaces", "no spaces", "line ends in cells", "no commas",
        "numpy rows", "numpy scalars", "other floats", "nan", "None", "integers",
    ],
)  # fmt: skip
def test_other_spellings_of_the_same_file_read_alike(tmp_path, rewrite):
    clips = [person(6, seed=1), person(5, seed=2)]
    clips[0][2:, skeleton.RIGHT_HAND] = np.nan
    path = write_csv(tmp_path / "signs.csv", clips)
    plain = load_dataset(path)
    path.write_text(rewrite(path.read_bytes().decode()), newline="")

    assert load_dataset(path).fingerprint() == plain.fingerprint()


def test_a_landmark_is_missing_where_both_coordinates_are_zero(tmp_path):
    clip = person(3)
    clip[0, 20], clip[1, 20], clip[2, 20] = [0, 0], [0, 0.4], [0.4, 0]

    landmarks = landmarks_of(write_csv(tmp_path / "signs.csv", [clip]))

    expected = np.array([[np.nan, np.nan], [0, 0.4], [0.4, 0]], dtype=np.float32)
    assert_array_equal(landmarks[:, 20], expected)


def test_unknown_columns_are_named_and_ignored(tmp_path):
    extra = {"Unnamed: 0": [0, 1], "video_id": ["a", "b"]}
    path = write_csv(tmp_path / "signs.csv", [person(3), person(4)], extra=extra)

    assert "2 columns not read: 'Unnamed: 0', 'video_id'" in load_dataset(path).notes


def test_frame_rate_and_frame_size_become_fps_and_aspect(tmp_path):
    extra = {
        "video_fps": [25.0, "", "nan"],
        "video_size_width": [640, 1280, ""],
        "video_size_height": [480, 720.0, ""],
    }

    dataset = load_dataset(write_csv(tmp_path / "signs.csv", [person(3)] * 3, extra=extra))

    assert [clip.fps for clip in dataset] == [25.0, None, None]
    assert [clip.aspect for clip in dataset] == [640 / 480, 1280 / 720, 1.0]


# --- labels -----------------------------------------------------------------------------------


def glosses_and_note(tmp_path, labels, classes=None, **settings) -> tuple[list[str], str]:
    path = write_csv(tmp_path / "signs.csv", [person(3)] * len(labels), labels)
    dataset = load_dataset(path, DataSettings(**settings), classes=classes)
    note = next(note for note in dataset.notes if note.startswith("labels count"))
    return [clip.gloss for clip in dataset], note


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        ([2, 0, 1], "labels count from 0"),
        ([2, 1, 3], "labels count from 1"),
        ([2.0, 1.0, 3.0], "labels count from 1"),
    ],
)
def test_a_training_file_keeps_its_integers(tmp_path, labels, note):
    assert glosses_and_note(tmp_path, labels) == ([str(int(n)) for n in labels], note)


FROM_0, FROM_1 = ("0", "1", "2"), ("1", "2", "3")


@pytest.mark.parametrize(
    ("labels", "classes", "glosses", "note"),
    [
        ([0, 2], FROM_0, ["0", "2"], "labels count from 0, as in the training set"),
        ([1, 2], FROM_0, ["1", "2"], "labels count from 0, as in the training set"),
        ([1, 3], FROM_0, ["0", "2"],
         "labels count from 1, those of the training set from 0: shifted by -1"),
        ([0, 2], FROM_1, ["1", "3"],
         "labels count from 0, those of the training set from 1: shifted by +1"),
        ([1, 2], FROM_1, ["1", "2"], "labels count from 1, as in the training set"),
        ([3], FROM_1, ["3"], "labels count from 1, as in the training set"),
        # Label 3 is missing in training, and 5 is no sign of counting from 1.
        ([1, 5], ("0", "1", "2", "4", "5"), ["1", "5"],
         "labels count from 0, as in the training set"),
    ],
)  # fmt: skip
def test_an_evaluation_file_is_brought_to_the_base_of_training(
    tmp_path, labels, classes, glosses, note
):
    assert glosses_and_note(tmp_path, labels, classes) == (glosses, note)


@pytest.mark.parametrize(
    ("file_name", "content"),
    [
        ("names.json", json.dumps({"0": "book", "1": "drink", "2": "chair"})),
        ("names.json", json.dumps(["book", "drink", "chair"])),
        ("names.csv", "label,gloss\n0,book\n1,drink\n2,chair\n"),
        ("names.csv", "0,book\n1,drink\n2,chair\n"),
    ],
)
def test_a_mapping_file_names_the_glosses(tmp_path, file_name, content):
    names = tmp_path / file_name
    names.write_text(content)

    glosses, _ = glosses_and_note(tmp_path, [2, 0, 1], gloss_names=names)

    assert glosses == ["chair", "book", "drink"]


def test_names_are_found_for_an_evaluation_file_that_counts_otherwise(tmp_path):
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"0": "book", "1": "drink", "2": "chair"}))

    glosses, note = glosses_and_note(
        tmp_path, [3, 1], ["book", "chair", "drink"], gloss_names=names
    )

    assert glosses == ["chair", "book"]
    assert note == "labels count from 1, those of the training set from 0: shifted by -1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": "book"}', r"row 2, column 'labels': found 1, .*names"),
        ("{0: book}", "names: not a JSON"),
        ('{"zero": "book"}', "names: row 1: found 'zero': 'book'"),
        ('{"0": 3}', "names: row 1: found '0': 3"),
        ("0,book\n1;drink\n", "names: row 2: found '1;drink'"),
        ("0,book\n1,book\n", "names: row 2: found '1': 'book' beside '0': 'book'"),
        ("0,book\n0,tree\n", "names: row 2: found '0': 'tree' beside '0': 'book'"),
        ("", "names no label"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_bad_mapping_file_is_explained(tmp_path, content, message):
    names = tmp_path / "names"
    names.write_text(content)

    with pytest.raises(DataError, match=message):
        glosses_and_note(tmp_path, [0, 1], gloss_names=names)


# --- padding, pixels, orientation ------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_empty", "num_repeated", "expected"),
    [(0, 0, 0), (1, 0, 0), (2, 0, 2), (5, 0, 5), (0, 1, 0), (0, 2, 2), (0, 4, 4), (3, 2, 3)],
)
@pytest.mark.parametrize("missing", [0, np.nan])
def test_padding_is_two_empty_frames_or_three_equal_ones(
    num_empty, num_repeated, expected, missing
):
    clip = person(6).astype(np.float32)
    repeats = np.repeat(clip[-1:], num_repeated, axis=0)
    empty = np.full((num_empty, 54, 2), missing, np.float32)

    assert padding_length(np.concatenate([clip, repeats, empty])) == expected


def test_padding_is_cut_and_reported_but_not_within_a_clip(tmp_path):
    clips = [person(9, seed=1), person(8, seed=2), person(7, seed=3)]
    clips[0][6:] = np.nan
    clips[1][5:] = clips[1][5]
    clips[2][2:5] = np.nan

    dataset = load_dataset(write_csv(tmp_path / "signs.csv", clips))

    assert [clip.num_frames for clip in dataset] == [6, 6, 7]
    assert "2 of 3 clips: trailing padding cut (5 frames)" in dataset.notes
    assert_array_equal(dataset[0].landmarks, clips[0][:6].astype(np.float32))


def in_pixels(clip: np.ndarray) -> np.ndarray:
    return (clip * [640, 480]).round(3)


@pytest.mark.parametrize(
    ("in_file", "in_settings"), [((640, 480), (1, 1)), (None, (640, 480))], ids=["file", "settings"]
)
def test_pixels_are_divided_by_the_size_in_the_file_else_in_the_settings(
    tmp_path, in_file, in_settings
):
    clip = person(4)
    clip[1:3, 20:40] = np.nan
    names = ("video_size_width", "video_size_height")
    size = {name: [side] for name, side in zip(names, in_file or (), strict=False)}
    path = write_csv(tmp_path / "signs.csv", [in_pixels(clip)], extra=size)

    dataset = load_dataset(path, DataSettings(frame_size=in_settings))

    assert_allclose(dataset[0].landmarks, clip, atol=2e-6)
    assert dataset[0].aspect == 640 / 480
    assert "pixel coordinates: divided by the frame size (640x480)" in dataset.notes


def test_pixels_without_a_size_keep_their_shape_and_warn(tmp_path):
    clip = in_pixels(person(4))
    path = write_csv(tmp_path / "signs.csv", [clip])

    dataset = load_dataset(path)

    assert_allclose(dataset[0].landmarks, clip / clip.max(), atol=1e-6)
    assert dataset[0].aspect == 1.0
    (warning,) = [note for note in dataset.notes if note.startswith("warning: ")]
    assert "pixel coordinates without a frame size in 1 of 1 clips" in warning
    assert "data.frame_size" in warning


def test_clips_of_one_file_are_divided_each_by_its_own_size(tmp_path):
    clips = [person(4, seed=1), person(5, seed=2), person(4, seed=3)]
    scales = [[640, 480], [1280, 720], [640, 480]]
    pixels = [(clip * scale).round(3) for clip, scale in zip(clips, scales, strict=True)]
    size = {"video_size_width": [640, 1280, ""], "video_size_height": [480, 720, ""]}

    dataset = load_dataset(write_csv(tmp_path / "signs.csv", pixels, extra=size))

    largest = max(clip.max() for clip in pixels)
    assert_allclose(dataset[0].landmarks, clips[0], atol=2e-6)
    assert_allclose(dataset[1].landmarks, clips[1], atol=2e-6)
    assert_allclose(dataset[2].landmarks, pixels[2] / largest, atol=1e-6)
    assert [clip.aspect for clip in dataset] == [640 / 480, 1280 / 720, 1.0]
    assert "pixel coordinates: divided by the frame size (2 sizes, 1280x720 to 640x480)" in (
        dataset.notes
    )


def test_without_noses_pixels_are_told_by_all_landmarks(tmp_path):
    clip = person(4)
    clip[:, NOSE] = np.nan
    path = write_csv(tmp_path / "signs.csv", [in_pixels(clip)])

    assert_allclose(landmarks_of(path, frame_size=(640, 480)), clip, atol=2e-6)


def test_hands_far_outside_the_image_does_not_make_pixels(tmp_path):
    clip = person(4)
    clip[:, 12:, 0] = 5.0

    assert_allclose(landmarks_of(write_csv(tmp_path / "signs.csv", [clip])), clip, atol=1e-6)


@pytest.mark.parametrize("are_zeros_turned", [False, True])
def test_a_set_with_y_pointing_up_is_turned_round(tmp_path, are_zeros_turned):
    clips = [person(4, seed=1), person(5, seed=2)]
    clips[0][1:3, 12:40] = np.nan
    turned = [np.stack([clip[..., 0], 1 - clip[..., 1]], -1).round(5) for clip in clips]
    if are_zeros_turned:
        turned[0][1:3, 12:40] = [0, 1]
    # One clip the right way round does not change the answer: the whole set decides.
    path = write_csv(tmp_path / "signs.csv", [*turned, clips[0][:1]])

    dataset = load_dataset(path)

    assert_allclose(dataset[0].landmarks, clips[0], atol=1e-6)
    assert_allclose(dataset[1].landmarks, clips[1], atol=1e-6)
    assert "y axis points up: turned round, y becomes 1 - y" in dataset.notes


def test_missing_shoulders_do_not_hide_that_y_points_up(tmp_path):
    clip = person(9)
    clip[2:, [RIGHT_SHOULDER, LEFT_SHOULDER]] = np.nan
    turned = np.stack([np.nan_to_num(clip[..., 0]), 1 - np.nan_to_num(clip[..., 1])], -1).round(5)

    assert_allclose(landmarks_of(write_csv(tmp_path / "signs.csv", [turned])), clip, atol=1e-6)


@pytest.mark.parametrize("absent", [[NOSE], [RIGHT_SHOULDER, LEFT_SHOULDER]])
def test_without_noses_or_shoulders_y_stays(tmp_path, absent):
    clip = person(4)
    clip[..., 1] = (1 - clip[..., 1]).round(5)
    clip[:, absent] = np.nan

    assert_allclose(landmarks_of(write_csv(tmp_path / "signs.csv", [clip])), clip, atol=1e-6)


# --- the real files ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ksl13(shared_data):
    return load_dataset(shared_data / "ksl13.parquet")


@pytest.mark.parametrize("name", ["ksl_train", "ksl_val", "ksl_padded204_base1", "ksl_pixels_yup"])
def test_a_real_csv_gives_the_clips_of_the_parquet_it_came_from(shared_data, ksl13, name):
    noses = np.stack([clip.landmarks[:, NOSE] for clip in ksl13])

    for clip in load_dataset(shared_data / "csv" / f"{name}.csv"):
        distances = np.abs(noses - clip.landmarks[:, NOSE]).max(axis=(1, 2))
        source = ksl13[int(np.nanargmin(distances))]
        assert_allclose(clip.landmarks, source.landmarks, atol=2e-5)


@pytest.mark.parametrize(
    "name", ["ksl_val", "ksl_padded204_base1", "ksl_pixels_yup", "ksl_pixels_yup_nosize"]
)
def test_real_files_agree_on_their_glosses_whatever_they_count_from(shared_data, ksl13, name):
    noses = np.stack([clip.landmarks[:, NOSE, 0] for clip in ksl13])
    noses = noses / noses[:, :1]  # so that clips in another scale are found as well
    train = load_dataset(shared_data / "csv" / "ksl_train.csv")
    val = load_dataset(shared_data / "csv" / f"{name}.csv", classes=train.classes)

    def name_of(landmarks: np.ndarray) -> str:
        nose = landmarks[:, NOSE, 0] / landmarks[0, NOSE, 0]
        return ksl13[int(np.nanargmin(np.abs(noses - nose).max(axis=1)))].gloss

    names = {clip.gloss: name_of(clip.landmarks) for clip in train}
    assert len(set(names.values())) == 13
    assert [name_of(clip.landmarks) for clip in val] == [names[clip.gloss] for clip in val]
