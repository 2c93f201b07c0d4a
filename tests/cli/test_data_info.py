"""`slrctl data info` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from spoter_files import person, write_csv

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


def test_how_the_file_was_read_is_said(run, tmp_path):
    turned = person(4) * [1, -1] + [0, 1]
    write_csv(tmp_path / "up.csv", [turned, turned])

    result = run("data", "info", "up.csv", "--json")

    assert "y axis points up: turned round, y becomes 1 - y" in json.loads(result.stdout)["notes"]


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


@pytest.mark.parametrize("gloss", ["../../evil", "[red]\x1b[31m" + 300 * "책"])
def test_the_text_of_a_gloss_reaches_neither_the_folder_above_nor_the_terminal(
    run, tiny_dataset, tmp_path, gloss
):
    write_parquet([replace(tiny_dataset[0], gloss=gloss)], tmp_path / "odd.parquet")

    result = run("data", "info", "odd.parquet", "--output", "a/b/pictures")

    assert result.exit_code == 0, result.output
    assert len(list(Path("a/b/pictures").iterdir())) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"odd.parquet", "a"}
    assert "\x1b" not in result.output


def test_bad_clips_are_left_out_and_counted(run, tmp_path):
    write_csv(tmp_path / "bad.csv", [person(3), person(3)], changes={(0, "labels"): "one"})

    result = run("data", "info", "bad.csv", "--skip-bad-clips", "--json")

    assert json.loads(result.stdout)["dropped_by_reason"] == {"label that is no integer": 1}
