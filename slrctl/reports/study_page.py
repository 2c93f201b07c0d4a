"""The folder of a study's report: every table and picture of it."""

import base64
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import pandas as pd

from slrctl.files import replacing, write_json, write_text
from slrctl.reports.study_figures import draw_forest, draw_learning_curves, draw_surface
from slrctl.reports.study_text import (
    LEARNING_HEADINGS,
    failure_lines,
    headings,
    latex,
    learning_rows,
    markdown,
    method,
    primary_sentence,
    study_rows,
)
from slrctl.reports.tables import spreadsheet_text
from slrctl.studies.ablation.report import StudyReport
from slrctl.studies.ablation.study import grid_axes

_ALT = {
    "forest": "Forest plot: each variant's difference to the baseline with its interval",
    "learning_curves": "Validation accuracy over the epochs, a line a variant",
    "surface": "Difference to the baseline over both settings",
}

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th { vertical-align: bottom; }
th:first-child, td:first-child, td:last-child, th:last-child { text-align: left; }
.wide { overflow-x: auto; }
.quiet { color: var(--quiet); font-size: .9rem; }
img { max-width: 100%; background: white; border-radius: 6px; padding: .5rem; }
li.better::marker { color: #009e73; } li.worse::marker { color: #d55e00; }
@media print { body { margin: 0; max-width: none; } img { break-inside: avoid; } }
"""


def page(report: StudyReport, facts: Sequence[str], pictures: Sequence[Path]) -> str:
    """The whole page; names of variants and files are data and shown as text.

    Args:
        report: the study.
        facts: lines that say what was run on what.
        pictures: SVG files, put into the page.
    """
    failed = failure_lines(report)
    title = f"Study: {report.study.name}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_list(facts),
        f"<p>{escape(primary_sentence(report))}</p>",
        *_table(headings(report), study_rows(report)),
        f'<p class="quiet">{escape(method(report))}</p>',
        "<h2>Verdicts</h2>",
        *_verdicts(report),
        *(["<h2>Failed trials</h2>", *_list(failed)] if failed else []),
        *(_picture(path) for path in pictures),
        "<h2>How fast they learn, and at what cost</h2>",
        *_table(LEARNING_HEADINGS, learning_rows(report)),
        '<p class="quiet">Epochs until validation accuracy reaches 90 % of the best of '
        f"{escape(report.study.baseline)} under the same seed; p unadjusted. Time ratios are of "
        "training steps on a machine that other trials used as well.</p>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _list(lines: Sequence[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{escape(line)}</li>" for line in lines)
    yield "</ul>"


def _verdicts(report: StudyReport) -> Iterator[str]:
    yield "<ul>"
    for variant in report.variants:
        verdict = variant.comparison.verdict.split()[0] if variant.comparison else "none"
        yield (
            f'<li class="{escape(verdict)}"><strong>{escape(variant.name)}</strong>: '
            f"{escape(variant.sentence)}</li>"
        )
    yield "</ul>"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield '<div class="wide"><table><thead><tr>'
    yield "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    yield "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"


def _picture(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    alt = _ALT.get(path.stem, path.stem)
    return f'<p><img alt="{escape(alt)}" src="data:image/svg+xml;base64,{content}"></p>'


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
