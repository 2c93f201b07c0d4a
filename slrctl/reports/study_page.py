"""Report of a study: its tables and texts as Markdown, LaTeX and a page, beside its pictures."""

import base64
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from slrctl.files import write_json, write_text
from slrctl.reports.study_figures import draw_forest, draw_learning_curves, draw_surface
from slrctl.reports.tables import write_csv
from slrctl.studies.ablation.report import StudyReport, VariantReport
from slrctl.studies.ablation.study import grid_axes
from slrctl.studies.statistics import Comparison, Interval


def _with_interval(
    value: float, interval: Interval | None, *, scale: int = 1, digits: int = 2, sign: str = ""
) -> str:
    text = f"{scale * value:{sign}.{digits}f}"
    if interval is None:
        return text
    low, high = interval
    if low == high:
        return f"{text} (in every seed)"
    return f"{text} ({scale * low:{sign}.{digits}f} to {scale * high:{sign}.{digits}f})"


def headings(report: StudyReport) -> tuple[str, ...]:
    """Head the columns of the table of a study."""
    accuracy = f"{report.split} accuracy (95 % interval)".strip()
    compared = ("difference (95 % interval)", "p", "Holm p", "P(better)")
    return ("variant", "seeds", accuracy, "sd", *compared, "verdict")


def study_rows(report: StudyReport) -> list[list[str]]:
    """Fill the table of a study, ready for a paper, a row a variant; accuracies in percent."""
    return [_row(report, variant) for variant in report.variants]


def _row(report: StudyReport, variant: VariantReport) -> list[str]:
    summary, comparison = variant.summary, variant.comparison
    name = f"{variant.name} *" if variant.name == report.study.primary else variant.name
    if summary is None:
        ended = f"all {variant.failed} failed" if variant.failed else "not run"
        return [name, "0", *[""] * 6, ended]
    mean = _with_interval(summary.mean, summary.ci95, scale=100)
    cells = [name, str(summary.n), mean, "" if summary.sd is None else f"{100 * summary.sd:.2f}"]
    if comparison is None:
        is_baseline = variant.name == report.study.baseline
        return [*cells, *[""] * 4, "baseline" if is_baseline else "no pair"]
    bootstrap, difference = comparison.difference_bca95, comparison.difference
    bca = f"; BCa {100 * bootstrap[0]:+.2f} to {100 * bootstrap[1]:+.2f}" if bootstrap else ""
    return [
        *cells,
        _with_interval(difference, comparison.difference_ci95, scale=100, sign="+") + bca,
        f"{comparison.p:.3g}",
        "" if comparison.p_holm is None else f"{comparison.p_holm:.3g}",
        f"{comparison.probability_of_improvement:.2f}",
        _verdict(variant.failed, comparison),
    ]


def _verdict(num_failed: int, comparison: Comparison) -> str:
    notes = []
    if comparison.verdict == "too few seeds":
        notes.append(f"{comparison.seeds_needed} needed")
    if num_failed:
        notes.append(f"{num_failed} failed")
    return comparison.verdict + (f" ({', '.join(notes)})" if notes else "")


LEARNING_HEADINGS = ("variant", "epochs to 90 %", "difference (95 % interval)", "p", "time ratio")


def learning_rows(report: StudyReport) -> list[list[str]]:
    """List epochs to 90 % of the baseline's best, and the cost in time."""
    rows = []
    for variant in report.variants:
        found = variant.learning
        if found is None:
            continue
        never = f" (never in {found.never_reached})" if found.never_reached else ""
        row = [variant.name, f"{found.epochs:.1f}{never}"]
        if variant.name == report.study.baseline:
            rows.append([*row, "", "", ""])
            continue
        ratio = _with_interval(found.time_ratio, found.time_ratio_ci95)
        difference = _with_interval(found.difference, found.difference_ci95, digits=1, sign="+")
        rows.append([*row, difference, f"{found.p:.3g}", ratio])
    return rows


def primary_sentence(report: StudyReport) -> str:
    """Say which contrast was declared beforehand."""
    if report.study.primary is None:
        return "No contrast was declared primary; all are Holm-adjusted."
    return (
        f"Primary contrast, declared beforehand and tested unadjusted: {report.study.primary} "
        f"against {report.study.baseline}. The other variants are Holm-adjusted among themselves."
    )


def method(report: StudyReport) -> str:
    """Explain the numbers of the table."""
    text = f"Paired by seed{' and averaged over folds' if report.folds else ''}. "
    text += (
        "Means and differences with Student-t 95 % intervals over seeds; p from the exact "
        "two-sided sign-flip test; P(better) is the share of seeds in which the variant beats the "
        "baseline, ties counting half. Intervals over seeds say how much training varies on these "
        "clips, not how a new data set would come out; a few seeds that agree are no certainty."
    )
    if any(v.comparison and v.comparison.difference_bca95 for v in report.variants):
        text += " BCa: bias-corrected and accelerated bootstrap over seeds."
    if report.split == "validation":
        text += (
            " There are no test clips: accuracies are of the validation clips, on which each run's "
            "epoch was chosen, and are too high by that."
        )
    return text


def _failure_lines(report: StudyReport) -> list[str]:
    return [
        f"{variant.name}: {variant.failed} failed; {text[:300]}{' ...' if len(text) > 300 else ''}"
        for variant in report.variants
        for text in variant.failures or [""] * bool(variant.failed)
    ]


