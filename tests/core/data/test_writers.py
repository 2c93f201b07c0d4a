"""Clips written as CSV are read back the same, as far as the layout can hold them."""

import csv
import os

import numpy as np
import pytest
from numpy.testing import assert_allclose
from spoter_files import person

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.data.writers import write_csv
from slrctl.errors import DataError
from slrctl.settings import DataSettings

ROUNDING = 0.5e-6


def clip_of(gloss: str, seed: int = 0, **facts) -> Clip:
    landmarks = person(4 + seed, seed).astype(np.float32)
    landmarks[1, 20:40] = np.nan
    return Clip(f"clip{seed}", gloss, landmarks, **facts)


def test_synthetic_clips_come_back_to_the_sixth_decimal(tmp_path):
    parameters = SynthesisParameters(num_glosses=12, num_train_signers=1, repetitions=1)
    clips = list(synthesise(parameters).dataset)[:12]

    write_csv(clips, tmp_path / "synthetic.csv")
    settings = DataSettings(gloss_names=tmp_path / "synthetic.glosses.json")
    again = load_dataset(tmp_path / "synthetic.csv", settings)

    assert [clip.gloss for clip in again] == [clip.gloss for clip in clips]
    for clip, written in zip(again, clips, strict=True):
        assert_allclose(clip.landmarks, written.landmarks, atol=ROUNDING + 1e-7, rtol=0)
        assert clip.aspect == pytest.approx(written.aspect, rel=1e-7)


def test_real_clips_come_back_to_the_sixth_decimal(shared_data, tmp_path):
    clips = load_dataset(shared_data / "ksl13.parquet")[::100]

    write_csv(clips, tmp_path / "some.csv")
    again = load_dataset(tmp_path / "some.csv")

    for clip, written in zip(again, clips, strict=True):
        kept = written.landmarks[: clip.num_frames]  # a still or empty end is taken for padding
        assert_allclose(clip.landmarks, kept, atol=ROUNDING + 1e-7, rtol=0)


def test_integers_stay_as_they_are_and_need_no_names(tmp_path):
    clips = [clip_of("12"), clip_of("0", 1)]

    notes = write_csv(clips, tmp_path / "signs.csv")

    assert [clip.gloss for clip in load_dataset(tmp_path / "signs.csv")] == ["12", "0"]
    assert os.listdir(tmp_path) == ["signs.csv"]
    assert notes == ["not in the file, the layout has no column for it: 'clip_id'"]


def test_names_are_numbered_and_written_beside(tmp_path):
    clips = [clip_of("tree"), clip_of("tä\n", 1), clip_of("007", 2, signer="p")]

    notes = write_csv(clips, tmp_path / "signs.csv")
    names = tmp_path / "signs.glosses.json"
    again = load_dataset(tmp_path / "signs.csv", DataSettings(gloss_names=names))

    assert [clip.gloss for clip in again] == ["tree", "tä\n", "007"]
    assert notes[0].endswith(": 'clip_id', 'signer'")
    assert notes[1] == f"glosses are numbered: read it with --set data.gloss_names={names}"


def test_frame_rate_and_aspect_are_kept(tmp_path):
    clips = [clip_of("0", fps=29.97, aspect=1366 / 768), clip_of("1", 1, aspect=3 / 4)]

    write_csv(clips, tmp_path / "signs.csv")
    again = load_dataset(tmp_path / "signs.csv")

    assert [(clip.fps, clip.aspect) for clip in again] == [(29.97, 1366 / 768), (None, 0.75)]


def test_unknown_facts_have_no_column(tmp_path):
    write_csv([clip_of("0")], tmp_path / "signs.csv")

    with (tmp_path / "signs.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header[:2] == ["labels", "nose_X"]
    assert len(header) == 1 + 108


def test_a_landmark_in_the_corner_is_not_missing(tmp_path):
    clip = clip_of("0")
    clip.landmarks[0, 30] = 0

    write_csv([clip], tmp_path / "signs.csv")

    corner = load_dataset(tmp_path / "signs.csv")[0].landmarks[0, 30]
    assert_allclose(corner, [1e-6, 1e-6], rtol=1e-6)


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there is no clip to write"):
        write_csv([], tmp_path / "signs.csv")

    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def disk_full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_csv([clip_of("0")], tmp_path / "signs.csv")

    assert os.listdir(tmp_path) == []
