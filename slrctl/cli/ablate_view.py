"""A study in the terminal: what it will do, a live table of its trials, and what was shown."""

import os
import shlex
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from slrctl.cli.console import print_json, print_lines, print_table, stopping_on_signals
from slrctl.core.data.cache import open_cache
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.splits import Splits, load_splits
from slrctl.errors import Interrupted, SlrctlError, count_of, quote
from slrctl.layers import Layer, Tree, flatten
from slrctl.reports.study_page import headings, study_rows, write_report
from slrctl.runs.folder import METRICS
from slrctl.studies.ablation.on_ray import LOCAL
from slrctl.studies.ablation.report import StudyReport, plan_study, report_study, results_table
from slrctl.studies.ablation.running import (
    TrialDone,
    TrialEvent,
    TrialFailed,
    TrialStarted,
    estimate_seconds,
    run_trials,
)
from slrctl.studies.ablation.study import Study
from slrctl.studies.ablation.trials import (
    StudyPlan,
    Trial,
    TrialResult,
    plan_whole_study,
    read_result,
    source_fingerprints,
    standing,
)

STUDIES_DIR = Path("studies")
# What a cell of the live table shows.
_OPEN, _DONE, _FAILED = ("·", "dim"), ("■", "green"), ("x", "bold red")
# A running trial, where there is no room for its epochs.
_RUNNING = ("▸", "yellow")
_ANY_WIDTH = 10_000


class Request(NamedTuple):
    """The options of a study beside its variants and settings.

    `difference` is the one in accuracy whose seeds are asked for; `jobs` the trials at a time, None
    for as many as there is room for; `ray` the address of a cluster, None for processes of this
    machine.
    """

    seeds: int
    by_signer: bool
    output: Path | None
    name_ending: str
    grids: list[str]
    difference: float | None
    jobs: int | None
    threads: int
    ray: str | None
    dry_run: bool


def run_study(
    study: Study,
    below: Sequence[Layer],
    above: Sequence[Layer],
    request: Request,
    console: Console,
    *,
    as_json: bool,
) -> None:
    """Say what a study will do, run what remains of it, and show and write its report."""
    if request.jobs is None and request.ray in (None, LOCAL):
        request = request._replace(jobs=_cores() // request.threads or 1)
    plan = plan_whole_study(
        study,
        request.seeds,
        below,
        above,
        by_signer=request.by_signer,
        studies_dir=STUDIES_DIR,
        output=request.output,
        name_ending=request.name_ending,
    )
    results, remaining = standing(plan.trials, plan.trials_dir)
    _announce(plan, remaining, request, console)
    if request.dry_run:
        if as_json:
            print_json({"trials": len(plan.trials), "remaining": len(remaining)})
        return
    failures = _run(plan, remaining, results, request, console)
    with _interruptible(plan, results):
        _conclude(plan, results, failures, request, console, as_json=as_json)


def _cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _splits_of(trial: Trial) -> Splits:
    return load_splits(trial.settings, open_cache(trial.settings.data))


@contextmanager
def _interruptible(plan: StudyPlan, finished: Collection[str]) -> Iterator[None]:
    """Let a signal end the study inside the block, with a line that says what is kept.

    Args:
        plan: the study.
        finished: keys of its finished trials, looked at when the signal comes.
    """
    try:
        with stopping_on_signals():
            yield
    except KeyboardInterrupt:
        total = len({trial.key for trial in plan.trials})
        raise Interrupted(
            f"interrupted: {len(finished)} of {total} trials are finished; the same command goes on"
        ) from None


def _announce(
    plan: StudyPlan, remaining: Sequence[Trial], request: Request, console: Console
) -> None:
    study, trials = plan.study, plan.trials
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
        with _interruptible(plan, finished):
            seconds = estimate_seconds(
                remaining,
                _splits_of(remaining[0]),
                jobs=request.jobs or 1,
                threads=request.threads,
            )
        how_long = "an unknown time" if seconds is None else f"about {_duration(seconds)}"
        lines.append(
            f"{how_long} for the {len(remaining)} that remain, {_at_once(request)}; "
            "interrupt whenever you like, the same command goes on"
        )
    print_lines(console, lines)


def _at_once(request: Request) -> str:
    if request.ray is None:
        return f"{request.jobs} at a time"
    if request.jobs is None:
        return f"if one at a time; Ray at {request.ray} runs as many as its nodes have room for"
    return f"{request.jobs} at a time on Ray, {request.ray}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _run(
    plan: StudyPlan,
    remaining: Sequence[Trial],
    results: dict[str, TrialResult],
    request: Request,
    console: Console,
) -> dict[str, str]:
    """Run trials, add their results to the others, and return why some failed, by key."""
    failures: dict[str, str] = {}
    grid = Grid(plan.trials, plan.trials_dir, set(results))
    is_live = console.is_terminal and not console.quiet
    live = Live(grid, console=console, refresh_per_second=2) if is_live else None
    events = run_trials(
        remaining, plan.trials_dir, jobs=request.jobs, threads=request.threads, ray=request.ray
    )
    # Closed here, and not whenever the last reference goes: that is what ends the processes.
    with _interruptible(plan, results), live or nullcontext(), closing(events):
        for event in events:
            if isinstance(event, TrialDone):
                results[event.trial.key] = read_result(plan.trials_dir / event.trial.key)
            elif isinstance(event, TrialFailed):
                failures[event.trial.key] = event.message
            grid.update(event)
            if live is not None:
                live.refresh()
            elif not isinstance(event, TrialStarted):
                print_lines(console, [grid.line(event)])
    return failures


