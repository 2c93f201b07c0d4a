"""Folders of MediaPipe vectors, `<gloss>/<clip>/<frame>.npy`, become clips."""

import numpy as np
import pytest
from clips import assert_hands_hang_on_their_own_arms
from holistic_files import expected_landmarks, holistic, vectors, write_frames
from numpy.testing import assert_allclose, assert_array_equal

from slrctl.core import skeleton
from slrctl.core.data.dataset import load_dataset
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
        assert_hands_hang_on_their_own_arms(clip)


def test_the_largest_numbers_there_are_have_a_midpoint(tmp_path):
    frames = np.full((3, 258), 2.5e38, np.float32)
    write_frames(tmp_path / "set" / "book" / "1", frames)

    (clip,) = load_dataset(tmp_path / "set")

    assert_allclose(clip.landmarks[:, skeleton.NECK], 2.5e38, rtol=1e-6)
