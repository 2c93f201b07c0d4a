"""`slrctl train --find-lambdas`: a short training that says how large lambdas must be."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from slrctl.cli.console import print_json, print_lines, print_table

if TYPE_CHECKING:
    from slrctl.core.data.splits import Splits
    from slrctl.settings import Settings
    from slrctl.training.find_lambdas import LambdaReport, TermScale

STEPS = 200


def show_lambdas(
    settings: "Settings", splits: "Splits", console: Console, *, as_json: bool
) -> None:
    from slrctl.training.find_lambdas import LambdaReport, find_lambdas

    result = None
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as progress:
        steps = progress.add_task("steps", total=STEPS)
        for report in find_lambdas(settings, splits, steps=STEPS):
            if isinstance(report, LambdaReport):
                result = report
            else:
                progress.advance(steps)
    if result is None:
        return
    _show(console, result)
    if as_json:
        print_json(_to_json(result))


def _show(console: Console, report: "LambdaReport") -> None:
    from slrctl.training.find_lambdas import SHARES

    headings = ["term", *(f"{100 * share:g} % of CE's" for share in SHARES), "cosine with CE"]
    rows = [
        [
            name,
            *(_number(scale.lambdas[share]) for share in SHARES),
            _number(scale.cosine),
        ]
        for name, scale in _terms(report)
    ]
    print_table(console, "lambda at which a term's gradient is", headings, rows)
    print_lines(
        console,
        [
            f"medians of {report.measured} measurements in the later half of {report.steps} steps; "
            "nothing was written",
            "set them with --lambda-consistency and --lambda-alignment",
        ],
    )


def _terms(report: "LambdaReport") -> "list[tuple[str, TermScale]]":
    return [("consistency", report.consistency), ("alignment", report.alignment)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _to_json(report: "LambdaReport") -> dict[str, object]:
    return {
        "steps": report.steps,
        "measured": report.measured,
        **{
            name: {
                "gradient_ratio": scale.ratio,
                "cosine": scale.cosine,
                "lambdas": {f"{share:g}": value for share, value in scale.lambdas.items()},
            }
            for name, scale in _terms(report)
        },
    }
