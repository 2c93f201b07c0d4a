"""The folder of a study's report: every table and picture of it."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from slrctl.engine.files import replacing
from slrctl.engine.run_folder import write_json, write_text
from slrctl.reports.evaluation_tables import spreadsheet_text
from slrctl.reports.study_figures import (
    draw_forest,
    draw_learning_curves,
    draw_surface,
)
from slrctl.reports.study_page import page
from slrctl.reports.study_text import latex, markdown
from slrctl.studies.ablation.report import StudyReport
from slrctl.studies.ablation.study import grid_axes

RESULTS = "results.csv"
REPORT = "report.md"
PAGE = "report.html"
LATEX = "table.tex"
SUMMARY = "summary.json"


def write_report(
    folder: Path,
    report: StudyReport,
    table: pd.DataFrame,
    facts: Sequence[str],
    grids: Sequence[str] = (),
) -> None:
    """Write the report; each file appears whole or not at all.

    Args:
        folder: made if it is not there.
        report: what the trials say.
        table: a row a trial.
        facts: lines that say what was run on what.
        grids: the `--grid` options of the study; two of them make a surface.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / RESULTS) as unfinished:
        texts = {name: table[name].map(spreadsheet_text) for name in ("fold", "failure")}
        table.assign(**texts).to_csv(unfinished, index=False)
    write_text(folder / REPORT, markdown(report, facts))
    write_text(folder / LATEX, latex(report))
    pictures = [draw_forest(report, folder), draw_learning_curves(report, table, folder)]
    if len(grids) == 2:
        pictures.append(draw_surface(report, grid_axes(grids), folder))
    vectors = [path for paths in pictures for path in paths if path.suffix == ".svg"]
    write_text(folder / PAGE, page(report, facts, vectors))
    write_json(folder / SUMMARY, json.loads(json.dumps(report.to_json(), allow_nan=False)))
