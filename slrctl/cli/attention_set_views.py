"""What `slrctl inspect-attention` shows of a whole data set: --summary and --faithfulness."""

import statistics
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.console import print_lines, print_table

if TYPE_CHECKING:
    from slrctl.studies.attention.faithfulness import Faithfulness
    from slrctl.studies.attention.summary import AttentionSummary, MeanInterval

_SHOWN_GLOSSES = 30


def show_summary(console: Console, name: str, summary: "AttentionSummary") -> None:
    from slrctl.studies.attention.measures import CLEAR

    count = len(summary.clips)
    right = sum(one.inspected.is_right for one in summary.clips)
    two = sum(one.is_two_handed for one in summary.clips)
    print_table(
        console,
        f"{name}: attention over {count} clips ({right} recognised, {count - two} one-handed, "
        f"{two} two-handed)",
        ["", "all clips", "one-handed", "two-handed", "difference", "right minus wrong"],
        [
            [
                measure,
                _with_interval(summary.overall[measure]),
                _mean(summary.handedness[measure]["one_handed"]),
                _mean(summary.handedness[measure]["two_handed"]),
                _with_interval(summary.handedness[measure]["difference"]),
                _with_interval(summary.correctness[measure]["difference"]),
            ]
            for measure in summary.overall
        ],
    )
    print_lines(
        console,
        [
            f"95 % intervals by {summary.bootstrap.kind}; divergence in nats, entropy relative to "
            "uniform, redundancy 1 where heads agree, shares of norms",
            "a lag is the shift of the strongest diagonal; it is noise where that diagonal gets "
            f"less than {CLEAR:g} times uniform attention",
            f"attention on missing or padded frames: at most {summary.misplaced:.3g} of a row"
            + (" (as it must be)" if summary.misplaced == 0 else " (warning: it must be 0)"),
        ],
    )
    shown = sorted(summary.glosses, key=lambda one: -one.clips)[:_SHOWN_GLOSSES]
    print_table(
        console,
        "lag of the right hand behind the left, read off the maps (frames)",
        ["gloss", "clips", "two-handed", "measured", "median", "middle half", "times uniform"],
        [
            [
                one.gloss,
                str(one.clips),
                f"{100 * one.two_handed:.0f} %",
                str(len(one.lags)),
                f"{statistics.median(one.lags):+g}" if one.lags else "-",
                _middle_half(one.lags),
                f"{statistics.median(one.strengths):.2f}" if one.strengths else "-",
            ]
            for one in shown
        ],
    )
    if len(summary.glosses) > len(shown):
        print_lines(console, [f"... and {len(summary.glosses) - len(shown)} glosses more"])


def show_comparison(
    console: Console, names: tuple[str, str], differences: "dict[str, MeanInterval]"
) -> None:
    print_table(
        console,
        f"{names[1]} minus {names[0]}, clip by clip",
        ["", "difference and 95 % interval"],
        [[measure, _with_interval(found)] for measure, found in differences.items()],
    )


def show_faithfulness(console: Console, name: str, found: "Faithfulness") -> None:
    from slrctl.studies.attention.faithfulness import (
        HANDS,
        HIGHER_IS_BETTER,
        MEASURES,
        RANDOM,
        verdict,
    )

    headings = [
        f"{measure} ({'higher' if HIGHER_IS_BETTER[measure] else 'lower'} is better)"
        for measure in MEASURES
    ]
    print_table(
        console,
        f"{name}: do explanations say what the prediction hangs on? {len(found.clip_ids)} clips",
        ["order of frames", *headings],
        [
            [order, *(_with_interval(values[measure]) for measure in MEASURES)]
            for order, values in found.measures.items()
        ],
    )
    for control, differences in (
        ("a random order", found.over[RANDOM]),
        ("a random order, frames with hands first", found.over[HANDS]),
    ):
        print_table(
            console,
            f"minus {control}",
            ["order of frames", *MEASURES],
            [
                [order, *(_with_interval(values[measure]) for measure in MEASURES)]
                for order, values in differences.items()
            ],
        )
    lines = [f"{name}: {verdict(found)}."]
    lines.append(f"95 % intervals by {found.bootstrap.kind}; probabilities of the predicted gloss")
    print_lines(console, lines)


def _middle_half(lags: tuple[int, ...]) -> str:
    if len(lags) < 2:
        return "-"
    first, _, third = statistics.quantiles(lags, n=4, method="inclusive")
    return f"{first:+g} to {third:+g}"


def _mean(found: "MeanInterval") -> str:
    return f"{found.mean:.3g}" if found.clips else "-"


def _with_interval(found: "MeanInterval") -> str:
    if not found.clips:
        return "-"
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"
