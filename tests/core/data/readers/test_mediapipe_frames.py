"""Folders of MediaPipe vectors, `<gloss>/<clip>/<frame>.npy`, become clips."""

from pathlib import Path

import numpy as np
import pytest
from holistic_files import expected_landmarks, holistic, vectors, write_frames
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.core import skeleton
from slrctl.core.data.dataset import load_dataset
from slrctl.errors import DataError
from slrctl.settings import DataSettings


@pytest.mark.parametrize("with_face", [True, False])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_every_landmark_is_the_one_of_its_name(tmp_path, with_face, kind):
    parts = holistic()
    frames = vectors(parts, with_face=with_face).astype(kind)
    write_frames(tmp_path / "set" / "good job" / "7", frames)

    (clip,) = load_dataset(tmp_path / "set")

    assert (clip.clip_id, clip.gloss, clip.num_frames) == ("good job/7", "good job", 4)
    for name, track in expected_landmarks(parts).items():
        landmark = clip.landmarks[:, skeleton.LANDMARK_NAMES.index(name)]
        assert_allclose(landmark, track, rtol=1e-6, err_msg=name)


def test_frames_and_clips_are_in_numeric_order(tmp_path):
    parts = holistic(12)
    for clip in ("10", "2", "1"):
        write_frames(tmp_path / "bye" / clip, vectors(parts), first=5)

    dataset = load_dataset(tmp_path)

    assert [clip.clip_id for clip in dataset] == ["bye/1", "bye/2", "bye/10"]
    assert_allclose(dataset[0].landmarks[:, 0], parts["pose"][:, 0], rtol=1e-6)


def test_a_whole_clip_may_be_one_file_and_a_frame_may_have_two_axes(tmp_path):
    parts = holistic()
    (tmp_path / "bye").mkdir()
    np.save(tmp_path / "bye" / "b.npy", vectors(parts))
    write_frames(tmp_path / "bye" / "a", vectors(parts)[:, None])

    folder, file = load_dataset(tmp_path)

    assert (folder.clip_id, file.clip_id) == ("bye/a", "bye/b")
    assert_array_equal(folder.landmarks, file.landmarks)


def test_stray_files_and_folders_change_nothing(tmp_path):
    write_frames(tmp_path / "bye" / "0", vectors(holistic()))
    before = load_dataset(tmp_path).fingerprint()
    for name in ("LICENSE", "bye/notes.txt", "bye/0/.DS_Store", "bye/0/labels.csv"):
        (tmp_path / name).write_bytes(b"not a clip")
    for name in (".git/x", "__MACOSX/bye", "bye/.ipynb_checkpoints"):
        (tmp_path / name).mkdir(parents=True)

    dataset = load_dataset(tmp_path)

    assert dataset.fingerprint() == before
    assert not any(note.startswith("warning") for note in dataset.notes)


def test_an_empty_gloss_is_told(tmp_path):
    write_frames(tmp_path / "bye" / "0", vectors(holistic()))
    (tmp_path / "hello").mkdir()

    assert load_dataset(tmp_path).notes[-1] == "warning: 1 folder without clips: 'hello'"


def test_the_size_of_the_image_can_be_said(tmp_path):
    write_frames(tmp_path / "bye" / "0", vectors(holistic()))

    assert load_dataset(tmp_path)[0].aspect == 1.0
    assert load_dataset(tmp_path, DataSettings(frame_size=(640, 480)))[0].aspect == 640 / 480


# --- what is wrong with a clip ------------------------------------------------------------------


def changed(change):
    """Write one clip of four frames and do something to its folder."""

    def make(folder: Path) -> None:
        write_frames(folder, vectors(holistic()))
        change(folder)

    return make


def saved(value, frame: str = "2.npy", **options):
    return changed(lambda folder: np.save(folder / frame, value, **options))


def one_value(index: int, value: float):
    frame = vectors(holistic())[2]
    frame[index] = value
    return saved(frame)


def cut(folder: Path) -> None:
    content = (folder / "2.npy").read_bytes()
    (folder / "2.npy").write_bytes(content[:-100])


def split_shape(folder: Path) -> None:
    content = (folder / "2.npy").read_bytes()
    (folder / "2.npy").write_bytes(content.replace(b"(1662,)", b"(1 662)"))


