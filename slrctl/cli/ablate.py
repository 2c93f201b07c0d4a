"""`slrctl ablate`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    setting_layers,
    user_cache_dir,
)
from slrctl.errors import DataError, SlrctlError, UsageError
from slrctl.layers import Layer

if TYPE_CHECKING:
    import pandas as pd

    from slrctl.core.data.splits import Parts
    from slrctl.settings import Settings
    from slrctl.studies.ablation.report import StudyReport
    from slrctl.studies.ablation.study import Study
    from slrctl.studies.ablation.trials import Fold, Trial, TrialResult

STUDIES_DIR = Path("studies")
TRIALS = "trials"
# A study's own, shorter schedule: below everything the user says.
SCHEDULE = {"train": {"epochs": 12}}
QUICK = {"train": {"epochs": 3}}
QUICK_SEEDS = 2


class _Request(NamedTuple):
    """A study as the command line asks for it."""

    study: "Study"
    trials: "list[Trial]"
    output: Path
    trials_dir: Path
    jobs: int
    threads: int
    grids: tuple[str, ...]
    plan: float | None


def ablate(
    study: Annotated[
        str,
        typer.Option(
            "--study", help="cmcl, cmcl-forms, encoder, preparation, or a TOML file of variants."
        ),
    ] = "cmcl",
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="NAME:SECTION.KEY=VALUE,...",
            help="A variant of your own, instead of the study's; may be repeated.",
        ),
    ] = None,
    grids: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="SECTION.KEY=VALUE,...",
            help="All combinations of values; may be repeated.",
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Paired seeds; 9 unless said.")
    ] = None,
    train_path: Annotated[
        Path | None,
        typer.Option("--train", metavar="PATH", help="Training clips; the demo set if absent."),
    ] = None,
    val_path: Annotated[
        Path | None,
        typer.Option("--val", metavar="PATH", help="Validation clips; else a part of --train."),
    ] = None,
    test_path: Annotated[
        Path | None, typer.Option("--test", metavar="PATH", help="Test clips.")
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option("--folds", metavar="signer", help="Leave one signer out, each in turn."),
    ] = None,
    train_signers: Annotated[
        str | None,
        typer.Option("--train-signers", metavar="A,B", help="Train on these, test on the others."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the clips.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two seeds of three epochs: a look, no verdict.")
    ] = False,
    plan: Annotated[
        float | None,
        typer.Option(
            "--plan",
            metavar="DIFFERENCE",
            help="Say how many seeds would show this difference in accuracy, such as 0.01.",
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Trials at a time; else one a core.")
    ] = None,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads of a trial, whatever else runs.")
    ] = 1,
    config: ConfigOption = None,
    overrides: SetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the report; else under studies/.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run, and how long, and stop.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Train variants against a baseline over paired seeds, and say what was shown."""  # fmt: skip
    with report_errors():
        console = console_for(as_json=as_json, quiet=quiet)
        from slrctl.studies.ablation.study import built_in, read_study, with_grid, with_variants

        chosen = read_study(Path(study)) if study.endswith(".toml") else built_in(study)
        if variants and grids:
            raise UsageError("--variant and --grid: both name the variants; give one of them")
        chosen = with_grid(with_variants(chosen, variants or []), grids or [])
        schedule = Layer(f"schedule of study {chosen.name}", QUICK if quick else SCHEDULE)
        signers = _names(train_signers)
        above = setting_layers(
            None,
            overrides,
            flags={
                "--train": ("data.train", _absolute(train_path)),
                "--val": ("data.val", _absolute(val_path)),
                "--test": ("data.test", _absolute(test_path)),
                "--train-signers": ("data.train_signers", signers),
                "--epochs": ("train.epochs", epochs),
            },
        )
        below = [schedule, *setting_layers(config, None)]
        request = _plan(
            chosen,
            seeds or (QUICK_SEEDS if quick else 9),
            folds,
            below,
            above,
            output,
            jobs,
            threads,
            tuple(grids or ()),
            plan,
        )
        _run(request, console, dry_run=dry_run, as_json=as_json)


def _plan(
    study: "Study",
    num_seeds: int,
    folds: str | None,
    below: list[Layer],
    above: list[Layer],
    output: Path | None,
    jobs: int | None,
    threads: int,
    grids: tuple[str, ...],
    plan: float | None,
) -> _Request:
    from slrctl.layers import resolve
    from slrctl.studies.ablation.trials import Fold, plan_trials

    settings = resolve([*below, *above]).settings
    if settings.data.cache_dir is None:
        # Resolved once, for processes elsewhere may have another home.
        below = [Layer("user's cache", {"data": {"cache_dir": user_cache_dir()}}), *below]
        settings = resolve([*below, *above]).settings
    seeds = range(settings.seed, settings.seed + num_seeds)
    if folds not in (None, "signer"):
        raise UsageError(f"--folds {folds!r}: expected signer")
    cut = _signer_folds(settings) if folds else [Fold(None, {})]
    trials = plan_trials(study, seeds, cut, below, above)
    name = _parts_of(trials[0]).train.name
    place = output or STUDIES_DIR / f"{study.name}-{name}{'-by-signer' if folds else ''}"
    trials_dir = (output / TRIALS) if output else STUDIES_DIR / TRIALS
    num_jobs = jobs or _cores() // threads or 1
    return _Request(study, trials, place, trials_dir, num_jobs, threads, grids, plan)


