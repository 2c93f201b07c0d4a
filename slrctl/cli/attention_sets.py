"""`slrctl inspect-attention --summary` and `--faithfulness`: questions about a whole set."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console

from slrctl.cli.attention_set_views import show_comparison, show_faithfulness, show_summary
from slrctl.cli.console import print_lines
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.core.data.dataset import SignDataset
    from slrctl.studies.attention.inspect import OpenedRun

FAITHFULNESS_CLIPS = 200
"""Clips that are tried: each is read about a hundred times."""


class Asked(NamedTuple):
    """What was asked for: the run, or two to compare, where to show and where to write.

    `datasets`: the same clips for each run, in the form it takes.
    """

    console: Console
    runs: "tuple[OpenedRun, ...]"
    datasets: "tuple[SignDataset, ...]"
    data: str
    formats: tuple[str, ...]
    folder: Path


def run_summary(asked: Asked) -> dict[str, Any]:
    """Summarise a data set and return what `--json` prints."""
    from slrctl.reports.attention_files import write_difference, write_summary
    from slrctl.studies.attention.summary import compare, summary_json

    summaries = []
    result: dict[str, Any] = {}
    for number, (opened, dataset) in enumerate(zip(asked.runs, asked.datasets, strict=True)):
        if not opened.has_fusion:
            raise UsageError(
                f"--summary: {opened.run_dir} has streams that do not read one another, so there "
                "are no maps between the hands; name a run with cross-attention"
            )
        summary = opened.summarise(dataset)
        summaries.append(summary)
        whole = {**opened.source(), "data": asked.data, **summary_json(summary)}
        folder = asked.folder if number == 0 else asked.folder / "compared"
        if "terminal" in asked.formats:
            show_summary(asked.console, opened.name, summary)
        written = write_summary(folder, asked.formats, summary, whole)
        if written:
            print_lines(asked.console, [f"{len(written)} files in {folder}"])
        key = "compared_with" if number else "run"
        result[key] = {"run_dir": str(opened.run_dir), **summary_json(summary)}
    if len(summaries) == 2:
        differences = compare(*summaries)
        if "terminal" in asked.formats:
            show_comparison(asked.console, (asked.runs[0].name, asked.runs[1].name), differences)
        result["difference"] = {name: one.to_json() for name, one in differences.items()}
        if "json" in asked.formats:
            facts = {"run": asked.runs[0].name, "compared_with": asked.runs[1].name}
            write_difference(asked.folder, {**facts, "difference": result["difference"]})
    return result


def run_faithfulness(asked: Asked) -> dict[str, Any]:
    """Test the explanations of each run and return what `--json` prints."""
    from slrctl.core.data.dataset import rows_where
    from slrctl.reports.attention_files import write_faithfulness
    from slrctl.studies.attention.faithfulness import faithfulness_json, sampled

    settings = asked.runs[0].settings
    datasets = asked.datasets
    if len(datasets[0]) > FAITHFULNESS_CLIPS:
        every = [clip.clip_id for clip in datasets[0]]
        drawn = set(sampled(every, FAITHFULNESS_CLIPS, settings.seed))
        datasets = [
            one.select(rows_where(one, lambda clip: clip.clip_id in drawn)) for one in datasets
        ]
        print_lines(
            asked.console,
            [f"faithfulness: {len(drawn)} of {len(every)} clips, drawn by the seed"],
        )
    result: dict[str, Any] = {}
    for number, (opened, dataset) in enumerate(zip(asked.runs, datasets, strict=True)):
        found = opened.judge(dataset)
        whole = {**opened.source(), "data": asked.data, **faithfulness_json(found)}
        folder = asked.folder if number == 0 else asked.folder / "compared"
        if "terminal" in asked.formats:
            show_faithfulness(asked.console, opened.name, found)
        written = write_faithfulness(folder, asked.formats, found, whole)
        if written:
            print_lines(asked.console, [f"{len(written)} files in {folder}"])
        key = "compared_with" if number else "run"
        result[key] = {"run_dir": str(opened.run_dir), **faithfulness_json(found)}
    return result
