"""`slrctl train --profile`: some steps of a training, watched."""

from pathlib import Path
from typing import TYPE_CHECKING

from slrctl.cli.console import print_json, print_lines, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from slrctl.core.data.splits import Splits
    from slrctl.settings import Settings


def show_profile(
    settings: "Settings", splits: "Splits", console: "Console", *, as_json: bool, trace: Path
) -> None:
    """Say which phases and operators take the time, and where the timeline is."""
    from slrctl.training.profile import profile_training

    report = profile_training(settings, splits, trace)
    print_table(
        console,
        "where a step's time goes",
        ["phase", "share"],
        [[name, f"{share:.1%}"] for name, share in report.phases.items()],
    )
    print_table(
        console,
        "the dearest operators, each without those it calls",
        ["operator", "share", "calls", "seconds"],
        [
            [cost.name, f"{cost.share:.1%}", f"{cost.calls:,}", f"{cost.seconds:.3f}"]
            for cost in report.operators
        ],
    )
    rate = report.num_clips / report.seconds
    print_lines(
        console,
        [
            f"{rate:,.1f} clips a second before it was watched; {report.steps} steps watched; "
            "no run was saved",
            f"timeline in {trace}: open it in ui.perfetto.dev or chrome://tracing",
        ],
    )
    if as_json:
        print_json(
            {
                "phases": report.phases,
                "operators": [cost._asdict() for cost in report.operators],
                "clips_per_second": rate,
                "steps": report.steps,
                "trace": str(trace),
            }
        )
