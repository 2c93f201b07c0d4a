from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from spoter_files import person, write_csv

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, load_dataset, ordered_classes
from slrctl.settings import DataSettings


@pytest.fixture
def dataset() -> SignDataset:
    clips = tuple(
        Clip(f"clip{n}", gloss, person(3, n).astype(np.float32)) for n, gloss in enumerate("bab")
    )
    return SignDataset(clips, ("a", "b"), "signs", ("a note",))


def test_a_data_set_is_a_sequence_of_clips(dataset):
    assert issubclass(SignDataset, Sequence)
    assert len(dataset) == 3
    assert list(dataset) == list(dataset.clips)
    assert dataset[-1] is dataset.clips[2]
    assert dataset[1:] == dataset.clips[1:]
    assert dataset[np.int64(1)] is dataset.clips[1]
    assert dataset.clips[1] in dataset
    assert dataset.index(dataset.clips[1]) == 1
    assert list(reversed(dataset)) == list(dataset.clips[::-1])


def test_an_index_beyond_the_end_is_an_error(dataset):
    with pytest.raises(IndexError):
        dataset[3]


def test_a_data_set_is_shown_in_one_short_line(dataset):
    assert repr(dataset) == "<SignDataset 'signs': 3 clips, 2 classes>"


def test_a_part_keeps_the_classes(dataset):
    part = dataset.with_clips(clip for clip in dataset if clip.gloss == "b")

    assert [clip.clip_id for clip in part] == ["clip0", "clip2"]
    assert (part.classes, part.name, part.notes) == (("a", "b"), "signs", ())


@pytest.mark.parametrize(
    ("glosses", "classes"),
    [
        (["10", "2", "2", "1"], ("1", "2", "10")),
        (["b", "a", "b"], ("a", "b")),
        (["10", "2", "b"], ("10", "2", "b")),
        (["1", "01"], ("01", "1")),
        (["²", "2"], ("2", "²")),
    ],
)
def test_classes_are_in_the_order_of_numbers_else_of_text(glosses, classes):
    assert ordered_classes(glosses) == classes


def test_a_fingerprint_is_that_of_equal_clips(dataset):
    copies = tuple(replace(clip, landmarks=clip.landmarks.copy()) for clip in dataset)

    assert replace(dataset, clips=copies, name="other").fingerprint() == dataset.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"clip_id": "other"},
        {"gloss": "a"},
        {"aspect": 1.5},
        {"landmarks": np.nextafter(person(3, 0).astype(np.float32), np.float32(1))},
        {"landmarks": person(3, 0).astype(np.float32)[:2]},
    ],
    ids=["id", "gloss", "aspect", "one bit of landmarks", "length"],
)
def test_a_fingerprint_tells_clips_apart(dataset, change):
    changed = (replace(dataset.clips[0], **change), *dataset.clips[1:])

    assert replace(dataset, clips=changed).fingerprint() != dataset.fingerprint()


def test_a_path_is_all_that_is_needed(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3), person(4)], [1, 0])

    dataset = load_dataset(str(path))

    assert (dataset.name, dataset.path, dataset.classes) == ("signs", path, ("0", "1"))


def test_classes_given_become_those_of_the_data_set(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3)], [2])

    dataset = load_dataset(path, DataSettings(), ["0", "1", "2"])

    assert dataset.classes == ("0", "1", "2")


def test_reading_leaves_landmarks_that_can_be_worked_on(tmp_path):
    path = write_csv(tmp_path / "signs.csv", [person(3), person(4)])

    clips = load_dataset(path)

    for clip in clips:
        assert clip.landmarks.dtype == np.float32
        assert clip.landmarks.flags.writeable
        assert clip.landmarks.flags.c_contiguous
