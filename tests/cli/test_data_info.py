"""`slrctl data info` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from spoter_files import person, write_csv

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.parquet import write_parquet


def test_json_is_one_object_with_every_number(run, tiny_path, tiny_dataset):
    result = run("data", "info", tiny_path, "--json")

    facts = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert {
        *("path", "clips", "frames", "classes", "glosses", "signers", "sessions", "splits"),
        *("balance", "length", "fps", "clips_without_fps", "aspects", "missing"),
        *("missing_landmarks", "hands", "coordinates", "dominant_hand"),
        *("dropped_by_reason", "notes"),
    } <= set(facts)
    assert facts["clips"] == 16
    assert [split["clips"] for split in facts["splits"]] == [4, 8, 4]
    assert set(facts["length"]) == {"minimum", "median", "mean", "maximum"}
    assert len(facts["missing_landmarks"]) == 54
    assert facts["coordinates"]["y_axis"] == "down"
    assert "16 clips" in result.stderr


def test_the_tables_tell_of_parts_glosses_people_and_landmarks(run, tiny_path):
    output = run("data", "info", tiny_path).output

    for words in (
        *("16 clips", "4 glosses", "4 signers", "4 sessions", "down, as it should be"),
        *("by split", "by gloss", "by signer", "by session", "indexTip", "left hand dominant"),
    ):
        assert words in output
    assert "\x1b" not in output


def test_clips_of_our_own_that_stand_on_their_head_are_warned_of(run, tiny_dataset):
    turned = [
        replace(clip, landmarks=(clip.landmarks * [1, -1] + [0, 1]).astype("f4"))
        for clip in tiny_dataset
    ]
    write_parquet(turned, Path("up.pq"))

    assert "warning: up" in run("data", "info", "up.pq").output


def test_few_of_many_groups_are_shown_if_so_asked(run, tiny_path):
    output = run("data", "info", tiny_path, "--most", 2).output

    assert "by gloss, the 2 with most clips of 4" in output
    assert "by signer, the 2 with most clips of 4" in output


def test_a_strip_is_drawn_of_a_clip_of_each_gloss_and_a_sheet_of_all(run, tiny_path, tiny_dataset):
    result = run("data", "info", tiny_path, "--output=pictures", "--most=2", "--json")

    pictures = json.loads(result.stdout)["pictures"]
    assert [p["gloss"] for p in pictures if "gloss" in p] == list(tiny_dataset.classes[:2])
    assert [p["path"] for p in pictures if "gloss" not in p] == ["pictures/sheet-1.png"]
    assert all(imread(picture["path"]).size for picture in pictures)
    assert len(list(Path("pictures").iterdir())) == 3


def test_bad_clips_are_left_out_and_counted(run, tmp_path):
    write_csv(tmp_path / "bad.csv", [person(3), person(3)], changes={(0, "labels"): "one"})

    result = run("data", "info", "bad.csv", "--skip-bad-clips", "--json")

    assert json.loads(result.stdout)["dropped_by_reason"] == {"label that is no integer": 1}


def write_bent_finger(path):
    """A left index finger of two frames: the last joint straight, then bent by 100 degrees."""
    frames = np.full((2, 54, 2), np.nan, np.float32)
    names = [skeleton.LANDMARK_NAMES.index(f"index{joint}_left") for joint in ("PIP", "DIP", "Tip")]
    for frame, angle in zip(frames, np.radians([0, 100]), strict=True):
        tip = (0.5 + 0.1 * np.sin(angle), 0.5 - 0.1 * np.cos(angle))
        frame[names] = [(0.5, 0.6), (0.5, 0.5), tip]
    write_parquet([Clip("one", "a", frames)], path)


@pytest.mark.parametrize(("alpha", "left_over"), [([], 6), (["--rectify-alpha", "1"], None)])
def test_joints_out_of_range_are_reported_before_and_after(run, tmp_path, alpha, left_over):
    write_bent_finger(tmp_path / "clips.parquet")

    result = run("data", "info", "clips.parquet", "--rectify", "--json", *alpha)

    report = json.loads(result.stdout)["rectification"]
    (joint,) = [joint for joint in report["joints"] if joint["num_frames"]]
    assert (joint["hand"], joint["joint"], joint["num_frames"]) == ("left", "index DIP flexion", 2)
    assert joint["before"]["share"] == 0.5
    assert joint["before"]["mean_degrees"] == pytest.approx(10, abs=1e-3)
    assert joint["after"]["share"] == (0.5 if left_over else 0)
    assert joint["after"]["mean_degrees"] == pytest.approx(left_over, abs=1e-3)
    row = next(line for line in result.stderr.splitlines() if "index DIP flexion" in line)
    assert row.replace("│", " ").split()[3:8] == ["2", "50.0", "%", "10.0", "10.0"]
