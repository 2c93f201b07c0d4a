"""A study in the terminal: what it will do, a live table of its trials, and what was shown."""

import os
import shlex
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from slrctl.cli.console import Display
from slrctl.core.data.cache import open_cache
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.splits import Splits, load_splits
from slrctl.errors import Interrupted, SlrctlError, count_of, quote
from slrctl.layers import Layer, Tree, flatten
from slrctl.reports.study_page import headings, study_rows, write_report
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
from slrctl.studies.statistics import Plan

STUDIES_DIR = Path("studies")
_OPEN = ("·", "dim")
_MARKS = {TrialStarted: ("▸", "yellow"), TrialDone: ("■", "green"), TrialFailed: ("x", "bold red")}


def run_study(
    study: Study,
    below: Sequence[Layer],
    above: Sequence[Layer],
    display: Display,
    *,
    seeds: int,
    by_signer: bool,
    output: Path | None,
    name_ending: str,
    grids: list[str],
    difference: float | None,
    jobs: int | None,
    threads: int,
    ray: str | None,
    dry_run: bool,
) -> None:
    """Say what a study will do, run what remains of it, and show and write its report.

    `difference` is the one in accuracy whose seeds are asked for; `jobs` the trials at a time, None
    for as many as there is room for; `ray` the address of a cluster, None for processes of this
    machine.
    """
    if jobs is None and ray in (None, LOCAL):
        jobs = _cores() // threads or 1
    plan = plan_whole_study(
        study,
        seeds,
        below,
        above,
        by_signer=by_signer,
        studies_dir=STUDIES_DIR,
        output=output,
        name_ending=name_ending,
    )
    results, remaining = standing(plan.trials, plan.trials_dir)
    num_trials = len({trial.key for trial in plan.trials})
    try:
        display.lines(*_announcement(plan, num_trials - len(remaining)))
        if remaining:
            splits = _splits_of(remaining[0])
            seconds = estimate_seconds(remaining, splits, jobs=jobs or 1, threads=threads)
            display.lines(
                f"{'an unknown time' if seconds is None else f'about {_duration(seconds)}'} for "
                f"the {len(remaining)} that remain, {_at_once(jobs, ray)}; "
                "interrupt whenever you like, the same command goes on"
            )
        if dry_run:
            display.json({"trials": len(plan.trials), "remaining": len(remaining)})
            return
        events = run_trials(remaining, plan.trials_dir, jobs=jobs, threads=threads, ray=ray)
        failures = _follow(events, plan, results, display)
        _conclude(plan, results, failures, grids, difference, display)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted: {len(results)} of {num_trials} trials are finished; the same command "
            "goes on"
        ) from None


def _cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _splits_of(trial: Trial) -> Splits:
    return load_splits(trial.settings, open_cache(trial.settings.data))


def _announcement(plan: StudyPlan, num_finished: int) -> Iterator[str]:
    study, trials = plan.study, plan.trials
    folds = len({trial.fold for trial in trials})
    by_fold = f" x {folds} folds" if folds > 1 else ""
    yield (
        f"study {study.name}: {len(study.variants)} variants x "
        f"{len({trial.seed for trial in trials})} seeds{by_fold} = {len(trials)} trials of "
        f"{count_of(trials[0].settings.train.epochs, 'epoch')}, {num_finished} done already"
    )
    primary = f"primary contrast {study.primary}" if study.primary else "no primary contrast"
    yield f"baseline {study.baseline}; {primary}"


def _at_once(jobs: int | None, ray: str | None) -> str:
    if ray is None:
        return f"{jobs} at a time"
    if jobs is None:
        return f"if one at a time; Ray at {ray} runs as many as its nodes have room for"
    return f"{jobs} at a time on Ray, {ray}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _follow(
    events: Generator[TrialEvent],
    plan: StudyPlan,
    results: dict[str, TrialResult],
    display: Display,
) -> dict[str, str]:
    """Show trials as they run, add their results to the others, and return failures by key."""
    failures: dict[str, str] = {}
    states: dict[str, type[TrialEvent]] = dict.fromkeys(results, TrialDone)
    started, num_before = time.perf_counter(), len(results)
    console = display.console
    live = Live(console=console) if console.is_terminal and not console.quiet else None
    # Closed here, and not whenever the last reference goes: that is what ends the processes.
    with live or nullcontext(), closing(events):
        for event in events:
            key = event.trial.key
            states[key] = type(event)
            if isinstance(event, TrialDone):
                results[key] = read_result(plan.trials_dir / key)
            elif isinstance(event, TrialFailed):
                failures[key] = event.message
            num_ended = len(results) + len(failures)
            if live is not None:
                seconds = (time.perf_counter() - started) / max(num_ended - num_before, 1)
                live.update(trial_table(plan.trials, states, seconds), refresh=True)
            elif not isinstance(event, TrialStarted):
                how = f"failed: {failures[key]}" if key in failures else "done"
                total = len({trial.key for trial in plan.trials})
                display.lines(f"{num_ended}/{total}  {_title(event.trial)}: {how}")
    return failures


