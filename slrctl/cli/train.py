"""`slrctl train`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.find_lambdas import show_lambdas
from slrctl.cli.interruption import stopping_on_signals
from slrctl.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    cache_for,
    command,
    setting_layers,
    with_absolute_paths,
)
from slrctl.cli.profile import show_profile
from slrctl.cli.progress import describe_terms
from slrctl.cli.train_run import TrainView, resume_run, show_run
from slrctl.cli.train_views import show_header, show_settings
from slrctl.errors import UsageError
from slrctl.launch import launched_count, launched_rank, one_voice
from slrctl.layers import cmcl_name, resolve
from slrctl.training.processes import (
    Workers,
    first_only,
    joined_workers,
)
from slrctl.training.stopping import StopRequest

if TYPE_CHECKING:
    from slrctl.core.data.splits import Splits
    from slrctl.settings import Settings

RUNS_DIR = Path("runs")
Preset = Literal["off", "conservative", "balanced", "aggressive", "adaptive"]


@command()
def train(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]", help="With --resume: the run, the newest interrupted one if absent."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run; it decides every setting."),
    ] = False,
    train_path: Annotated[
        Path | None,
        typer.Option("--train", metavar="PATH", help="Training clips; the demo set if absent."),
    ] = None,
    val_path: Annotated[
        Path | None,
        typer.Option("--val", metavar="PATH", help="Validation clips; else a part of --train."),
    ] = None,
    test_path: Annotated[
        Path | None,
        typer.Option("--test", metavar="PATH", help="Test clips, used once at the end."),
    ] = None,
    cmcl: Annotated[
        Preset | None, typer.Option("--cmcl", help="CMCL preset; off unless asked for.")
    ] = None,
    lambda_consistency: Annotated[
        float | None, typer.Option("--lambda-consistency", help="Weight of the consistency term.")
    ] = None,
    lambda_alignment: Annotated[
        float | None, typer.Option("--lambda-alignment", help="Weight of the alignment term.")
    ] = None,
    cmcl_temperature: Annotated[
        float | None, typer.Option("--cmcl-temperature", help="Softens the maps CMCL compares.")
    ] = None,
    adaptive_cmcl: Annotated[
        bool | None,
        typer.Option("--adaptive-cmcl/--no-adaptive-cmcl", help="Lambdas warm up, then decay."),
    ] = None,
    cross_attention: Annotated[
        bool | None,
        typer.Option(
            "--cross-attention/--no-cross-attention", help="Whether the streams read one another."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Passes over the clips.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Clips a step.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Peak of the schedule.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Everything random follows it.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, mps.")] = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"] | None,
        typer.Option("--precision", help="Arithmetic of the training step."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run's folder under runs/.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Folder the run is saved in.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the run that is in the folder.")
    ] = False,
    skip_bad_clips: Annotated[
        bool | None,
        typer.Option(
            "--skip-bad-clips", help="Leave bad clips out and say how many.", show_default=False
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    show_only: Annotated[
        bool, typer.Option("--show-settings", help="Print every setting and its origin, and exit.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Read the data, run one batch, save no run.")
    ] = False,
    find_lambdas: Annotated[
        bool,
        typer.Option(
            "--find-lambdas", help="Train 200 steps, say which lambdas matter, write nothing."
        ),
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            metavar="TRACE",
            help="Watch some steps, say where time goes, write a timeline, save no run.",
        ),
    ] = None,
    diagnostics: Annotated[
        bool, typer.Option("--diagnostics", help="Show what CMCL does, after every epoch.")
    ] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Train a model, keep its best checkpoint, and evaluate it."""  # fmt: skip
    stop = StopRequest()
    with (
        report_errors(),
        one_voice(),
        stopping_on_signals(stop, is_heard=launched_rank() == 0),
    ):
        flags: dict[str, tuple[str, Any]] = {
            "--train": ("data.train", train_path),
            "--val": ("data.val", val_path),
            "--test": ("data.test", test_path),
            "--lambda-consistency": ("cmcl.lambda_consistency", lambda_consistency),
            "--lambda-alignment": ("cmcl.lambda_alignment", lambda_alignment),
            "--cmcl-temperature": ("cmcl.temperature", cmcl_temperature),
            "--adaptive-cmcl": ("cmcl.adaptive", adaptive_cmcl),
            "--cross-attention": ("model.cross_attention", cross_attention),
            "--epochs": ("train.epochs", epochs),
            "--batch-size": ("train.batch_size", batch_size),
            "--learning-rate": ("train.learning_rate", learning_rate),
            "--seed": ("seed", seed),
            "--device": ("train.device", device),
            "--precision": ("train.precision", precision),
            "--skip-bad-clips": ("data.skip_bad_clips", skip_bad_clips or None),
        }
        is_first = launched_rank() == 0
        is_quiet = (quiet and not (dry_run or find_lambdas or profile)) or not is_first
        console = console_for(as_json=as_json, quiet=is_quiet)
        view = TrainView(console, as_json and is_first, diagnostics, stop)
        if resume or run is not None:
            given = {flag: value for flag, (_, value) in flags.items()}
            given |= {"--cmcl": cmcl, "--config": config, "--set": overrides or None}
            given |= {"--name": name, "--run-dir": run_dir, "--force": force or None}
            given |= {"--show-settings": show_only or None, "--dry-run": dry_run or None}
            given |= {"--find-lambdas": find_lambdas or None, "--profile": profile}
            _check_resume(run, resume, [flag for flag in given if given[flag] is not None])
            resume_run(run, RUNS_DIR, view)
            return
        resolved = resolve(setting_layers(config, overrides, preset=cmcl, flags=flags))
        if show_only and is_first:
            show_settings(console_for(), resolved, as_json=as_json)
        if show_only:
            return
        settings = with_absolute_paths(resolved.settings)
        if find_lambdas:
            _alone("--find-lambdas", settings, view, show_lambdas)
            return
        if profile:
            _alone("--profile", settings, view, partial(show_profile, trace=profile))
            return
        given = _given_place(name, run_dir)
        with joined_workers(settings.train.device) as workers:
            _train(settings, view._replace(workers=workers), given, force, dry_run)


