"""`slrctl train`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli.console import (
    console_for,
    print_json,
    print_lines,
    report_errors,
    stopping_on_signals,
)
from slrctl.cli.options import (
    OUTPUT,
    RUNS_DIR,
    Adaptive,
    BatchSize,
    ConfigPath,
    CrossAttention,
    Device,
    Epochs,
    Json,
    LambdaAlignment,
    LambdaConsistency,
    LearningRate,
    Overrides,
    Preset,
    Quiet,
    Seed,
    SkipBadClips,
    Temperature,
    TestPath,
    TrainPath,
    ValPath,
    command,
    option,
    setting_layers,
    switch,
    with_absolute_paths,
)
from slrctl.errors import UsageError, launched_rank, one_voice
from slrctl.layers import Resolved, flatten, resolve

INSTEAD = "Instead of a training"
EXAMPLES = """Examples:

  slrctl train --cmcl balanced

  slrctl train --train train.csv --val val.csv --cmcl adaptive --epochs 100 --name first

  slrctl train --resume runs/first
"""


@command(EXAMPLES)
def train(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="With --resume: the run, the newest interrupted one if absent."
        ),
    ] = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    train_path: TrainPath = None,
    val_path: ValPath = None,
    test_path: TestPath = None,
    skip_bad_clips: SkipBadClips = None,
    cross_attention: CrossAttention = None,
    cmcl: Preset = None,
    lambda_consistency: LambdaConsistency = None,
    lambda_alignment: LambdaAlignment = None,
    cmcl_temperature: Temperature = None,
    adaptive_cmcl: Adaptive = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    device: Device = None,
    name: Annotated[
        str | None,
        option("Name of the run's folder under runs/.", OUTPUT),
    ] = None,
    run_dir: Annotated[Path | None, option("Folder the run is saved in.", OUTPUT)] = None,
    force: Annotated[
        bool,
        switch("--force", "Overwrite the run that is in the folder.", OUTPUT),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    resume: Annotated[
        bool,
        switch("--resume", "Go on with an interrupted run; it decides every setting.", INSTEAD),
    ] = False,
    show_only: Annotated[
        bool,
        switch("--show-settings", "Print every setting and its origin.", INSTEAD),
    ] = False,
    dry_run: Annotated[
        bool,
        switch("--dry-run", "Read the data and take one step.", INSTEAD),
    ] = False,
    find_lambdas: Annotated[
        bool,
        switch("--find-lambdas", "Train 200 steps and say which lambdas matter.", INSTEAD),
    ] = False,
    profile: Annotated[
        Path | None,
        option("Profile some steps and write their timeline to a file.", INSTEAD, metavar="TRACE"),
    ] = None,
) -> None:
    """Train a model, keep its best checkpoint, and evaluate it."""
    is_first = launched_rank() == 0
    with report_errors(), one_voice(), stopping_on_signals(is_heard=is_first):
        if resume or run is not None:
            _check_resume(ctx, run, resume)
        resolved = resolve(setting_layers(ctx))
        if show_only:
            if is_first:
                _show_settings(resolved, as_json=as_json)
            return
        place = _place(name, run_dir)
        settings = with_absolute_paths(resolved.settings)
        from slrctl.cli import progress

        is_quiet = quiet and not (dry_run or find_lambdas or profile)
        console = console_for(as_json=as_json, quiet=is_quiet or not is_first)
        output = progress.Output(console, as_json and is_first)
        if resume:
            progress.resume_run(run, output)
        elif dry_run:
            progress.try_training(settings, output)
        elif find_lambdas:
            progress.show_lambdas(settings, output)
        elif profile is not None:
            progress.show_profile(settings, profile, output)
        else:
            progress.train_run(settings, place, output, force=force)


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
            f"--name {name!r}: a name is one folder under {RUNS_DIR}/; use --run-dir for a path"
        )
    return RUNS_DIR / name if name is not None else run_dir


def _show_settings(resolved: Resolved, *, as_json: bool) -> None:
    values = flatten(resolved.settings.model_dump(mode="json"))
    if as_json:
        print_json(
            {
                key: {"value": value, "origin": resolved.origins[key]}
                for key, value in values.items()
            }
        )
        return
    rows = [(key, _written(value), resolved.origins[key]) for key, value in values.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    print_lines(
        console_for(),
        [f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows],
    )


def _written(value: object) -> str:
    if value is None:
        return "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
