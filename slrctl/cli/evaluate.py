"""`slrctl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.reports.tables import overall_rows, percent, worst_classes

if TYPE_CHECKING:
    from slrctl.reports.evaluation import EvaluationReport

EXAMPLES = """Examples:

  slrctl evaluate

  slrctl evaluate runs/first --data other.csv --output tables
"""


@opt.command(EXAMPLES)
def evaluate(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="A run, or one of its checkpoints; the newest run if absent."
        ),
    ] = None,
    config: opt.ConfigPath = None,
    overrides: opt.Overrides = None,
    device: opt.Device = None,
    data: opt.DataPath = None,
    split: Annotated[
        str | None,
        opt.option("Which split, or all; test if there is one, else val, by default.", opt.DATA),
    ] = None,
    skip_bad_clips: opt.SkipBadClips = None,
    output: Annotated[
        Path | None,
        opt.option(
            "Folder for tables and figures; one in the run's folder if absent.",
            opt.OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    force: Annotated[
        bool, opt.option("Write over another evaluation that is there.", opt.OUTPUT, "--force")
    ] = False,
    as_json: opt.Json = False,
) -> None:
    """Evaluate a trained model on clips, with intervals."""
    layers = opt.layers_beside_run(ctx)
    from slrctl.reports.evaluation import evaluate_run

    report = evaluate_run(run, opt.RUNS_DIR, layers, data, split, output, force=force)
    display = Display(as_json=as_json)
    display.lines(*report.notes)
    _show(display, report)
    display.json(report.to_json())


def _show(display: Display, report: "EvaluationReport") -> None:
    about, evaluation = report.about, report.evaluation
    display.table(
        f"{about['run_dir']} on {about['data']}: {evaluation.clips} clips, "
        f"{evaluation.classes} classes",
        ["", "value", f"95 % interval, by {evaluation.ci_unit}"],
        [
            *overall_rows(evaluation),
            ("chance", percent(evaluation.chance), ""),
            ("majority class", percent(evaluation.majority_share), ""),
        ],
    )
    if evaluation.note:
        display.lines(f"note: {evaluation.note}")
    worst = worst_classes(evaluation)
    if worst:
        display.table(
            "worst classes",
            ["gloss", "clips", "accuracy", "precision", "F1"],
            [
                (row.gloss, str(row.clips), *map(_share, (row.accuracy, row.precision, row.f1)))
                for row in worst
            ],
        )
        display.table(
            "most confused",
            ["gloss", "taken for", "clips", "share of the gloss"],
            [
                (pair.truth, pair.predicted, str(pair.clips), percent(pair.share))
                for pair in evaluation.confused[:10]
            ],
            num_texts=2,
        )
    display.lines(f"tables and figures in {report.folder}")


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