def _check_resume(run: Path | None, resume: bool, given: list[str]) -> None:
    if not resume:
        raise UsageError(f"{run}: a run is named to go on with it; add --resume, or leave it out")
    if given:
        raise UsageError(
            f"{', '.join(given)}: settled by the run that --resume goes on with; leave it out"
        )


def _alone(flag: str, settings: "Settings", view: TrainView, show: Callable[..., None]) -> None:
    """Show something that is measured in one process and keeps no run."""
    from slrctl.core.data.splits import load_splits

    if launched_count() > 1:
        raise UsageError(f"{flag}: takes one process; start it without a launcher")
    splits = load_splits(settings, cache_for(settings.data))
    show_header(view.console, settings, splits)
    show(settings, splits, view.console, as_json=view.as_json)


def _train(
    settings: "Settings",
    view: TrainView,
    given: Path | None,
    force: bool,
    dry_run: bool,
) -> None:
    # Imported late: torch takes seconds, and neither --help nor a wrong setting needs it.
    from slrctl.core.data.splits import load_splits
    from slrctl.runs.folder import check_run_dir

    workers = view.workers
    if given is not None and not dry_run:  # before the data, which may take long to read
        first_only(workers, lambda: check_run_dir(given, force=force))
    splits = workers.together(lambda: load_splits(settings, cache_for(settings.data)))
    if view.console.quiet and workers.rank == 0:
        print_lines(console_for(as_json=True), [n for n in splits.notes if "warning: " in n])
    show_header(view.console, settings, splits)
    if dry_run:
        _try(settings, splits, view)
        return
    from slrctl.training.run import run_training

    place = given or _default_run_dir(settings, splits, workers)
    show_run(
        run_training(settings, splits, place, force=force, stop=view.stop, workers=workers),
        place,
        settings.train.epochs,
        view,
    )


def _given_place(name: str | None, run_dir: Path | None) -> Path | None:
    if name is not None and run_dir is not None:
        raise UsageError(f"--name {name} and --run-dir {run_dir}: both name the folder; give one")
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise UsageError(
            f"--name {name!r}: a name is one folder under {RUNS_DIR}/; use --run-dir for a path"
        )
    return RUNS_DIR / name if name is not None else run_dir


def _default_run_dir(settings: "Settings", splits: "Splits", workers: Workers) -> Path:
    from slrctl.runs.folder import free_run_dir

    loss = cmcl_name(settings).replace(" ", "-") if settings.cmcl.is_on else "ce"
    name = f"{splits.train.name}-{loss}-seed{settings.seed}"
    made = first_only(workers, lambda: free_run_dir(RUNS_DIR, name))
    return Path(*workers.names([str(made)] if made else []))


def _try(settings: "Settings", splits: "Splits", view: TrainView) -> None:
    from slrctl.core.model import num_parameters
    from slrctl.training.run_batches import try_one_batch

    trial = try_one_batch(settings, splits, view.workers)
    facts = {
        "parameters": num_parameters(settings.model, len(splits.train.classes)),
        "batches_per_epoch": trial.report.num_batches,
        "clips_in_batch": trial.report.num_clips,
        "seconds": trial.seconds,
        **trial.report.means,
    }
    view.console.print(
        f"one batch of {trial.report.num_clips} clips: {describe_terms(trial.report.means)}; "
        f"{trial.report.num_batches} such batches an epoch, {settings.train.epochs} epochs. "
        "No run was saved."
    )
    if view.as_json:
        print_json(facts)