def _run(request: _Request, console: Console, *, dry_run: bool, as_json: bool) -> None:
    from slrctl.cli.study_view import study_view
    from slrctl.studies.ablation.events import TrialDone, TrialFailed
    from slrctl.studies.ablation.local import run_locally
    from slrctl.studies.ablation.standing import standing
    from slrctl.studies.ablation.trials import read_result

    results, remaining = standing(request.trials, request.trials_dir)
    _announce(request, remaining, console)
    if dry_run:
        if as_json:
            print_json({"trials": len(request.trials), "remaining": len(remaining)})
        return
    failures: dict[str, str] = {}
    places = request.trials_dir, request.jobs, request.threads
    with study_view(console, request.trials, request.trials_dir, set(results)) as view:
        for event in run_locally(remaining, places[0], jobs=places[1], threads=places[2]):
            if isinstance(event, TrialDone):
                results[event.trial.key] = read_result(request.trials_dir / event.trial.key)
            elif isinstance(event, TrialFailed):
                failures[event.trial.key] = event.message
            view.show(event)
    _conclude(request, results, failures, console, as_json=as_json)


def _announce(request: _Request, remaining: "list[Trial]", console: Console) -> None:
    """How many trials, of what, and about how long."""
    from slrctl.studies.ablation.estimate import estimate_seconds

    study, trials = request.study, request.trials
    seeds = len({trial.seed for trial in trials})
    folds = len({trial.fold for trial in trials})
    by_fold = f" x {folds} folds" if folds > 1 else ""
    done = len({trial.key for trial in trials}) - len(remaining)
    lines = [
        f"study {study.name}: {len(study.variants)} variants x {seeds} seeds{by_fold} = "
        f"{len(trials)} trials of {trials[0].settings.train.epochs} epochs, {done} done already",
        f"baseline {study.baseline}; "
        + (f"primary contrast {study.primary}" if study.primary else "no primary contrast"),
    ]
    if remaining:
        parts = _parts_of(remaining[0])
        seconds = estimate_seconds(remaining, parts, jobs=request.jobs, threads=request.threads)
        lines.append(
            f"about {_duration(seconds)} for the {len(remaining)} that remain, "
            f"{request.jobs} at a time; interrupt whenever you like, the same command goes on"
        )
    print_lines(console, lines)


def _conclude(
    request: _Request,
    results: "dict[str, TrialResult]",
    failures: dict[str, str],
    console: Console,
    *,
    as_json: bool,
) -> None:
    from slrctl.cli.study_view import show_report
    from slrctl.reports.study_folder import write_report
    from slrctl.studies.ablation.report import report_study, results_table

    table = results_table(request.trials, results, failures)
    report = report_study(request.study, table)
    write_report(request.output, report, table, _facts(request), request.grids)
    show_report(console, report)
    print_lines(
        console,
        [
            *(
                f"failed: {_title(trial)}: {failures[trial.key]}"
                for trial in request.trials
                if trial.key in failures
            ),
            f"written to {request.output}; its trials are runs under {request.trials_dir}",
        ],
    )
    plans = _plans(report, table, request.plan, console)
    if as_json:
        print_json({**report.to_json(), **({"plan": plans} if plans else {})})
    if not results:
        raise SlrctlError(
            f"none of the {len(request.trials)} trials finished; the first: "
            f"{next(iter(failures.values()), 'nothing was run')}"
        )


def _plans(
    report: "StudyReport", table: "pd.DataFrame", difference: float | None, console: Console
) -> dict[str, dict[str, float | None]]:
    """Seeds that would show the difference asked about, from the spread of the finished ones."""
    from slrctl.studies.planning import plan_study

    if difference is None:
        return {}
    plans = plan_study(report, table, difference)
    for name, plan in plans.items():
        seeds, cautious = (
            "more than 10,000" if count is None else str(count)
            for count in (plan.seeds, plan.cautious_seeds)
        )
        line = (
            f"to see {100 * difference:g} points in {name} with a power of 80 %: {seeds} seeds, "
            f"{cautious} if this pilot's spread is understated"
        )
        print_lines(console, [line])
    return {name: plan._asdict() for name, plan in plans.items()}


def _title(trial: "Trial") -> str:
    return f"{trial.variant}, seed {trial.seed}" + (f", {trial.fold}" if trial.fold else "")


def _facts(request: _Request) -> list[str]:
    """What was run on what, for the head of the report."""
    from slrctl.studies.ablation.trials import source_fingerprints

    settings = request.trials[0].settings
    files = [
        path.name
        for name in ("train", "val", "test")
        if (path := getattr(settings.data, name)) is not None
    ]
    prints = source_fingerprints(settings.data)
    return [
        f"data: {', '.join(files) or 'the demo set'} "
        f"({', '.join(f'{name} {value[:12]}' for name, value in prints.items())})",
        f"{settings.train.epochs} epochs, batch {settings.train.batch_size}, learning rate "
        f"{settings.train.learning_rate:g}, {settings.train.precision}, recipe {settings.recipe}",
        f"{request.threads} thread a trial",
    ]


def _parts_of(trial: "Trial") -> "Parts":
    from slrctl.core.data.parts import load_parts
    from slrctl.studies.ablation.trials import kept_clips

    return load_parts(trial.settings, kept_clips(trial.settings.data))


def _signer_folds(settings: "Settings") -> "list[Fold]":
    """Every signer tests once, while all others train."""
    from slrctl.core.data.dataset import load_dataset
    from slrctl.core.data.people import signers_of
    from slrctl.core.data.synthetic import synthesise
    from slrctl.studies.ablation.trials import Fold, kept_clips

    data = settings.data
    clips = (
        synthesise().dataset
        if data.train is None
        else load_dataset(data.train, data, cache=kept_clips(data))
    )
    signers = signers_of(clips)
    if len(signers) < 2:
        raise DataError(
            f"{clips.source}: {len(signers)} signers known, and --folds signer needs at least 2; "
            "fill in the signer column"
        )
    return [Fold(signer, {"data": {"test_signers": (signer,)}}) for signer in signers]


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"
