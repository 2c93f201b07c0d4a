"""Run what remains of a study, and show it while it runs."""

from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.request import StudyRequest
from slrctl.cli.ablate.study_view import study_view

if TYPE_CHECKING:
    from slrctl.studies.ablation.trials import Trial, TrialResult


def run_trials(
    request: StudyRequest,
    remaining: "list[Trial]",
    results: "dict[str, TrialResult]",
    console: Console,
) -> dict[str, str]:
    """Run trials, add what they gave to the results, and return why others failed, by key."""
    from slrctl.studies.ablation.events import TrialDone, TrialFailed
    from slrctl.studies.ablation.local import run_locally
    from slrctl.studies.ablation.trials import read_result

    trials_dir, (jobs, threads) = request.place.trials, request.workers
    failures: dict[str, str] = {}
    with study_view(console, request.trials, trials_dir, set(results)) as view:
        for event in run_locally(remaining, trials_dir, jobs=jobs, threads=threads):
            if isinstance(event, TrialDone):
                results[event.trial.key] = read_result(trials_dir / event.trial.key)
            elif isinstance(event, TrialFailed):
                failures[event.trial.key] = event.message
            view.show(event)
    return failures
