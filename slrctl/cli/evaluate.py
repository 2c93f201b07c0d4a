"""`slrctl evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.options import (
    DATA,
    OUTPUT,
    RUNS_DIR,
    ConfigPath,
    DataPath,
    Device,
    Json,
    Overrides,
    SkipBadClips,
    command,
    option,
    refuse_settled,
    setting_layers,
    switch,
)
from slrctl.reports.tables import overall_rows, percent, worst_classes

if TYPE_CHECKING:
    from slrctl.reports.evaluation import EvaluationReport

EXAMPLES = """Examples:

  slrctl evaluate

  slrctl evaluate runs/first --data other.csv --output tables
"""


@command(EXAMPLES)
def evaluate(
    ctx: typer.Context,
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN", help="A run, or one of its checkpoints; the newest run if absent."
        ),
    ] = None,
    config: ConfigPath = None,
    overrides: Overrides = None,
    device: Device = None,
    data: DataPath = None,
    split: Annotated[
        str | None,
        option("Which split, or all; test if there is one, else val, by default.", DATA),
    ] = None,
    skip_bad_clips: SkipBadClips = None,
    output: Annotated[
        Path | None,
        option(
            "Folder for tables and figures; one in the run's folder if absent.",
            OUTPUT,
            metavar="DIR",
        ),
    ] = None,
    force: Annotated[
        bool,
        switch("--force", "Write over another evaluation that is there.", OUTPUT),
    ] = False,
    as_json: Json = False,
) -> None:
    """Evaluate a trained model on clips, with intervals."""
    with report_errors():
        layers = setting_layers(ctx)
        refuse_settled(layers, "evaluate")
        from slrctl.reports.evaluation import evaluate_run

        report = evaluate_run(run, RUNS_DIR, layers, data, split, output, force=force)
        console = console_for(as_json=as_json)
        print_lines(console, report.notes)
        _show(console, report)
        if as_json:
            print_json(report.to_json())


def _show(console: Console, report: "EvaluationReport") -> None:
    about, evaluation = report.about, report.evaluation
    print_table(
        console,
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
        print_lines(console, [f"note: {evaluation.note}"])
    worst = worst_classes(evaluation)
    if worst:
        print_table(
            console,
            "worst classes",
            ["gloss", "clips", "accuracy", "precision", "F1"],
            [
                (row.gloss, str(row.clips), *map(_share, (row.accuracy, row.precision, row.f1)))
                for row in worst
            ],
        )
        print_table(
            console,
            "most confused",
            ["gloss", "taken for", "clips", "share of the gloss"],
            [
                (pair.truth, pair.predicted, str(pair.clips), percent(pair.share))
                for pair in evaluation.confused[:10]
            ],
            num_texts=2,
        )
    print_lines(console, [f"tables and figures in {report.folder}"])


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
