"""The live table of a study, in narrow terminals and in wide ones."""

import pytest
from rich.console import Console

from slrctl.cli.ablate_view import Grid
from slrctl.settings import Settings
from slrctl.studies.ablation.running import TrialDone, TrialFailed, TrialStarted
from slrctl.studies.ablation.trials import Trial

SEEDS = range(379, 391)


def trials_of(folds):
    return [
        Trial(variant, seed, fold, Settings(), f"{variant}{seed}{fold}")
        for seed in SEEDS
        for fold in folds
        for variant in ("CE", "CE+consistency")
    ]


def shown(grid, width):
    console = Console(width=width)
    with console.capture() as capture:
        console.print(grid)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.fixture
def grid(tmp_path):
    """Of the first seed one trial is done and one failed; the next trial runs."""
    trials = trials_of([None])
    grid = Grid(trials, tmp_path, set())
    for trial in trials[:3]:
        grid.update(TrialStarted(trial))
    grid.update(TrialDone(trials[0]))
    grid.update(TrialFailed(trials[1], "it diverged"))
    return grid


def test_a_wide_terminal_shows_every_seed_and_the_epochs_of_what_runs(grid):
    headings, control, *_ = shown(grid, width=120)

    assert headings.split() == [str(seed) for seed in SEEDS]
    assert control.split() == ["CE", "■", "0/36", *"·" * 10]


def test_where_seeds_have_no_room_a_trial_is_one_character(grid):
    lines = shown(grid, width=60)

    assert [line.split() for line in lines[:3]] == [
        ["seeds", "379", "to", "390"],
        ["CE", "■▸··········"],
        ["CE+consistency", "x···········"],
    ]
    assert lines[3].startswith("1 of 24 trials done, 1 failed")


def test_folds_that_have_no_room_are_counted(tmp_path):
    grid = Grid(trials_of(["Ana", "Bo", "Cy"]), tmp_path, set())

    headings, *rows, _ = shown(grid, width=60)

    assert headings.strip() == "seeds 379 to 390, 3 folds of each"
    assert [row.split()[1] for row in rows] == ["·" * 36] * 2
