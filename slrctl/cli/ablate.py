"""`slrctl ablate`."""

from pathlib import Path
from typing import Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display, stopping_on_signals
from slrctl.errors import UsageError
from slrctl.layers import Layer, resolve
from slrctl.studies.ablation.study import Study, built_in, read_study, with_grid, with_variants

STUDY, MACHINES = "Study", "Machines"
# A study's own, shorter schedule, below everything the user says: the 72 trials of the default one
# end within an hour on two cores.
EPOCHS, QUICK_EPOCHS = 8, 3
SEEDS, QUICK_SEEDS = 9, 2
EXAMPLES = """Examples:

  slrctl ablate --train clips.parquet --dry-run

  slrctl ablate --variant soft:cmcl.preset=balanced,cmcl.temperature=2 --seeds 6

  slrctl ablate --grid cmcl.lambda_consistency=0.05,0.1 --grid cmcl.lambda_alignment=0,0.1
"""


@opt.command(EXAMPLES)
def ablate(
    ctx: typer.Context,
    config: opt.ConfigPath = None,
    overrides: opt.Overrides = None,
    study: Annotated[
        str,
        opt.option("cmcl, cmcl-forms, encoder, preparation, or a TOML file of variants.", STUDY),
    ] = "cmcl",
    variants: Annotated[
        list[str] | None,
        opt.option(
            "A variant of your own, instead of the study's; may be repeated.",
            STUDY,
            "--variant",
            metavar="NAME:KEY=VALUE,...",
        ),
    ] = None,
    grids: Annotated[
        list[str] | None,
        opt.option(
            "All combinations of values; may be repeated.", STUDY, "--grid", metavar="KEY=VALUE,..."
        ),
    ] = None,
    seeds: Annotated[
        int | None, opt.option(f"Paired seeds; {SEEDS} if absent.", STUDY, least=1)
    ] = None,
    folds: Annotated[
        str | None, opt.option("Leave one signer out, each in turn.", STUDY, metavar="signer")
    ] = None,
    quick: Annotated[
        bool, opt.option("Two seeds of three epochs: a look, no verdict.", STUDY, "--quick")
    ] = False,
    plan: Annotated[
        float | None,
        opt.option(
            "Say how many seeds would show this difference in accuracy, such as 0.01.",
            STUDY,
            metavar="DIFFERENCE",
        ),
    ] = None,
    train_path: opt.TrainPath = None,
    val_path: opt.ValPath = None,
    test_path: opt.TestPath = None,
    train_signers: opt.TrainSigners = None,
    epochs: opt.Epochs = None,
    jobs: Annotated[
        int | None, opt.option("Trials at a time; else one a core.", MACHINES, least=1)
    ] = None,
    threads: Annotated[
        int, opt.option("Threads of a trial, whatever else runs.", MACHINES, least=1)
    ] = 1,
    ray: Annotated[
        str | None,
        opt.option(
            "Run trials on this Ray cluster; without an address on one started here.",
            MACHINES,
            metavar="HOST:PORT",
        ),
    ] = None,
    output: Annotated[
        Path | None, opt.option("Folder of the report; else under studies/.", opt.OUTPUT)
    ] = None,
    dry_run: Annotated[
        bool, opt.option("Say what would be run, and how long, and stop.", opt.OUTPUT, "--dry-run")
    ] = False,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> None:
    """Train variants against a baseline over paired seeds, and say what was shown."""
    with stopping_on_signals():
        if folds not in (None, "signer"):
            raise UsageError(f"--folds {folds!r}: expected signer")
        if plan is not None and not 0 < plan < 1:
            raise UsageError(
                f"--plan {plan:g}: expected a difference in accuracy above 0 and below 1, such as "
                "0.01 for a point"
            )
        chosen = _study(study, variants or [], grids or [])
        schedule = {"train": {"epochs": QUICK_EPOCHS if quick else EPOCHS}}
        below = [Layer(f"schedule of study {chosen.name}", schedule), *opt.config_layers(ctx)]
        above = [_absolute(layer) for layer in opt.flag_layers(ctx)]
        resolve([*below, *above])  # a wrong setting needs no torch
        from slrctl.cli.ablate_view import run_study

        run_study(
            chosen,
            below,
            above,
            Display(as_json=as_json, quiet=quiet),
            seeds=seeds or (QUICK_SEEDS if quick else SEEDS),
            by_signer=folds is not None,
            output=output,
            name_ending=("-by-signer" if folds else "") + ("-quick" if quick else ""),
            grids=grids or [],
            difference=plan,
            jobs=jobs,
            threads=threads,
            ray=ray,
            dry_run=dry_run,
        )


def _study(name: str, variants: list[str], grids: list[str]) -> Study:
    if variants and grids:
        raise UsageError("--variant and --grid: both name the variants; give one of them")
    study = read_study(Path(name)) if name.endswith(".toml") else built_in(name)
    return with_grid(with_variants(study, variants), grids)


def _absolute(layer: Layer) -> Layer:
    """Make the paths of clips absolute, for the processes of trials."""
    data = {
        name: Path(value).absolute() if name in ("train", "val", "test") else value
        for name, value in layer.values.get("data", {}).items()
    }
    return Layer(layer.origin, {**layer.values, "data": data}) if data else layer
