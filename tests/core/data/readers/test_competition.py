"""The Google competition's train.csv and long Parquet files become clips."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from holistic_files import (
    Holistic,
    expected_landmarks,
    holistic,
    long_columns,
    write_index,
    write_long,
)
from numpy.testing import assert_allclose

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet


def row(number: int, sign: str = "blow", **changes: object) -> dict[str, object]:
    path = f"train_landmark_files/26734/{number}.parquet"
    return {"path": path, "participant_id": 26734, "sequence_id": number, "sign": sign} | changes


def write_set(folder: Path, clips: dict[str, Holistic]) -> Path:
    """A folder with one clip for each sign."""
    rows = [row(1000 + n, sign) for n, sign in enumerate(clips)]
    for line, parts in zip(rows, clips.values(), strict=True):
        write_long(folder / str(line["path"]), long_columns(parts))
    return write_index(folder, rows)


@pytest.fixture
def two_clips(tmp_path) -> tuple[Path, dict[str, Holistic]]:
    clips = {"blow": holistic(4), "wait": holistic(6, seed=1)}
    return write_set(tmp_path / "asl-signs", clips), clips


@pytest.mark.parametrize("given", ["the folder", "train.csv"])
def test_every_landmark_is_the_one_of_its_name(two_clips, given):
    index, clips = two_clips

    dataset = load_dataset(index if given == "train.csv" else index.parent)

    assert [(c.clip_id, c.gloss, c.signer) for c in dataset] == [
        ("1000", "blow", "26734"),
        ("1001", "wait", "26734"),
    ]
    for clip, parts in zip(dataset, clips.values(), strict=True):
        for name, track in expected_landmarks(parts).items():
            landmark = clip.landmarks[:, skeleton.LANDMARK_NAMES.index(name)]
            assert_allclose(landmark, track, rtol=1e-6, err_msg=name)


def test_rows_may_come_in_any_order_and_missing_ones_be_left_out(two_clips):
    index, _ = two_clips
    before = load_dataset(index)
    path = index.parent / str(row(1000)["path"])
    table = pq.read_table(path)
    order = np.random.default_rng(0).permutation(table.num_rows)
    table = table.take(order)
    table = table.filter(table["x"].is_valid())
    pq.write_table(table, path, row_group_size=300)

    assert load_dataset(index).fingerprint() == before.fingerprint()


def test_left_out_frame_numbers_are_told(two_clips):
    index, clips = two_clips
    columns = long_columns(clips["blow"])
    columns["frame"] = [frame + (frame > 21) for frame in columns["frame"]]
    write_long(index.parent / str(row(1000)["path"]), columns)

    dataset = load_dataset(index)

    assert dataset[0].num_frames == 4
    assert dataset.notes[0].startswith("1 clip without some frame numbers: the frames that are")


def test_a_path_stands_in_for_a_sequence_id_that_is_missing_or_shared(tmp_path):
    index = write_set(tmp_path, {"blow": holistic()})
    write_index(tmp_path, [row(1000, sequence_id="")])

    assert [clip.clip_id for clip in load_dataset(index)] == [row(1000)["path"]]


def test_our_own_parquet_is_not_taken_for_one(tmp_path):
    clip = Clip("a", "blow", np.zeros((2, 54, 2), np.float32))
    write_parquet([clip], tmp_path / "own.parquet")

    assert [clip.clip_id for clip in load_dataset(tmp_path / "own.parquet")] == ["a"]
