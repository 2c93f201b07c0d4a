"""`slrctl train`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display, stopping_on_signals
from slrctl.errors import UsageError, launched_rank, one_voice
from slrctl.layers import Resolved, flatten, resolve

INSTEAD = "Instead of a training"
EXAMPLES = """Examples:

  slrctl train --cmcl balanced

  slrctl train --train train.csv --val val.csv --cmcl adaptive --epochs 100 --name first

  slrctl train --resume runs/first
"""


@opt.command(EXAMPLES)
def train(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="With --resume: the run, the newest interrupted one if absent."
        ),
    ] = None,
    config: opt.ConfigPath = None,
    overrides: opt.Overrides = None,
    train_path: opt.TrainPath = None,
    val_path: opt.ValPath = None,
    test_path: opt.TestPath = None,
    skip_bad_clips: opt.SkipBadClips = None,
    cross_attention: opt.CrossAttention = None,
    cmcl: opt.Preset = None,
    lambda_consistency: opt.LambdaConsistency = None,
    lambda_alignment: opt.LambdaAlignment = None,
    cmcl_temperature: opt.Temperature = None,
    adaptive_cmcl: opt.Adaptive = None,
    epochs: opt.Epochs = None,
    batch_size: opt.BatchSize = None,
    learning_rate: opt.LearningRate = None,
    seed: opt.Seed = None,
    device: opt.Device = None,
    name: Annotated[
        str | None, opt.option("Name of the run's folder under runs/.", opt.OUTPUT)
    ] = None,
    run_dir: Annotated[Path | None, opt.option("Folder the run is saved in.", opt.OUTPUT)] = None,
    force: Annotated[
        bool, opt.option("Overwrite the run that is in the folder.", opt.OUTPUT, "--force")
    ] = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    resume: Annotated[
        bool,
        opt.option("Go on with an interrupted run; it decides every setting.", INSTEAD, "--resume"),
    ] = False,
    show_only: Annotated[
        bool, opt.option("Print every setting and its origin.", INSTEAD, "--show-settings")
    ] = False,
    dry_run: Annotated[
        bool, opt.option("Read the data and take one step.", INSTEAD, "--dry-run")
    ] = False,
    find_lambdas: Annotated[
        bool, opt.option("Train 200 steps and say which lambdas matter.", INSTEAD, "--find-lambdas")
    ] = False,
    profile: Annotated[
        Path | None,
        opt.option(
            "Profile some steps and write their timeline to a file.", INSTEAD, metavar="TRACE"
        ),
    ] = None,
) -> None:
    """Train a model, keep its best checkpoint, and evaluate it."""
    is_first = launched_rank() == 0
    with one_voice(), stopping_on_signals():
        if resume or run is not None:
            _check_resume(ctx, run, resume)
        resolved = resolve(opt.setting_layers(ctx))
        is_quiet = quiet and not (show_only or dry_run or find_lambdas or profile)
        display = Display(as_json=as_json and is_first, quiet=is_quiet or not is_first)
        if show_only:
            _show_settings(display, resolved)
            return
        place = _place(name, run_dir)
        settings = opt.with_absolute_paths(resolved.settings)
        from slrctl.cli import progress

        if resume:
            progress.resume_run(run, display)
        elif dry_run:
            progress.try_training(settings, display)
        elif find_lambdas:
            progress.show_lambdas(settings, display)
        elif profile is not None:
            progress.show_profile(settings, profile, display)
        else:
            progress.train_run(settings, place, display, force=force)


def _check_resume(ctx: typer.Context, run: Path | None, resume: bool) -> None:
    if not resume:
        raise UsageError(f"{run}: a run is named to go on with it; add --resume, or leave it out")
    given = [
        param.opts[0]
        for param in ctx.command.params
        if (source := ctx.get_parameter_source(param.name or "")) is not None
        and source.name == "COMMANDLINE"
        and param.name not in ("run", "resume", "as_json", "quiet")
    ]
    if given:
        raise UsageError(
            f"{', '.join(given)}: settled by the run that --resume goes on with; leave it out"
        )


def _place(name: str | None, run_dir: Path | None) -> Path | None:
    if name is not None and run_dir is not None:
        raise UsageError(f"--name {name} and --run-dir {run_dir}: both name the folder; give one")
    if name is not None and (Path(name).name != name or name in ("", ".", "..")):
        raise UsageError(
            f"--name {name!r}: a name is one folder under {opt.RUNS_DIR}/; use --run-dir for a path"
        )
    return opt.RUNS_DIR / name if name is not None else run_dir


def _show_settings(display: Display, resolved: Resolved) -> None:
    values = flatten(resolved.settings.model_dump(mode="json"))
    origins = resolved.origins
    if display.as_json:
        display.json(
            {key: {"value": value, "origin": origins[key]} for key, value in values.items()}
        )
        return
    shown = {key: _written(value) for key, value in values.items()}
    widest = [max(map(len, column)) for column in (shown, shown.values())]
    display.lines(
        *(f"{key:<{widest[0]}}  {text:<{widest[1]}}  {origins[key]}" for key, text in shown.items())
    )


def _written(value: object) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
