"""Run what remains of a study, and show it while it runs."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.request import StudyRequest
from slrctl.cli.ablate.study_view import study_view
from slrctl.cli.console import stopping_on_signals
from slrctl.errors import Interrupted

if TYPE_CHECKING:
    from slrctl.studies.ablation.trials import Trial, TrialResult


def run_remaining(
    request: StudyRequest,
    remaining: "list[Trial]",
    results: "dict[str, TrialResult]",
    console: Console,
) -> dict[str, str]:
    """Run trials, add what they gave to the results, and return why others failed, by key."""
    from slrctl.studies.ablation.running import TrialDone, TrialFailed, run_trials
    from slrctl.studies.ablation.trials import read_result

    trials_dir = request.place.trials
    jobs, threads, ray = request.workers
    failures: dict[str, str] = {}
    with (
        interruptible(request, results),
        study_view(console, request.trials, trials_dir, set(results)) as view,
        # Closed here, and not whenever the last reference goes: that is what ends the workers.
        closing(run_trials(remaining, trials_dir, jobs=jobs, threads=threads, ray=ray)) as events,
    ):
        for event in events:
            if isinstance(event, TrialDone):
                results[event.trial.key] = read_result(trials_dir / event.trial.key)
            elif isinstance(event, TrialFailed):
                failures[event.trial.key] = event.message
            view.show(event)
    return failures


@contextmanager
def interruptible(request: StudyRequest, finished: Collection[str]) -> Iterator[None]:
    """Inside the block a signal ends the study, with a line that says what is kept.

    Args:
        request: the study.
        finished: keys of its finished trials, looked at when the signal comes.
    """
    try:
        with stopping_on_signals():
            yield
    except KeyboardInterrupt:
        total = len({trial.key for trial in request.trials})
        raise Interrupted(
            f"interrupted: {len(finished)} of {total} trials are finished; the same command goes on"
        ) from None
