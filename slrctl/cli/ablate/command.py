"""`slrctl ablate`."""

from pathlib import Path

import typer

from slrctl.cli.ablate.ending import conclude
from slrctl.cli.ablate.options import (
    DryRunOption,
    FoldsOption,
    GridOption,
    JobsOption,
    OutputOption,
    PlanOption,
    QuickOption,
    RayOption,
    SeedsOption,
    StudyOption,
    ThreadsOption,
    VariantOption,
)
from slrctl.cli.ablate.overview import announce
from slrctl.cli.ablate.request import (
    StudyRequest,
    choose_workers,
    given_for_all,
    plan_trials_of,
    study_place,
)
from slrctl.cli.ablate.running import interruptible, run_remaining
from slrctl.cli.console import console_for, print_json, report_errors, stopping_on_signals
from slrctl.cli.options import (
    ConfigPath,
    Epochs,
    Json,
    Overrides,
    Quiet,
    TestPath,
    TrainPath,
    TrainSigners,
    ValPath,
    command,
    config_layers,
    flag_layers,
)
from slrctl.errors import UsageError
from slrctl.layers import Layer

# A study's own, shorter schedule, below everything the user says: the 72 trials of the default one
# end within an hour on two cores.
SCHEDULE = {"train": {"epochs": 8}}
QUICK = {"train": {"epochs": 3}}
SEEDS, QUICK_SEEDS = 9, 2


@command()
def ablate(
    ctx: typer.Context,
    study: StudyOption = "cmcl",
    variants: VariantOption = None,
    grids: GridOption = None,
    seeds: SeedsOption = None,
    train_path: TrainPath = None,
    val_path: ValPath = None,
    test_path: TestPath = None,
    folds: FoldsOption = None,
    train_signers: TrainSigners = None,
    epochs: Epochs = None,
    quick: QuickOption = False,
    plan: PlanOption = None,
    jobs: JobsOption = None,
    threads: ThreadsOption = 1,
    ray: RayOption = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    output: OutputOption = None,
    dry_run: DryRunOption = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train variants against a baseline over paired seeds, and say what was shown."""  # fmt: skip
    with report_errors(), stopping_on_signals():
        console = console_for(as_json=as_json, quiet=quiet)
        from slrctl.studies.ablation.study import (
            built_in,
            read_study,
            with_grid,
            with_variants,
        )
        from slrctl.studies.ablation.trials import standing

        chosen = read_study(Path(study)) if study.endswith(".toml") else built_in(study)
        if variants and grids:
            raise UsageError("--variant and --grid: both name the variants; give one of them")
        if plan is not None and not 0 < plan < 1:
            raise UsageError(
                f"--plan {plan:g}: expected a difference in accuracy above 0 and below 1, such as "
                "0.01 for a point"
            )
        chosen = with_grid(with_variants(chosen, variants or []), grids or [])
        schedule = Layer(f"schedule of study {chosen.name}", QUICK if quick else SCHEDULE)
        above = [_absolute(layer) for layer in flag_layers(ctx)]
        below = [schedule, *config_layers(ctx)]
        trials = plan_trials_of(
            chosen, seeds or (QUICK_SEEDS if quick else SEEDS), folds, below, above
        )
        given = given_for_all([*below[1:], *above])
        kind = ("-by-signer" if folds else "") + ("-quick" if quick else "")
        request = StudyRequest(
            chosen,
            trials,
            study_place(chosen, trials[0], given, output, kind=kind),
            choose_workers(jobs, threads, ray),
            tuple(grids or ()),
            given,
            plan,
        )
        results, remaining = standing(trials, request.place.trials)
        announce(request, remaining, console)
        if dry_run:
            if as_json:
                print_json({"trials": len(request.trials), "remaining": len(remaining)})
            return
        failures = run_remaining(request, remaining, results, console)
        with interruptible(request, results):
            conclude(request, results, failures, console, as_json=as_json)


def _absolute(layer: Layer) -> Layer:
    """Make the paths of clips absolute, for the processes of trials."""
    data = {
        name: Path(value).absolute() if name in ("train", "val", "test") else value
        for name, value in layer.values.get("data", {}).items()
    }
    return Layer(layer.origin, {**layer.values, "data": data}) if data else layer
