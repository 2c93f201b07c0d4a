"""What `slrctl data info --rectify` shows."""

from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.console import print_lines, print_table

if TYPE_CHECKING:
    from slrctl.core.data.rectify import Excess, RectificationReport

_HEADINGS = ("joint", "frames", "out of range", "by", "95 %", "after: out", "by", "95 %")


def show_rectification(console: Console, report: "RectificationReport") -> None:
    """A table a hand: how often each joint is out of range, and by how much where it is."""
    for hand in dict.fromkeys(joint.hand for joint in report.joints):
        rows = [
            (joint.joint, f"{joint.num_frames:,}", *_cells(joint.before), *_cells(joint.after))
            for joint in report.joints
            if joint.hand == hand
        ]
        title = f"{hand} hand: joints out of range, before and after alpha {report.alpha:g}"
        print_table(console, title, _HEADINGS, rows)
    print_lines(
        console,
        [
            "out of range: share of the frames in which the joint can be measured; by: mean excess "
            "in degrees where it is; 95 %: of these excesses are no larger",
            f"note: {report.note}",
        ],
    )


def _cells(excess: "Excess") -> list[str]:
    share = "" if excess.share is None else f"{100 * excess.share:.1f} %"
    degrees = (excess.mean_degrees, excess.p95_degrees)
    return [share, *("" if value is None else f"{value:.1f}" for value in degrees)]