def _blocks(report: StudyReport, facts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield each block of the report with its kind; a point is a name, or none, and a text."""
    yield "points", [("", fact) for fact in facts]
    yield "text", primary_sentence(report)
    yield "table", [headings(report), *study_rows(report)]
    yield "note", method(report)
    yield "heading", "Verdicts"
    yield "points", [(variant.name, variant.sentence) for variant in report.variants]
    if failed := _failure_lines(report):
        yield "heading", "Failed trials"
        yield "points", [("", line) for line in failed]
    yield "pictures", None
    yield "heading", "How fast they learn, and at what cost"
    yield "table", [LEARNING_HEADINGS, *learning_rows(report)]
    yield (
        "note",
        f"Epochs until validation accuracy reaches 90 % of the best of {report.study.baseline} "
        "under the same seed; p unadjusted. Time ratios are of training steps on a machine that "
        "other trials used as well.",
    )


def markdown(report: StudyReport, facts: Sequence[str]) -> str:
    """Write the whole report in Markdown; facts are lines on the command, data and settings."""
    lines = [f"# Study: {report.study.name}", ""]
    for kind, content in _blocks(report, facts):
        if kind == "points":
            for name, text in content:
                # Markdown shows what lies between angle brackets as HTML.
                text = text.replace("&", "&amp;").replace("<", "&lt;")
                lines.append(f"- {f'**{name}**: ' if name else ''}{text}")
        elif kind == "table":
            columns, *rows = content
            for cells in (columns, ["---"] * len(columns), *rows):
                # A bar in a cell would end it early.
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        elif kind == "pictures":
            continue
        else:
            lines.append(f"## {content}" if kind == "heading" else content)
        lines.append("")
    return "\n".join(lines)


_NAMED = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater"}
_LATEX = str.maketrans(
    {letter: f"\\text{name}{{}}" for letter, name in _NAMED.items()}
    | {letter: f"\\{letter}" for letter in "&%$#_{}"}
)


def latex(report: StudyReport) -> str:
    """Write a booktabs table."""
    columns = headings(report)
    rows = [
        " & ".join(cell.translate(_LATEX) for cell in row) + " \\\\"
        for row in (columns, *study_rows(report))
    ]
    lines = [
        f"% {report.study.name}: accuracy and differences in percent; needs the package booktabs",
        f"% * {primary_sentence(report)}",
        f"% {method(report)}",
        *(f"% failed trials: {line}" for line in _failure_lines(report)),
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 2)}l}}",
        *("\\toprule", rows[0], "\\midrule", *rows[1:], "\\bottomrule", "\\end{tabular}", ""),
    ]
    return "\n".join(lines)


_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line); text-align: right; }
th { vertical-align: bottom; }
th:first-child, td:first-child, td:last-child, th:last-child { text-align: left; }
td:not(:first-child, :last-child) { white-space: nowrap; }
.wide { overflow-x: auto; }
.quiet { color: var(--quiet); font-size: .9rem; }
img { max-width: 100%; background: white; border-radius: 6px; padding: .5rem; }
li.better::marker { color: #009e73; } li.worse::marker { color: #d55e00; }
@media print { body { margin: 0; max-width: none; } img { break-inside: avoid; } }
"""
_ALT = {
    "forest": "Forest plot: each variant's difference to the baseline with its interval",
    "learning_curves": "Validation accuracy over the epochs, a line a variant",
    "surface": "Difference to the baseline over both settings",
}


def page(report: StudyReport, facts: Sequence[str], pictures: Sequence[Path]) -> str:
    """Write the whole report as HTML, with SVG files in it.

    Names of variants and files are data and shown as text.
    """
    title = escape(f"Study: {report.study.name}")
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1>",
    ]
    for kind, content in _blocks(report, facts):
        if kind == "points":
            items = (_item(name, text) for name, text in content)
            lines += ["<ul>", *items, "</ul>"]
        elif kind == "table":
            columns, *rows = content
            head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
            lines.append(f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>')
            for row in rows:
                cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
                lines.append(f"<tr>{cells}</tr>")
            lines.append("</tbody></table></div>")
        elif kind == "pictures":
            for path in pictures:
                source = f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
                lines.append(f'<p><img alt="{escape(_ALT[path.stem])}" src="{source}"></p>')
        else:
            tag = {"heading": "h2", "text": "p", "note": 'p class="quiet"'}[kind]
            lines.append(f"<{tag}>{escape(content)}</{tag.split()[0]}>")
    return "\n".join([*lines, "</body></html>", ""])


def _item(name: str, text: str) -> str:
    if not name:
        return f"<li>{escape(text)}</li>"
    verdict = escape(text.split()[0])  # a sentence on a variant begins with it; it has a colour
    return f'<li class="{verdict}"><strong>{escape(name)}</strong>: {escape(text)}</li>'


def write_report(
    folder: Path,
    report: StudyReport,
    table: pd.DataFrame,
    facts: Sequence[str],
    grids: Sequence[str],
) -> None:
    """Write the report; each file appears whole or not at all.

    Args:
        folder: made if it is not there.
        report: summary of the trials.
        table: a row a trial.
        facts: lines on the command, data and settings.
        grids: the `--grid` options of the study; two of them make a surface.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(table, folder / "results.csv")
    write_text(folder / "report.md", markdown(report, facts))
    write_text(folder / "table.tex", latex(report))
    forest, curves, surface = (
        [folder / f"{name}.{suffix}" for suffix in ("png", "svg")] for name in _ALT
    )
    draw_forest(report, *forest)
    draw_learning_curves(report, table, *curves)
    vectors = [forest[1], curves[1]]
    if len(grids) == 2:
        draw_surface(report, grid_axes(grids), *surface)
        vectors.append(surface[1])
    write_text(folder / "report.html", page(report, facts, vectors))
    write_json(folder / "summary.json", report.to_json())
