"""The README's promises, checked as a user would: real trainings, minutes each."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
SLRCTL = Path(sys.executable).with_name("slrctl")


def slrctl(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the installed command; a failure shows what it said."""
    result = subprocess.run(
        [str(SLRCTL), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert result.returncode == 0, result.stderr
    return result


def readme_commands() -> list[list[str]]:
    """The slrctl commands the README shows with a prompt, in order."""
    lines = re.findall(r"^\$ (.*)$", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    commands = [command.strip() for line in lines for command in line.split("&&")]
    return [shlex.split(command)[1:] for command in commands if command.startswith("slrctl ")]


@pytest.mark.slow
def test_the_readmes_commands_train_to_95_percent_on_signers_never_seen(tmp_path):
    commands = readme_commands()
    assert commands[:2] == [["train", "--cmcl", "balanced"], ["evaluate"]]

    for command in commands:
        slrctl(*command, folder=tmp_path)

    (summary_path,) = tmp_path.glob("runs/*/summary.json")
    summary = json.loads(summary_path.read_text())
    assert summary["test"]["accuracy"] >= 0.95
    evaluated = json.loads((summary_path.parent / "evaluation-test" / "metrics.json").read_text())
    assert evaluated["accuracy"] == summary["test"]["accuracy"]


@pytest.mark.slow
def test_real_signs_of_a_signer_never_seen_are_recognised_98_times_in_100(tmp_path, shared_data):
    path = shared_data / "asl14.parquet"

    result = slrctl(
        "train", "--train", path, "--cmcl", "balanced", "--epochs=20", "--json", folder=tmp_path,
    )  # fmt: skip

    assert json.loads(result.stdout)["test"]["accuracy"] >= 0.98


CSV_FILES = [
    "ksl_val.csv",
    "ksl_padded204_base1.csv",
    "ksl_pixels_yup.csv",
    "ksl_pixels_yup_nosize.csv",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", CSV_FILES)
def test_csv_files_train_and_evaluate_without_any_option_but_the_paths(tmp_path, shared_data, name):
    folder = shared_data / "csv"
    trained = slrctl(
        "train", "--train", folder / "ksl_train.csv", "--val", folder / name, "--epochs=1",
        folder=tmp_path,
    )  # fmt: skip
    evaluated = slrctl("evaluate", "--data", folder / name, "--json", folder=tmp_path)

    assert json.loads(evaluated.stdout)["clips"] == len(pd.read_csv(folder / name))
    assert ("warning: pixel coordinates without a frame size" in trained.stdout) == (
        "nosize" in name
    )
