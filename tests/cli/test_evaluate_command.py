"""`slrctl evaluate` as a user meets it."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from calls import TINY, plain

from slrctl.core.data.readers.parquet import write_parquet


def test_it_gives_again_what_training_reported(run, trained):
    summary = json.loads((trained / "summary.json").read_text())

    evaluated = json.loads(run("evaluate", trained, "--json").stdout)

    same = {key: value for key, value in evaluated.items() if key in summary["test"]}
    assert same == summary["test"]
    assert evaluated["data"] == "test"


def test_it_takes_the_newest_run_and_writes_its_tables(run, trained):
    result = run("evaluate", "--split", "val")

    assert {path.name for path in (trained / "evaluation-val").iterdir()} == {
        *("metrics.json", "predictions.parquet", "per_class.csv", "confusion.png"),
    }
    output = plain(result)
    assert "95 % interval, by clip" in output
    assert "fewer than 10" in output


def test_other_clips_and_other_folders(run, trained, tiny_path):
    result = run(
        "evaluate", trained, "--data", tiny_path, "--split", "train", "--output", "out", "--json"
    )

    assert json.loads(result.stdout)["clips"] == 8
    assert len(pd.read_parquet("out/predictions.parquet")) == 8


def test_an_evaluation_is_written_over_by_itself_and_by_another_only_with_force(run, trained):
    asked = ["evaluate", trained, "--output", "out"]
    run(*asked)
    before = Path("out/predictions.parquet").read_bytes()

    again, other = run(*asked), run(*asked, "--split", "val")
    model = run("evaluate", trained / "last.safetensors", "--output", "out")

    assert (again.exit_code, other.exit_code, model.exit_code) == (0, 2, 2)
    assert Path("out/predictions.parquet").read_bytes() == before
    assert run(*asked, "--split", "val", "--force").exit_code == 0
    assert Path("out/predictions.parquet").read_bytes() != before


def test_another_seed_finds_the_same_clips(run, tiny_path, tiny_dataset):
    write_parquet([replace(clip, split=None, signer=None) for clip in tiny_dataset], tiny_path)
    run("train", "--train", tiny_path, "--name", "one", *TINY)

    first, second = (
        json.loads(run("evaluate", "--json", "--set", f"seed={seed}").stdout) for seed in (379, 5)
    )
    looked = run("inspect-attention", "--summary", "--json", "--set", "seed=5")

    assert first["fingerprint"] == second["fingerprint"]
    assert first["accuracy"] == second["accuracy"]
    assert looked.exit_code == 0, looked.stderr


@pytest.mark.parametrize("kept", [3, 4])
def test_data_that_changed_after_the_training_is_refused(run, tiny_path, tiny_dataset, kept):
    run("train", "--train", tiny_path, "--name", "one", *TINY)
    glosses = tiny_dataset.classes[:kept]
    clips = [clip for clip in tiny_dataset if clip.gloss in glosses][kept == 4 :]
    test = [clip for clip in clips if clip.split == "test"]
    write_parquet([*(clip for clip in clips if clip.split != "test"), *test[1:]], tiny_path)

    result = run("evaluate")

    assert result.exit_code == 3
    assert "fingerprint" in result.stderr


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("joint_dim = 16", "joint_dim = 32", 3),
        ("seed = 379", "seed = 380", 3),
        ("resamples = 100", "resamples = 200", 0),
    ],
)
def test_settings_edited_after_the_training_are_refused_unless_they_only_judge(
    run, trained, before, after, code
):
    path = trained / "settings.toml"
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after))

    result = run("evaluate", trained)

    assert result.exit_code == code, result.output
    assert code == 0 or "settings.toml" in result.stderr


def test_a_run_finds_its_data_from_another_folder(run, tmp_path, tiny_path, monkeypatch):
    (tmp_path / "run.toml").write_text('[data]\ntrain = "tiny.parquet"\n')
    run("train", "--config", "run.toml", "--name", "one", *TINY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert run("evaluate", "../runs/one").exit_code == 0