def trial_table(
    trials: Sequence[Trial], states: Mapping[str, type[TrialEvent]], seconds: float
) -> Group:
    """Draw a variant a row and a trial a character, in the order of the seeds.

    Args:
        trials: of the study.
        states: by key of the trial, the last that happened to it.
        seconds: a trial has taken, for the time that is left.
    """
    seeds, folds = [trial.seed for trial in trials], len({trial.fold for trial in trials})
    by_fold = f", {folds} folds of each" if folds > 1 else ""
    ends = [states.get(key) for key in dict.fromkeys(trial.key for trial in trials)]
    num_failed, num_left = ends.count(TrialFailed), ends.count(None) + ends.count(TrialStarted)
    caption = f"{ends.count(TrialDone)} of {len(ends)} trials done"
    caption += f", {num_failed} failed" if num_failed else ""
    caption += f", about {_duration(num_left * seconds)} left" if num_left else ""
    table = Table(box=None, pad_edge=False)
    table.add_column()
    table.add_column(f"seeds {min(seeds)} to {max(seeds)}{by_fold}", overflow="fold")
    for variant in dict.fromkeys(trial.variant for trial in trials):
        own = (states.get(trial.key) for trial in trials if trial.variant == variant)
        marks = (_OPEN if state is None else _MARKS[state] for state in own)
        table.add_row(Text(variant), Text.assemble(*marks))
    return Group(table, Text(caption))


def _title(trial: Trial) -> str:
    return f"{trial.variant}, seed {trial.seed}" + (f", {trial.fold}" if trial.fold else "")


def _conclude(
    plan: StudyPlan,
    results: dict[str, TrialResult],
    failures: dict[str, str],
    grids: list[str],
    difference: float | None,
    display: Display,
) -> None:
    table = results_table(plan.trials, results, failures)
    report = report_study(plan.study, table)
    try:
        write_report(plan.report_dir, report, table, _facts(plan), grids)
    except OSError as error:
        raise SlrctlError(
            f"{plan.report_dir}: the report cannot be written ({error.strerror or error}); "
            "make room, and run the study again: no trial is repeated"
        ) from None
    display.table(f"study {report.study.name}", headings(report), study_rows(report))
    display.lines(
        *(f"{variant.name}: {variant.sentence}" for variant in report.variants[1:]),
        *(
            f"failed: {_title(trial)}: {failures[trial.key]}"
            for trial in plan.trials
            if trial.key in failures
        ),
        f"written to {plan.report_dir}; its trials are runs under {plan.trials_dir}",
    )
    facts = report.to_json()
    if difference is not None:
        plans = plan_study(report.study, table, difference)
        display.lines(*_seeds_needed(report, plans, f"to see {100 * difference:g} points in"))
        facts["plan"] = {name: found._asdict() for name, found in plans.items()}
    display.json(facts)
    if not results:
        raise SlrctlError(
            f"none of the {len(plan.trials)} trials finished; the first: "
            f"{next(iter(failures.values()), 'nothing was run')}"
        )


def _seeds_needed(report: StudyReport, plans: Mapping[str, Plan], aim: str) -> Iterator[str]:
    for variant in report.variants[1:]:
        if variant.name not in plans:
            yield (
                f"{aim} {variant.name}: no plan, for two finished seeds or more must differ from "
                "one another to show the spread"
            )
    for name, found in plans.items():
        seeds, cautious = (
            "more than 10,000" if count is None else str(count)
            for count in (found.seeds, found.cautious_seeds)
        )
        yield (
            f"{aim} {name} with a power of 80 %: {seeds} seeds, {cautious} if this pilot's spread "
            "is understated"
        )


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
