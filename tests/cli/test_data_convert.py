"""`slrctl data convert` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from spoter_files import person, write_csv

from slrctl.core.data.dataset import load_dataset


@pytest.fixture
def csv_path(tmp_path):
    return write_csv(tmp_path / "words.csv", [person(4, 1), person(5, 2)], [0, 1])


def test_a_csv_becomes_our_parquet_with_the_same_clips(run, csv_path):
    Path("words.parquet").write_text("in the way")
    result = run("data", "convert", csv_path, "words.parquet", "--force")
    run("data", "convert", csv_path, "a/b/again.parquet")

    assert result.exit_code == 0, result.output
    assert Path("a/b/again.parquet").read_bytes() == Path("words.parquet").read_bytes()
    before, after = load_dataset(csv_path), load_dataset("words.parquet")
    assert [clip.clip_id for clip in after] == ["words:0", "words:1"]
    for clip, written in zip(before, after, strict=True):
        assert_array_equal(written.landmarks, clip.landmarks)
    assert "2 clips (9 frames) of 2 glosses written to words.parquet" in result.output
    assert "labels count from 0" in result.output


def test_our_parquet_becomes_a_csv_that_reads_back_to_rounding(run, tiny_path, tiny_dataset):
    result = run("data", "convert", tiny_path, "tiny.csv")

    assert result.exit_code == 0, result.output
    again = run("data", "convert", "tiny.csv", "b.parquet", "--gloss-names=tiny.glosses.json")
    assert again.exit_code == 0, again.output
    for clip, written in zip(tiny_dataset, load_dataset("b.parquet"), strict=True):
        assert (written.gloss, written.fps) == (clip.gloss, clip.fps)
        assert_allclose(written.landmarks, clip.landmarks, atol=1e-6)


def test_gloss_names_take_the_place_of_integer_labels(run, csv_path, tmp_path):
    (tmp_path / "names.csv").write_text("0,book\n1,drink\n")

    run("data", "convert", csv_path, "words.parquet", "--gloss-names", "names.csv")

    assert [clip.gloss for clip in load_dataset("words.parquet")] == ["book", "drink"]


def test_a_frame_size_divides_pixels(run, tmp_path):
    path = write_csv(tmp_path / "pixels.csv", [person(3) * [640, 480]], [0])

    result = run("data", "convert", path, "shares.parquet", "--frame-size", "640x480")

    (clip,) = load_dataset("shares.parquet")
    assert_allclose(clip.landmarks, person(3), atol=1e-5)
    assert clip.aspect == pytest.approx(4 / 3)
    assert "divided by the frame size (640x480)" in result.output


def test_three_files_become_one_with_a_split_column_and_one_count_of_labels(run, tmp_path):
    for name, labels in (("train", [1, 2, 3]), ("val", [0, 1]), ("test", [3])):
        write_csv(tmp_path / f"{name}.csv", [person(3, label) for label in labels], labels)

    result = run(
        *("data", "convert", "train.csv", "val.csv", "test.csv", "all.parquet", "--json"),
        *("--split", "train", "--split", "validation", "--split", "test"),
    )

    clips = load_dataset("all.parquet")
    assert [clip.split for clip in clips] == ["train"] * 3 + ["val"] * 2 + ["test"]
    # The labels of val.csv count from 0, those of the training file from 1.
    assert [clip.gloss for clip in clips] == ["1", "2", "3", "1", "2", "3"]
    assert json.loads(result.stdout)["splits"] == {"test": 1, "train": 3, "val": 2}


def test_bad_clips_are_counted_by_reason_and_listed(run, tmp_path):
    changes = {(1, "nose_X"): "[0.1, x, 0.3]", (3, "labels"): "one", (4, "labels"): "two"}
    write_csv(tmp_path / "bad.csv", [person(3, seed) for seed in range(5)], changes=changes)

    result = run("data", "convert", "bad.csv", "good.parquet", "--skip-bad-clips", "--json")

    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert summary["clips"] == len(load_dataset("good.parquet")) == 2
    assert sorted(summary["dropped_by_reason"].values()) == [1, 2]
    assert [clip["where"] for clip in summary["dropped"]] == [
        "row 2, column 'nose_X'",
        "row 4, column 'labels'",
        "row 5, column 'labels'",
    ]
    assert {"source", "where", "reason", "message"} == set(summary["dropped"][0])
    assert "left out 3 of 5 clips" in result.stderr
    assert "row 2, column 'nose_X'" in result.stderr


def test_real_pixels_that_point_up_become_the_clips_they_were(run, shared_data):
    run("data", "convert", shared_data / "csv" / "ksl_pixels_yup.csv", "up.parquet")

    clips = load_dataset("up.parquet")
    noses = np.concatenate([clip.landmarks[:, 0] for clip in clips])
    assert len(clips) == 13
    assert np.nanmax(np.abs(noses)) < 1.5
