"""What a study came to: its report on disk and on the screen, and the seeds that would decide."""

from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.ablate.facts import facts
from slrctl.cli.ablate.request import StudyRequest
from slrctl.cli.ablate.study_view import show_report
from slrctl.cli.console import print_json, print_lines
from slrctl.errors import SlrctlError

if TYPE_CHECKING:
    import pandas as pd

    from slrctl.studies.ablation.report import StudyReport
    from slrctl.studies.ablation.trials import Trial, TrialResult


def conclude(
    request: StudyRequest,
    results: "dict[str, TrialResult]",
    failures: dict[str, str],
    console: Console,
    *,
    as_json: bool,
) -> None:
    from slrctl.reports.study_page import write_report
    from slrctl.studies.ablation.report import report_study, results_table

    table = results_table(request.trials, results, failures)
    report = report_study(request.study, table)
    try:
        write_report(request.place.report, report, table, facts(request), request.grids)
    except OSError as error:
        raise SlrctlError(
            f"{request.place.report}: the report cannot be written ({error.strerror or error}); "
            "make room, and run the study again: no trial is repeated"
        ) from None
    show_report(console, report)
    print_lines(
        console,
        [
            *(
                f"failed: {_title(trial)}: {failures[trial.key]}"
                for trial in request.trials
                if trial.key in failures
            ),
            f"written to {request.place.report}; its trials are runs under {request.place.trials}",
        ],
    )
    plans = _plans(report, table, request.plan, console)
    if as_json:
        print_json({**report.to_json(), **({} if request.plan is None else {"plan": plans})})
    if not results:
        raise SlrctlError(
            f"none of the {len(request.trials)} trials finished; the first: "
            f"{next(iter(failures.values()), 'nothing was run')}"
        )


def _plans(
    report: "StudyReport", table: "pd.DataFrame", difference: float | None, console: Console
) -> dict[str, dict[str, float | None]]:
    """Seeds that would show the difference asked about, from the spread of the finished ones."""
    from slrctl.studies.ablation.report import plan_study

    if difference is None:
        return {}
    plans = plan_study(report.study, table, difference)
    for variant in report.variants[1:]:
        if variant.name not in plans:
            print_lines(
                console,
                [
                    f"to see {100 * difference:g} points in {variant.name}: no plan, for two "
                    "finished seeds or more must differ from one another to show the spread"
                ],
            )
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
