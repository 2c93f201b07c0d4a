"""A study's report as Markdown and as a LaTeX table."""

from collections.abc import Iterator, Sequence

from slrctl.studies.ablation.report import StudyReport, VariantReport
from slrctl.studies.statistics import Comparison, Interval


def headings(report: StudyReport) -> tuple[str, ...]:
    """Of the table ready for a paper: what accuracy is of which clips."""
    return (
        "variant",
        "seeds",
        f"{report.split} accuracy (95 % interval)".strip(),
        "sd",
        "difference (95 % interval)",
        "p",
        "Holm p",
        "P(better)",
        "verdict",
    )


def study_rows(report: StudyReport) -> list[list[str]]:
    """The cells of the table ready for a paper, a row a variant; accuracies in percent."""
    return [_row(report, variant) for variant in report.variants]


def learning_rows(report: StudyReport) -> list[list[str]]:
    """Epochs to 90 % of the baseline's best, and the cost in time."""
    rows = []
    for variant in report.variants:
        learning = variant.learning
        if learning is None:
            continue
        never = f" (never in {learning.never_reached})" if learning.never_reached else ""
        is_baseline = variant.name == report.study.baseline
        rows.append(
            [
                variant.name,
                f"{learning.epochs:.1f}{never}",
                ""
                if is_baseline
                else with_interval(learning.difference, learning.difference_ci95, 1),
                "" if is_baseline else f"{learning.p:.3g}",
                ""
                if is_baseline
                else f"{learning.time_ratio:.2f}" + _ratio(learning.time_ratio_ci95),
            ]
        )
    return rows


LEARNING_HEADINGS = ("variant", "epochs to 90 %", "difference (95 % interval)", "p", "time ratio")


def with_interval(value: float, interval: Interval | None, digits: int = 2) -> str:
    """A signed difference and its interval."""
    text = f"{value:+.{digits}f}"
    if interval is None:
        return text
    if interval[0] == interval[1]:
        return f"{text} (in every seed)"
    return f"{text} ({interval[0]:+.{digits}f} to {interval[1]:+.{digits}f})"


def primary_sentence(report: StudyReport) -> str:
    """Which contrast was declared beforehand."""
    if report.study.primary is None:
        return "No contrast was declared primary; all are Holm-adjusted."
    return (
        f"Primary contrast, declared beforehand and tested unadjusted: {report.study.primary} "
        f"against {report.study.baseline}. The other variants are Holm-adjusted among themselves."
    )


METHOD = (
    "Paired by seed{folds}. Means and differences with Student-t 95 % intervals over seeds; p from "
    "the exact two-sided sign-flip test; P(better) is the share of seeds in which the variant "
    "beats the baseline, ties counting half. Intervals over seeds say how much training varies on "
    "these clips, not how a new data set would come out; a few seeds that agree are no certainty."
)
BOOTSTRAP = " BCa: bias-corrected and accelerated bootstrap over seeds."
CHOSEN_ON_THEM = (
    " There are no test clips: accuracies are of the validation clips, on which each run's epoch "
    "was chosen, and are too high by that."
)


def method(report: StudyReport) -> str:
    """How the numbers of the table come about."""
    text = METHOD.format(folds=" and averaged over folds" if report.folds else "")
    if any(v.comparison and v.comparison.difference_bca95 for v in report.variants):
        text += BOOTSTRAP
    return text + (CHOSEN_ON_THEM if report.split == "validation" else "")


def failure_lines(report: StudyReport) -> list[str]:
    """How many trials of each variant failed, and what they said."""
    return [
        f"{variant.name}: {variant.failed} failed; {_shortened(text)}"
        for variant in report.variants
        for text in variant.failures or [""] * bool(variant.failed)
    ]


def _shortened(text: str, length: int = 300) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def markdown(report: StudyReport, facts: Sequence[str]) -> str:
    """The whole report.

    Args:
        report: the study.
        facts: lines that say what was run on what: command, data, settings.
    """
    failed = [without_html(line) for line in failure_lines(report)]
    lines = [
        f"# Study: {report.study.name}",
        "",
        *(f"- {without_html(fact)}" for fact in facts),
        "",
        primary_sentence(report),
        "",
        *table(headings(report), study_rows(report)),
        "",
        method(report),
        "",
        *(["## Failed trials", "", *(f"- {line}" for line in failed), ""] if failed else []),
        "## Verdicts",
        "",
        *(f"- **{variant.name}**: {variant.sentence}" for variant in report.variants),
        "",
        "## How fast they learn, and at what cost",
        "",
        f"Epochs until validation accuracy reaches 90 % of the best of {report.study.baseline} "
        "under the same seed; p unadjusted. Time ratios are of training steps on a machine that "
        "other trials used as well.",
        "",
        *table(LEARNING_HEADINGS, learning_rows(report)),
        "",
    ]
    return "\n".join(lines)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table; a bar in a cell would end it early."""
    for cells in (headings, ["---"] * len(headings), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def latex(report: StudyReport) -> str:
    """A booktabs table."""
    columns = "l" + "r" * (len(headings(report)) - 2) + "l"
    lines = [
        f"% {report.study.name}: accuracy and differences in percent; needs the package booktabs",
        f"% * {primary_sentence(report)}",
        f"% {method(report)}",
        *(f"% failed trials: {line}" for line in failure_lines(report)),
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        " & ".join(map(escaped, headings(report))) + " \\\\",
        "\\midrule",
        *(" & ".join(map(escaped, row)) + " \\\\" for row in study_rows(report)),
        "\\bottomrule",
        "\\end{tabular}",
        "",
    ]
    return "\n".join(lines)


_SPECIAL = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
}


def without_html(text: str) -> str:
    """For a reader of Markdown, who would show what lies between angle brackets as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def escaped(text: str) -> str:
    """Text as LaTeX shows it."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _row(report: StudyReport, variant: VariantReport) -> list[str]:
    summary, comparison = variant.summary, variant.comparison
    name = f"{variant.name} *" if variant.name == report.study.primary else variant.name
    if summary is None:
        ended = f"all {variant.failed} failed" if variant.failed else "not run"
        return [name, "0", *[""] * 6, ended]
    mean = f"{100 * summary.mean:.2f}"
    if summary.ci95 is not None:
        mean += f" ({100 * summary.ci95[0]:.2f} to {100 * summary.ci95[1]:.2f})"
    cells = [name, str(summary.n), mean, "" if summary.sd is None else f"{100 * summary.sd:.2f}"]
    if comparison is None:
        is_baseline = variant.name == report.study.baseline
        return [*cells, *[""] * 4, "baseline" if is_baseline else "no pair"]
    interval = comparison.difference_ci95
    scaled = None if interval is None else (100 * interval[0], 100 * interval[1])
    bootstrap = comparison.difference_bca95
    return [
        *cells,
        with_interval(100 * comparison.difference, scaled)
        + (f"; BCa {100 * bootstrap[0]:+.2f} to {100 * bootstrap[1]:+.2f}" if bootstrap else ""),
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


def _ratio(interval: Interval | None) -> str:
    return "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
