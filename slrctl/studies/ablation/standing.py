"""What of a study has finished already, for this study or for another one."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from slrctl.studies.ablation.trials import Trial, TrialResult, is_finished, read_result


class Standing(NamedTuple):
    """The trials of a study: those that have finished, and those still to be run, each once."""

    finished: dict[str, TrialResult]
    remaining: list[Trial]


def standing(trials: Sequence[Trial], trials_dir: Path) -> Standing:
    """Look up which trials have finished, whatever study they were run for."""
    finished: dict[str, TrialResult] = {}
    remaining: dict[str, Trial] = {}
    for trial in trials:
        if trial.key in finished:
            continue
        if is_finished(trials_dir / trial.key):
            finished[trial.key] = read_result(trials_dir / trial.key)
        else:
            remaining.setdefault(trial.key, trial)
    return Standing(finished, list(remaining.values()))
