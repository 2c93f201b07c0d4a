"""Show a run while it trains, new or resumed, and what it came to."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from slrctl.cli.console import print_json, print_lines
from slrctl.cli.options import cache_for
from slrctl.cli.progress import training_view
from slrctl.cli.train_views import show_header, show_results
from slrctl.errors import DataError, Interrupted, SlrctlError
from slrctl.training.processes import ALONE, Workers, joined_workers
from slrctl.training.stopping import StopRequest

if TYPE_CHECKING:
    from slrctl.training.loop import BatchReport, EpochReport
    from slrctl.training.resume import SavedRun
    from slrctl.training.run import RunReport

    Reports = Iterator[BatchReport | EpochReport | RunReport]


class TrainView(NamedTuple):
    """Where and how much is shown, how to ask for an end, and who trains together."""

    console: Console
    as_json: bool
    diagnostics: bool
    stop: StopRequest
    workers: Workers = ALONE


def resume_run(run: Path | None, runs_dir: Path, view: TrainView) -> None:
    """Go on with a run, the newest interrupted one if none is named."""
    # Imported late: torch takes seconds.
    from slrctl.runs.folder import resume_command
    from slrctl.training.resume import find_saved_run, newest_interrupted

    saved = find_saved_run(run or newest_interrupted(runs_dir))
    if saved.is_finished:
        _show_finished(saved, view)
        return
    try:
        with joined_workers(saved.settings.train.device) as workers:
            _go_on(saved, view._replace(workers=workers))
    except KeyboardInterrupt:  # before there was anything new to save
        go_on = resume_command(saved.run_dir)
        raise Interrupted(f"interrupted; go on with: {go_on}") from None


def _go_on(saved: "SavedRun", view: TrainView) -> None:
    from slrctl.core.data.splits import load_splits
    from slrctl.training.run import resume_training

    settings = saved.settings
    _take_threads(saved)
    splits = view.workers.together(lambda: load_splits(settings, cache_for(settings.data)))
    show_header(view.console, saved.settings, splits)
    print_lines(view.console, list(_on_going_on(saved, view.workers)))
    show_run(
        resume_training(saved, splits, stop=view.stop, workers=view.workers),
        saved.run_dir,
        saved.settings.train.epochs,
        view,
    )


def show_run(reports: "Reports", run_dir: Path, num_epochs: int, view: TrainView) -> None:
    """Show the reports of a run as they come, then its results."""
    from slrctl.runs.folder import SETTINGS, resume_command
    from slrctl.training.loop import EpochReport
    from slrctl.training.run import RunReport

    finished = None
    shown = training_view(view.console, num_epochs, diagnostics=view.diagnostics)
    try:
        with shown as training:
            for report in reports:
                if isinstance(report, RunReport):
                    finished = report
                elif isinstance(report, EpochReport):
                    training.show_epoch(report)
                else:
                    training.show_batch(report)
            if view.workers.rank == 0:
                _draw_curves(run_dir)
    except KeyboardInterrupt:
        if not (run_dir / SETTINGS).exists():
            raise
        raise Interrupted(f"interrupted; go on with: {resume_command(run_dir)}") from None
    if finished is not None:
        show_results(view.console, finished, run_dir)
        if view.as_json:
            print_json(finished.summary)


def _show_finished(saved: "SavedRun", view: TrainView) -> None:
    from slrctl.runs import folder as run_folder
    from slrctl.runs.checkpoint import is_intact
    from slrctl.runs.folder import holding

    if not is_intact(saved.run_dir / run_folder.BEST):
        raise DataError(
            f"{saved.run_dir}: finished, but its {run_folder.BEST} is missing or damaged; put it "
            "back as it was, or train again with --force"
        )
    if not (saved.run_dir / run_folder.CURVES).exists():  # it was killed just before the very end
        with holding(saved.run_dir):
            run_folder.remove_unfinished(saved.run_dir)
            _draw_curves(saved.run_dir)
    line = f"{saved.run_dir}: finished already; next: slrctl evaluate {saved.run_dir}"
    print_lines(view.console, [line])
    if view.as_json:
        print_json(run_folder.read_summary(saved.run_dir))


def _draw_curves(run_dir: Path) -> None:
    from slrctl.reports.figures import draw_curves
    from slrctl.runs import folder as run_folder

    try:
        draw_curves(run_folder.read_metrics(run_dir), run_dir / run_folder.CURVES)
    except OSError as error:
        raise SlrctlError(
            f"{run_dir}: its curves cannot be drawn ({error.strerror or error}); the run itself is "
            f"whole; make room, then: {run_folder.resume_command(run_dir)}"
        ) from None


def _take_threads(saved: "SavedRun") -> None:
    """Use as many threads as the run was begun with: another number may change the last bits."""
    import torch

    threads = saved.environment.get("threads")
    if isinstance(threads, int) and threads > 0:
        torch.set_num_threads(threads)


def _on_going_on(saved: "SavedRun", workers: Workers) -> Iterator[str]:
    from slrctl.runs.environment import changes, describe_machine

    if saved.state_path is None:
        yield f"{saved.run_dir}: nothing was saved before it stopped; it begins again"
    else:
        where = f"batch {saved.batch} of epoch {saved.epoch + 1}" if saved.batch else ""
        yield f"going on after {where or f'epoch {saved.epoch}'}, from {saved.state_path}"
    now = describe_machine(workers.device(saved.settings.train.device))
    for change in changes(saved.environment, now):
        yield f"warning: {change}; the last bits may differ from a run without interruption"
