"""The live table of a study."""

import pytest
from rich.console import Console

from slrctl.cli.ablate_view import trial_table
from slrctl.settings import Settings
from slrctl.studies.ablation.running import TrialDone, TrialFailed, TrialStarted
from slrctl.studies.ablation.trials import Trial


def shown(folds, states, width):
    trials = [
        Trial(variant, seed, fold, Settings(), f"{variant}{seed}{fold}")
        for seed in range(379, 391)
        for fold in folds
        for variant in ("CE", "CE+consistency")
    ]
    keys = dict(zip((trial.key for trial in trials), states, strict=False))
    console = Console(width=width)
    with console.capture() as capture:
        console.print(trial_table(trials, keys, 60.0))
    return [line.split() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [60, 200])
def test_a_trial_is_one_character_that_shows_its_state(width):
    headings, *rows, caption = shown([None], [TrialDone, TrialFailed, TrialStarted], width)

    assert headings == ["seeds", "379", "to", "390"]
    assert rows == [["CE", "■▸" + 10 * "·"], ["CE+consistency", "x" + 11 * "·"]]
    assert " ".join(caption) == "1 of 24 trials done, 1 failed, about 22 minutes left"


def test_folds_are_counted_and_folded_where_they_have_no_room():
    *table, _ = shown(["Ana", "Bo", "Cy"], [], 40)

    words = " ".join(word for line in table for word in line)
    assert words.count("·") == 2 * 36
    assert "3 folds" in words
