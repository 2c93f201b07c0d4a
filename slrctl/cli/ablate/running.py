"""Run what remains of a study, and show it while it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.request import StudyRequest, Workers
from slrctl.cli.ablate.study_view import study_view
from slrctl.cli.interruption import stopping_on_signals
from slrctl.engine.stopping import StopRequest
from slrctl.errors import Interrupted

if TYPE_CHECKING:
    from slrctl.studies.ablation.events import TrialEvent
    from slrctl.studies.ablation.trials import Trial, TrialResult


def run_trials(
    request: StudyRequest,
    remaining: "list[Trial]",
    results: "dict[str, TrialResult]",
    console: Console,
) -> dict[str, str]:
    """Run trials, add what they gave to the results, and return why others failed, by key.

    Raises:
        Interrupted: somebody asked to stop; what has finished is kept.
    """
    try:
        with stopping_on_signals(StopRequest()):
            return _run(request, remaining, results, console)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; {len(results)} of {len({trial.key for trial in request.trials})} trials "
            "are finished, and the same command goes on with the others"
        ) from None


def _run(
    request: StudyRequest,
    remaining: "list[Trial]",
    results: "dict[str, TrialResult]",
    console: Console,
) -> dict[str, str]:
    from slrctl.studies.ablation.events import TrialDone, TrialFailed
    from slrctl.studies.ablation.trials import read_result

    trials_dir = request.place.trials
    failures: dict[str, str] = {}
    with study_view(console, request.trials, trials_dir, set(results)) as view:
        for event in _events(request.workers, remaining, trials_dir):
            if isinstance(event, TrialDone):
                results[event.trial.key] = read_result(trials_dir / event.trial.key)
            elif isinstance(event, TrialFailed):
                failures[event.trial.key] = event.message
            view.show(event)
    return failures


def _events(workers: Workers, remaining: "list[Trial]", trials_dir: Path) -> "Iterator[TrialEvent]":
    from slrctl.studies.ablation.local import run_locally
    from slrctl.studies.ablation.on_ray import run_on_ray

    jobs, threads, address = workers
    if address is not None:
        return run_on_ray(remaining, trials_dir, address=address, jobs=jobs, threads=threads)
    return run_locally(remaining, trials_dir, jobs=jobs or 1, threads=threads)