class Grid:
    """The state of every trial: a table of variants by seeds that Rich can draw."""

    def __init__(self, trials: Sequence[Trial], trials_dir: Path, finished: set[str]) -> None:
        self.trials, self.trials_dir = trials, trials_dir
        self.keys = {trial.key for trial in trials}
        self.finished, self.failed = finished, set[str]()
        self.running: dict[str, float] = {}
        self.seconds: list[float] = []
        self.at_once = 1

    def update(self, event: TrialEvent) -> None:
        key = event.trial.key
        if isinstance(event, TrialStarted):
            self.running[key] = time.perf_counter()
            self.at_once = max(self.at_once, len(self.running))
            return
        self.seconds.append(time.perf_counter() - self.running.pop(key))
        (self.failed if isinstance(event, TrialFailed) else self.finished).add(key)

    def line(self, event: TrialEvent) -> str:
        """Describe the end of a trial, where nobody sees the table."""
        done = len(self.finished) + len(self.failed)
        how = f"failed: {event.message}" if isinstance(event, TrialFailed) else "done"
        return f"{done}/{len(self.keys)}  {_title(event.trial)}: {how}"

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
        """Draw one character a trial, in the order of the seeds."""
        seeds = [seed for seed, _ in self._columns()]
        folds = len({fold for _, fold in self._columns()})
        by_fold = f", {folds} folds of each" if folds > 1 else ""
        table = _bare_table("", f"seeds {seeds[0]} to {seeds[-1]}{by_fold}")
        for variant, trials in self._rows():
            table.add_row(Text(variant), Text.assemble(*map(self._mark, trials)))
        return table

    def _columns(self) -> list[tuple[int, str | None]]:
        return list(dict.fromkeys((trial.seed, trial.fold) for trial in self.trials))

    def _rows(self) -> Iterator[tuple[str, list[Trial]]]:
        by_place = {(t.variant, t.seed, t.fold): t for t in self.trials}
        for variant in dict.fromkeys(trial.variant for trial in self.trials):
            yield variant, [by_place[variant, seed, fold] for seed, fold in self._columns()]

    def _summary(self) -> Text:
        line = f"{len(self.keys & self.finished)} of {len(self.keys)} trials done"
        line += f", {len(self.failed)} failed" if self.failed else ""
        if self.seconds:
            left = len(self.keys - self.finished - self.failed)
            seconds = left * sum(self.seconds) / len(self.seconds) / self.at_once
            line += f", about {seconds / 60:.0f} minutes left" if left else ""
        return Text(line)

    def _cell(self, trial: Trial) -> Text:
        if trial.key not in self.running:
            return Text(*self._mark(trial))
        try:  # its finished epochs, by the lines it has written
            epoch = (self.trials_dir / trial.key / METRICS).read_bytes().count(b"\n")
        except OSError:
            epoch = 0
        return Text(f"{epoch}/{trial.settings.train.epochs}", "yellow")

    def _mark(self, trial: Trial) -> tuple[str, str]:
        if trial.key in self.running:
            return _RUNNING
        if trial.key in self.failed:
            return _FAILED
        return _DONE if trial.key in self.finished else _OPEN


def _bare_table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for number, heading in enumerate(headings):
        table.add_column(Text(heading), justify="center" if number else "left")
    return table


