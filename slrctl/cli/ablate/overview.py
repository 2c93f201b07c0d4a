"""Say what a study is and how long it takes, before it runs and at the head of its report."""

from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.request import StudyRequest, Workers, splits_of
from slrctl.cli.ablate.running import interruptible
from slrctl.cli.console import print_lines

if TYPE_CHECKING:
    from slrctl.studies.ablation.trials import Trial


def announce(request: StudyRequest, remaining: "list[Trial]", console: Console) -> None:
    """How many trials, of what, and about how long."""
    from slrctl.core.data.readers.reading import count_of

    study, trials = request.study, request.trials
    seeds = len({trial.seed for trial in trials})
    folds = len({trial.fold for trial in trials})
    by_fold = f" x {folds} folds" if folds > 1 else ""
    finished = {trial.key for trial in trials} - {trial.key for trial in remaining}
    epochs = count_of(trials[0].settings.train.epochs, "epoch")
    lines = [
        f"study {study.name}: {len(study.variants)} variants x {seeds} seeds{by_fold} = "
        f"{len(trials)} trials of {epochs}, {len(finished)} done already",
        f"baseline {study.baseline}; "
        + (f"primary contrast {study.primary}" if study.primary else "no primary contrast"),
    ]
    if remaining:
        with interruptible(request, finished):
            lines.append(_expectation(request, remaining))
    print_lines(console, lines)


def _expectation(request: StudyRequest, remaining: "list[Trial]") -> str:
    from slrctl.studies.ablation.running import estimate_seconds

    jobs, threads, _ = request.workers
    seconds = estimate_seconds(remaining, splits_of(remaining[0]), jobs=jobs or 1, threads=threads)
    how_long = "an unknown time" if seconds is None else f"about {_duration(seconds)}"
    return (
        f"{how_long} for the {len(remaining)} that remain, "
        f"{_at_once(request.workers)}; interrupt whenever you like, the same command goes on"
    )


def _at_once(workers: Workers) -> str:
    if workers.ray is None:
        return f"{workers.jobs} at a time"
    if workers.jobs is None:
        return f"if one at a time; Ray at {workers.ray} runs as many as its nodes have room for"
    return f"{workers.jobs} at a time on Ray, {workers.ray}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
