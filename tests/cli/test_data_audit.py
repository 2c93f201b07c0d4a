"""`slrctl data audit` as a user meets it."""

import json
from dataclasses import replace

import pytest
from calls import plain
from rich.text import Text

from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.readers.parquet import write_parquet


@pytest.fixture
def leaking_path(tmp_path, tiny_dataset):
    """The tiny set with one clip of training in its test part too, under another name."""
    stolen = next(clip for clip in tiny_dataset if clip.split == "train")
    copy = replace(
        stolen,
        clip_id="[red]copy",
        split="test",
        signer="someone",
        landmarks=stolen.landmarks + 0.1,
    )
    path = tmp_path / "leaking.parquet"
    write_parquet([*tiny_dataset, copy], path)
    return path


def test_a_clean_set_exits_0(run, tiny_path):
    result = run("data", "audit", tiny_path)

    assert result.exit_code == 0, result.output
    assert "no leakage found" in plain(result)
    assert "unexplained by the most alike clip" in plain(result)


def test_json_is_one_object_with_every_pair(run, leaking_path):
    result = run("data", "audit", leaking_path, "--json")

    found = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert result.exit_code == 1
    assert found["leakage"]
    assert found["counts"] == {"exact": 0, "near": 1, "mirrored": 0, "interpolated": 0}
    assert {clip["part"] for clip in found["pairs"][0]["clips"]} == {"train", "test"}
    assert sum(found["unexplained"]["across"]["counts"]) == 17
    assert "[red]copy" in Text.from_ansi(result.stderr).plain


@pytest.mark.parametrize(
    ("way", "facts"),
    [
        ("drop", {"clips": 16, "dropped": {"train": 1}, "moved": {}}),
        ("move", {"clips": 17, "dropped": {}, "moved": {"test": 1}}),
    ],
)
def test_a_fixed_file_is_clean(run, leaking_path, way, facts):
    fixing = run("data", "audit", leaking_path, "--fix", "fixed.parquet", "--fix-by", way, "--json")

    again = run("data", "audit", "fixed.parquet")

    fixed = json.loads(fixing.stdout)["fixed"]
    assert fixing.exit_code == 1  # of the file that was given
    assert fixed == {"path": "fixed.parquet", "leaks_left": 0, **facts}
    assert again.exit_code == 0, again.output
    assert len(load_dataset("fixed.parquet")) == facts["clips"]


def test_files_are_parts_called_by_their_names(run, tiny_dataset, tmp_path):
    by_part = {part: [c for c in tiny_dataset if c.split == part] for part in ("train", "val")}
    write_parquet(by_part["train"], tmp_path / "my_train.parquet")
    write_parquet(by_part["val"], tmp_path / "other.parquet")

    result = run("data", "audit", "my_train.parquet", "Dev=other.parquet", "--json")

    assert json.loads(result.stdout)["parts"] == {"train": 8, "val": 4}


def test_the_same_file_twice_is_all_leaks(run, tiny_path):
    result = run("data", "audit", f"a={tiny_path}", f"b={tiny_path}", "--json", "--most", 2)

    found = json.loads(result.stdout)
    assert found["counts"]["exact"] == len(found["pairs"]) == 16
    assert "the first 2 of 16" in Text.from_ansi(result.stderr).plain


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 1), (["--allow", "signer"], 1), (["--allow", "signer,session"], 0)]
)
def test_shared_signers_and_sessions_leak_unless_allowed(
    run, tiny_dataset, tmp_path, arguments, code
):
    clips = [replace(clip, signer="ann", session="mon") for clip in tiny_dataset]
    write_parquet(clips, tmp_path / "one_signer.parquet")

    result = run("data", "audit", "one_signer.parquet", *arguments)

    assert result.exit_code == code, result.output
    assert "1 signer in more than one split" in plain(result)


def test_glosses_that_a_part_lacks_are_told_and_no_leak(run, tiny_dataset, tmp_path):
    lost = tiny_dataset.classes[0]
    clips = [clip for clip in tiny_dataset if clip.split != "val" or clip.gloss != lost]
    write_parquet(clips, tmp_path / "lacking.parquet")

    result = run("data", "audit", "lacking.parquet")

    assert result.exit_code == 0
    assert f"val lacks 1: {lost!r}" in plain(result)