def _title(trial: Trial) -> str:
    return f"{trial.variant}, seed {trial.seed}" + (f", {trial.fold}" if trial.fold else "")


def _conclude(
    plan: StudyPlan,
    results: dict[str, TrialResult],
    failures: dict[str, str],
    request: Request,
    console: Console,
    *,
    as_json: bool,
) -> None:
    table = results_table(plan.trials, results, failures)
    report = report_study(plan.study, table)
    try:
        write_report(plan.report_dir, report, table, _facts(plan), request.grids)
    except OSError as error:
        raise SlrctlError(
            f"{plan.report_dir}: the report cannot be written ({error.strerror or error}); "
            "make room, and run the study again: no trial is repeated"
        ) from None
    print_table(console, f"study {report.study.name}", headings(report), study_rows(report))
    lines = [f"{variant.name}: {variant.sentence}" for variant in report.variants[1:]]
    lines += [
        f"failed: {_title(trial)}: {failures[trial.key]}"
        for trial in plan.trials
        if trial.key in failures
    ]
    lines.append(f"written to {plan.report_dir}; its trials are runs under {plan.trials_dir}")
    print_lines(console, lines)
    facts = report.to_json()
    if request.difference is not None:
        facts["plan"] = _show_seeds(report, table, request.difference, console)
    if as_json:
        print_json(facts)
    if not results:
        raise SlrctlError(
            f"none of the {len(plan.trials)} trials finished; the first: "
            f"{next(iter(failures.values()), 'nothing was run')}"
        )


def _show_seeds(
    report: StudyReport, table: pd.DataFrame, difference: float, console: Console
) -> dict[str, dict[str, float | None]]:
    """Say how many seeds would show the difference, from the spread of the finished ones."""
    plans = plan_study(report.study, table, difference)
    lines = [
        f"to see {100 * difference:g} points in {variant.name}: no plan, for two finished seeds or "
        "more must differ from one another to show the spread"
        for variant in report.variants[1:]
        if variant.name not in plans
    ]
    for name, found in plans.items():
        seeds, cautious = (
            "more than 10,000" if count is None else str(count)
            for count in (found.seeds, found.cautious_seeds)
        )
        lines.append(
            f"to see {100 * difference:g} points in {name} with a power of 80 %: {seeds} seeds, "
            f"{cautious} if this pilot's spread is understated"
        )
    print_lines(console, lines)
    return {name: found._asdict() for name, found in plans.items()}


def _facts(plan: StudyPlan) -> list[str]:
    """Describe the command, the clips, the settings of all trials and those of each variant."""
    settings = plan.trials[0].settings
    data, train = settings.data, settings.train
    files = [path.name for path in (data.train, data.val, data.test) if path is not None]
    prints = source_fingerprints(data)
    is_command = Path(sys.argv[0]).stem == "slrctl"  # else another program calls this one
    return [
        *([f"command: {shlex.join(['slrctl', *sys.argv[1:]])}"] if is_command else []),
        f"data: {', '.join(files) or 'the demo set'} "
        f"({', '.join(f'{name} {value[:12]}' for name, value in prints.items())})",
        _clips(plan),
        f"{count_of(train.epochs, 'epoch')}, batch {train.batch_size}, learning rate "
        f"{train.learning_rate:g}, {train.precision}, recipe {settings.recipe}",
        f"set for all: {_listed(plan.given) or 'nothing else'}",
        *(
            f"{name}: {_listed(tree) or 'nothing changed'}"
            for name, tree in plan.study.variants.items()
        ),
    ]


def _clips(plan: StudyPlan) -> str:
    """Count the clips of each split and name their signers; of folds, name who tests in each."""
    folds = dict.fromkeys(trial.fold for trial in plan.trials)
    if len(folds) > 1:
        return f"folds: {', '.join(str(fold) for fold in folds)} test, each in turn"
    splits = _splits_of(plan.trials[0])
    named = {"train": splits.train, "validation": splits.val, "test": splits.test}
    return "; ".join(f"{name} {_described(split)}" for name, split in named.items() if split)


def _described(split: SignDataset) -> str:
    signers = sorted({clip.signer for clip in split if clip.signer is not None})
    shown = [name if name.isprintable() else quote(name) for name in signers]
    of_whom = f" of {', '.join(shown)}" if 0 < len(shown) <= 8 else ""
    return f"{len(split)} clips{of_whom}"


def _listed(tree: Tree) -> str:
    return ", ".join(f"{key}={value}" for key, value in flatten(tree).items())
