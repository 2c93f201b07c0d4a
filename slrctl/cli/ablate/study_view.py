"""Show a study while its trials run, and what they came to."""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from slrctl.cli.console import print_lines, print_table

if TYPE_CHECKING:
    from slrctl.studies.ablation.report import StudyReport
    from slrctl.studies.ablation.running import TrialEvent
    from slrctl.studies.ablation.trials import Trial

# What a cell of the live table shows.
_OPEN, _DONE, _FAILED = ("·", "dim"), ("■", "green"), ("x", "bold red")
# A running trial, where there is no room for its epochs.
_RUNNING = ("▸", "yellow")
_ANY_WIDTH = 10_000


class StudyView(Protocol):
    """What shows the events of a study."""

    def show(self, event: "TrialEvent") -> None: ...


def study_view(
    console: Console, trials: "Sequence[Trial]", trials_dir: Path, finished: set[str]
) -> AbstractContextManager[StudyView]:
    """A live table of variants by seeds in a terminal, a line a trial elsewhere."""
    grid = _Grid(trials, trials_dir, finished)
    if console.is_terminal and not console.quiet:
        return _live(console, grid)
    return _plain(console, grid)


class _Grid:
    """Where every trial stands, and how long they take."""

    def __init__(self, trials: "Sequence[Trial]", trials_dir: Path, finished: set[str]) -> None:
        self.trials, self.trials_dir = trials, trials_dir
        self.finished, self.failed = finished, set[str]()
        self.running: dict[str, float] = {}
        self.seconds: list[float] = []
        self.at_once = 1

    def take_in(self, event: "TrialEvent") -> None:
        from slrctl.studies.ablation.running import TrialFailed, TrialStarted

        key = event.trial.key
        if isinstance(event, TrialStarted):
            self.running[key] = time.perf_counter()
            self.at_once = max(self.at_once, len(self.running))
            return
        self.seconds.append(time.perf_counter() - self.running.pop(key))
        (self.failed if isinstance(event, TrialFailed) else self.finished).add(key)

    def remaining_seconds(self) -> float | None:
        if not self.seconds:
            return None
        keys = {trial.key for trial in self.trials}
        left = len(keys - self.finished - self.failed)
        return left * sum(self.seconds) / len(self.seconds) / self.at_once

    def epoch_of(self, trial: "Trial") -> int:
        """Epochs a running trial has finished, by the lines it has written."""
        from slrctl.runs.folder import METRICS

        try:
            return (self.trials_dir / trial.key / METRICS).read_bytes().count(b"\n")
        except OSError:
            return 0

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        table = self._with_headings()
        wanted = Measurement.get(console, options.update(width=_ANY_WIDTH), table).maximum
        yield table if wanted <= options.max_width else self._without_headings()
        yield self._summary()

    def _with_headings(self) -> Table:
        seeds = self._columns()
        table = _bare_table("", *(f"{s}" if fold is None else f"{s}/{fold}" for s, fold in seeds))
        for variant, trials in self._rows():
            table.add_row(Text(variant), *map(self._cell, trials))
        return table

    def _without_headings(self) -> Table:
        """One character a trial, in the order of the seeds."""
        seeds = [seed for seed, _ in self._columns()]
        folds = len({fold for _, fold in self._columns()})
        by_fold = f", {folds} folds of each" if folds > 1 else ""
        table = _bare_table("", f"seeds {seeds[0]} to {seeds[-1]}{by_fold}")
        for variant, trials in self._rows():
            table.add_row(Text(variant), Text.assemble(*map(self._mark, trials)))
        return table

    def _columns(self) -> list[tuple[int, str | None]]:
        return list(dict.fromkeys((trial.seed, trial.fold) for trial in self.trials))

    def _rows(self) -> "Iterator[tuple[str, list[Trial]]]":
        by_place = {(t.variant, t.seed, t.fold): t for t in self.trials}
        for variant in dict.fromkeys(trial.variant for trial in self.trials):
            yield variant, [by_place[variant, seed, fold] for seed, fold in self._columns()]

    def _summary(self) -> Text:
        left = self.remaining_seconds()
        keys = {trial.key for trial in self.trials}
        line = f"{len(keys & self.finished)} of {len(keys)} trials done"
        line += f", {len(self.failed)} failed" if self.failed else ""
        line += f", about {left / 60:.0f} minutes left" if left else ""
        return Text(line)

    def _cell(self, trial: "Trial") -> Text:
        if trial.key in self.running:
            return Text(f"{self.epoch_of(trial)}/{trial.settings.train.epochs}", "yellow")
        return Text(*self._mark(trial))

    def _mark(self, trial: "Trial") -> tuple[str, str]:
        if trial.key in self.running:
            return _RUNNING
        if trial.key in self.failed:
            return _FAILED
        return _DONE if trial.key in self.finished else _OPEN


def _bare_table(*headings: str) -> Table:
    """A column of names, and others of marks."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="center" if number else "left")
    return table


class _Live:
    def __init__(self, live: Live, grid: _Grid) -> None:
        self.live, self.grid = live, grid

    def show(self, event: "TrialEvent") -> None:
        self.grid.take_in(event)
        self.live.refresh()


class _Plain:
    def __init__(self, console: Console, grid: _Grid) -> None:
        self.console, self.grid = console, grid

    def show(self, event: "TrialEvent") -> None:
        from slrctl.studies.ablation.running import TrialFailed, TrialStarted

        self.grid.take_in(event)
        if isinstance(event, TrialStarted):
            return
        trial, done = event.trial, len(self.grid.finished) + len(self.grid.failed)
        total = len({trial.key for trial in self.grid.trials})
        fold = f", {trial.fold}" if trial.fold else ""
        how = f"failed: {event.message}" if isinstance(event, TrialFailed) else "done"
        line = f"{done}/{total}  {trial.variant}, seed {trial.seed}{fold}: {how}"
        print_lines(self.console, [line])


@contextmanager
def _live(console: Console, grid: _Grid) -> Iterator[StudyView]:
    with Live(grid, console=console, refresh_per_second=2) as live:
        yield _Live(live, grid)


@contextmanager
def _plain(console: Console, grid: _Grid) -> Iterator[StudyView]:
    yield _Plain(console, grid)


def show_report(console: Console, report: "StudyReport") -> None:
    from slrctl.reports.study_page import headings, study_rows

    print_table(console, f"study {report.study.name}", headings(report), study_rows(report))
    lines = [f"{variant.name}: {variant.sentence}" for variant in report.variants[1:]]
    print_lines(console, lines)