BAD = {
    "a shape that is none": (
        changed(split_shape), "damaged .npy header", "frame '2.npy': has the header",
    ),
    "a size of no vector": (
        saved(np.zeros(100)), "wrong size", "frame '2.npy': found 100 values, expected 1662 (pose",
    ),
    "the other size": (
        saved(np.ones(258)), "mixed sizes",
        "frame '2.npy': found 258 values, expected 1662 as in the frames before it",
    ),
    "objects": (
        saved(np.array([{}, None]), allow_pickle=True), "no numbers",
        "frame '2.npy': holds Python objects, which are never loaded; expected float64",
    ),
    "text": (
        saved(np.array(["a", "b"])), "no numbers", "frame '2.npy': holds type '<U1'; expected",
    ),
    "three axes": (
        saved(np.zeros((1, 1, 1662))), "wrong shape", "frame '2.npy': has 3 axes, expected one",
    ),
    "nan": (
        one_value(4 * 14 + 1, np.nan), "nan or inf",
        "found nan as y of pose landmark 14 in its frame 3, expected a finite number, 0 if missing",
    ),
    "inf in a hand": (
        one_value(1662 - 63, -np.inf), "nan or inf",
        "found -inf as x of right hand landmark 0 in its frame 3, expected a finite number",
    ),
    "a number beyond float32": (
        one_value(1662 - 126, 1e300), "nan or inf", "found inf as x of left hand landmark 0 in its",
    ),
    "a cut off file": (
        changed(cut), "cut off file",
        "frame '2.npy': is cut off: found 13,196 bytes of numbers, expected 13,296 for its shape",
    ),
    "an empty file": (
        changed(lambda folder: (folder / "2.npy").write_bytes(b"")), "no .npy file",
        "frame '2.npy': is empty, expected an array saved by numpy.save",
    ),
    "another file": (
        changed(lambda folder: (folder / "2.npy").write_bytes(b"PK\x03\x04 and so on")),
        "no .npy file", "frame '2.npy': starts with 'PK\\x03\\x04 and', expected an array saved by",
    ),
    "a gap": (
        changed(lambda folder: (folder / "1.npy").unlink()), "gap between frames",
        "found frame '0.npy' followed by '2.npy', expected every number once; fetch what is",
    ),
    "a frame there twice": (
        saved(np.zeros(1662), "02.npy"), "frame there twice",
        "found frame '02.npy' followed by '2.npy'",
    ),
    "a name that is no number": (
        saved(np.zeros(1662), "last.npy"), "frame without a number",
        "found the file 'last.npy', expected the frame's number as its name, such as 0.npy",
    ),
    "no frame": (
        lambda folder: folder.mkdir(), "no frame",
        "holds no frame; expected a file for each: 0.npy, 1.npy",
    ),
    "nothing detected": (
        lambda folder: write_frames(folder, np.zeros((3, 258))), "no usable frame",
        "none of its 3 frames has a landmark (all are 0); expected at least one",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "story"), BAD.values(), ids=BAD)
def test_a_bad_clip_is_named_or_left_out(tmp_path, make, kind, story):
    write_frames(tmp_path / "bye" / "0", vectors(holistic()))
    make(tmp_path / "bye" / "1")

    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path)
    dataset = load_dataset(tmp_path, DataSettings(skip_bad_clips=True))

    assert str(caught.value).startswith(f"{tmp_path}: clip 'bye/1': {story}")
    assert str(caught.value).endswith("or leave such clips out with --skip-bad-clips")
    assert "\n" not in str(caught.value)
    assert [clip.clip_id for clip in dataset] == ["bye/0"]
    assert dataset.notes[0] == f"left out 1 of 2 clips: 1 {kind}"


def test_a_shape_that_does_not_fit_the_file_takes_no_memory(tmp_path):
    folder = tmp_path / "bye" / "0"
    write_frames(folder, vectors(holistic()))
    content = (folder / "1.npy").read_bytes().replace(b"(1662,), ", b"(9999999999,), ")
    (folder / "1.npy").write_bytes(content)

    with pytest.raises(DataError, match=r"is cut off: .* expected 79,999,999,992 for"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("layout", ["0.npy", "a/b/c/0.npy"])
def test_other_folders_are_told_how_clips_lie(tmp_path, layout):
    (tmp_path / layout).parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / layout, np.zeros(1662))

    with pytest.raises(DataError, match=r"<gloss>/<clip>/<frame>\.npy"):
        load_dataset(tmp_path)


# --- real clips ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "glosses"),
    [
        ("mediapipe_1662", ("bye", "father", "good job")),
        ("mediapipe_258", ("hello", "tea", "water")),
    ],
)
def test_real_hands_hang_on_their_own_arms(shared_data, name, glosses):
    dataset = load_dataset(shared_data / name)

    assert (dataset.classes, len(dataset)) == (glosses, 9)
    for clip in dataset:
        x = clip.landmarks[:, :, 0]
        assert np.nanmedian(x[:, skeleton.LEFT_SHOULDER] - x[:, skeleton.RIGHT_SHOULDER]) > 0.1
        for hand, wrist, other in (
            (skeleton.LEFT_HAND, skeleton.LEFT_WRIST, skeleton.RIGHT_WRIST),
            (skeleton.RIGHT_HAND, skeleton.RIGHT_WRIST, skeleton.LEFT_WRIST),
        ):
            gaps = np.linalg.norm(
                clip.landmarks[:, hand.start, None] - clip.landmarks[:, [wrist, other]], axis=-1
            )
            gaps = gaps[~np.isnan(gaps).any(1)]
            if len(gaps):
                assert gaps[:, 0].mean() < min(0.05, gaps[:, 1].mean())


def test_the_largest_numbers_there_are_have_a_midpoint(tmp_path):
    frames = np.full((3, 258), 2.5e38, np.float32)
    write_frames(tmp_path / "set" / "book" / "1", frames)

    (clip,) = load_dataset(tmp_path / "set")

    assert_allclose(clip.landmarks[:, skeleton.NECK], 2.5e38, rtol=1e-6)
