"""`slrctl ablate`."""

from pathlib import Path

from slrctl.cli.ablate.ending import conclude
from slrctl.cli.ablate.options import (
    DryRunOption,
    EpochsOption,
    FoldsOption,
    GridOption,
    JobsOption,
    OutputOption,
    PlanOption,
    QuickOption,
    QuietOption,
    RayOption,
    SeedsOption,
    StudyOption,
    TestOption,
    ThreadsOption,
    TrainOption,
    TrainSignersOption,
    ValOption,
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
from slrctl.cli.console import console_for, print_json, report_errors
from slrctl.cli.interruption import stopping_on_signals
from slrctl.cli.options import ConfigOption, JsonOption, SetOption, command, setting_layers
from slrctl.errors import UsageError
from slrctl.layers import Layer
from slrctl.training.stopping import StopRequest

# A study's own, shorter schedule, below everything the user says: the 72 trials of the default one
# end within an hour on two cores.
SCHEDULE = {"train": {"epochs": 8}}
QUICK = {"train": {"epochs": 3}}
SEEDS, QUICK_SEEDS = 9, 2


@command()
def ablate(
    study: StudyOption = "cmcl",
    variants: VariantOption = None,
    grids: GridOption = None,
    seeds: SeedsOption = None,
    train_path: TrainOption = None,
    val_path: ValOption = None,
    test_path: TestOption = None,
    folds: FoldsOption = None,
    train_signers: TrainSignersOption = None,
    epochs: EpochsOption = None,
    quick: QuickOption = False,
    plan: PlanOption = None,
    jobs: JobsOption = None,
    threads: ThreadsOption = 1,
    ray: RayOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    output: OutputOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train variants against a baseline over paired seeds, and say what was shown."""  # fmt: skip
    with report_errors(), stopping_on_signals(StopRequest()):
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


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()
