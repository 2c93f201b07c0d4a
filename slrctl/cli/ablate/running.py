"""Run what remains of a study, and show it while it runs."""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.request import StudyRequest, Workers
from slrctl.cli.ablate.study_view import study_view
from slrctl.cli.interruption import stopping_on_signals
from slrctl.errors import Interrupted
from slrctl.training.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Generator

    from slrctl.studies.ablation.trials import Trial, TrialEvent, TrialResult


def run_trials(
    request: StudyRequest,
    remaining: "list[Trial]",
    results: "dict[str, TrialResult]",
    console: Console,
) -> dict[str, str]:
    """Run trials, add what they gave to the results, and return why others failed, by key."""
    from slrctl.studies.ablation.trials import TrialDone, TrialFailed, read_result

    trials_dir = request.place.trials
    failures: dict[str, str] = {}
    with (
        interruptible(request, results),
        study_view(console, request.trials, trials_dir, set(results)) as view,
        # Closed here, and not whenever the last reference goes: that is what ends the workers.
        closing(_events(request.workers, remaining, trials_dir)) as events,
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
        with stopping_on_signals(StopRequest()):
            yield
    except KeyboardInterrupt:
        total = len({trial.key for trial in request.trials})
        raise Interrupted(
            f"interrupted: {len(finished)} of {total} trials are finished; the same command goes on"
        ) from None


def _events(
    workers: Workers, remaining: "list[Trial]", trials_dir: Path
) -> "Generator[TrialEvent]":
    from slrctl.studies.ablation.on_ray import run_on_ray
    from slrctl.studies.ablation.worker import run_locally

    jobs, threads, address = workers
    if address is not None:
        return run_on_ray(remaining, trials_dir, address=address, jobs=jobs, threads=threads)
    return run_locally(remaining, trials_dir, jobs=jobs or 1, threads=threads)
