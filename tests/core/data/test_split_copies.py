"""Leaks that every training looks for before it begins."""

from dataclasses import replace

import numpy as np
import pytest
from planted import mirrored

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.splits import choose_splits, copies_in
from slrctl.settings import DataSettings


@pytest.fixture
def training(tiny_dataset: SignDataset) -> list[Clip]:
    return [clip for clip in tiny_dataset if clip.split == "train"]


def changed(clip: Clip, landmarks: np.ndarray) -> Clip:
    return replace(clip, clip_id="changed", split="val", landmarks=landmarks.astype(np.float32))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x + 0.2,
        lambda x: x * [1.33, 0.7],
        lambda x: x.astype(np.float16),
        lambda x: mirrored(x) * 2 - 0.3,
    ],
    ids=["same", "shifted", "scaled", "float16", "mirrored and scaled"],
)
def test_simple_copies_are_found_and_nothing_else(tiny_dataset, training, change):
    copies = [changed(clip, change(clip.landmarks)) for clip in training[:3]]
    others = [clip for clip in tiny_dataset if clip.split != "train"]

    assert copies_in(training, [*copies, *others]) == {0, 1, 2}


def test_clips_that_miss_nothing_are_distinguished_too():
    rng = np.random.default_rng(0)
    clips = [Clip(f"{n}", "a", rng.random((9, 54, 2), dtype=np.float32)) for n in range(40)]

    assert copies_in(clips[:20], [*clips[20:], changed(clips[3], clips[3].landmarks)]) == {20}


def test_clips_without_a_landmark_are_no_copies():
    empty = Clip("empty", "a", np.full((9, 54, 2), np.nan, np.float32))

    assert copies_in([empty], [empty]) == set()


def notes_of(clips: list[Clip]) -> list[str]:
    dataset = SignDataset(tuple(clips), ("a",), "set")
    splits = choose_splits(dataset, None, None, DataSettings(val_share=0.2), seed=0)
    return [note for note in splits.notes if "slrctl data audit" in note]


def test_copies_are_noted_in_one_line(training):
    clips = [replace(clip, gloss="a", signer=None, session=None) for clip in training]
    copies = [
        changed(clips[0], clips[0].landmarks),
        changed(clips[1], mirrored(clips[1].landmarks)),
    ]

    (note,) = notes_of([*clips, *copies])

    assert note.startswith("warning: 2 of 2 validation clips are in training too, 1 landmark for")


def test_shared_people_are_noted_without_a_warning(training):
    clips = [replace(clip, gloss="a", signer="ann", session=clip.clip_id) for clip in training]
    clips[0] = replace(clips[0], split="val")

    (note,) = notes_of(clips)

    assert note.startswith("validation shares 1 signer with training ('ann')")


def test_of_clean_splits_nothing_is_noted(tiny_dataset):
    assert notes_of([replace(clip, gloss="a") for clip in tiny_dataset]) == []
