"""`slrctl data info`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import count_of
from slrctl.reports.tables import percent

if TYPE_CHECKING:
    from slrctl.core.data.overview import Group, Overview
    from slrctl.core.data.rectify import Excess, RectificationReport

_HEADINGS = ("joint", "frames", "out of range", "by", "95 %", "after: out", "by", "95 %")


@opt.command()
def info(
    ctx: typer.Context,
    path: opt.Clips,
    overrides: opt.Overrides = None,
    with_rectification: Annotated[
        bool,
        opt.option(
            "Also say how often joints of the hands are out of range, and after.", None, "--rectify"
        ),
    ] = False,
    rectify_alpha: Annotated[
        float,
        opt.option("With --rectify: share of the excess that is turned back.", least=0, most=1),
    ] = 0.4,
    gloss_names: opt.GlossNames = None,
    frame_size: opt.FrameSize = None,
    skip_bad_clips: opt.SkipBadClips = None,
    output: Annotated[
        Path | None,
        opt.option("Also draw a clip of each gloss, as PNG.", opt.OUTPUT, metavar="DIR"),
    ] = None,
    most: Annotated[
        int, opt.option("Glosses, signers, sessions shown and drawn.", opt.OUTPUT, least=1)
    ] = 24,
    as_json: opt.Json = False,
) -> None:
    """Say what a file of clips holds, and draw some of it."""
    settings = opt.reading_settings(ctx)
    from slrctl.reports.clips import report_file

    alpha = rectify_alpha if with_rectification else None
    report = report_file(path, settings, rectify_alpha=alpha, pictures=output, most=most)
    display = Display(as_json=as_json)
    _show_overview(display, str(path), report.overview, report.notes, most)
    if report.rectification is not None:
        _show_rectification(display, report.rectification)
    if report.pictures is not None:
        display.lines(f"{len(report.pictures)} pictures in {output}")
    display.json(report.to_json())


def _show_overview(
    display: Display, name: str, overview: "Overview", notes: Sequence[str], most: int
) -> None:
    display.lines(*notes)
    display.facts(_facts(name, overview))
    _show_missing(display, overview)
    for noun, groups in (
        ("split", overview.splits),
        ("gloss", overview.glosses),
        ("signer", overview.signers),
        ("session", overview.sessions),
    ):
        if any(group.name is not None for group in groups):
            _show_groups(display, noun, groups, most)


def _facts(name: str, overview: "Overview") -> dict[str, str]:
    hands, dominant, coordinates = overview.hands, overview.dominant_hand, overview.coordinates
    length, balance = overview.length, overview.balance
    axes = (coordinates.x, coordinates.y)
    reach = [f"{axis['percentile_1']:.2f} to {axis['percentile_99']:.2f}" for axis in axes]
    return {
        "data": f"{name}: {count_of(overview.clips, 'clip')}, "
        f"{count_of(overview.frames, 'frame')}, {count_of(len(overview.glosses), 'gloss')}",
        "people": f"{_number_of('signer', overview.signers)}, "
        f"{_number_of('session', overview.sessions)}",
        "length": f"{length['minimum']:g} to {length['maximum']:g} frames, "
        f"median {length['median']:g}",
        "speed": _speed(overview),
        "balance": f"{balance['minimum']:,} to {balance['maximum']:,} clips a gloss, median "
        f"{balance['median']:g}; the commonest has {balance['imbalance']:.1f} times the rarest",
        "hands": f"both in {percent(hands['both'])} of the frames, left only "
        f"{percent(hands['left_only'])}, right only {percent(hands['right_only'])}, "
        f"neither {percent(hands['neither'])}",
        "dominant": f"the right hand does more in {percent(dominant['right'] / overview.clips)} "
        f"of the clips, the left in {percent(dominant['left'] / overview.clips)}",
        "image": _image(overview),
        "y axis": {
            "down": "down, as it should be",
            "up": "warning: up: noses lie below shoulders; turn the clips round before training",
        }.get(coordinates.y_axis or "", "not known: no nose or no shoulders"),
        "reach": f"x {reach[0]}, y {reach[1]} of the image "
        f"(1st to 99th percentile); {percent(coordinates.outside_image)} of the landmarks "
        "outside it",
    }


def _number_of(noun: str, groups: "Sequence[Group]") -> str:
    known = [group for group in groups if group.name is not None]
    if not known:
        return f"{noun}s not stated"
    unknown = sum(group.clips for group in groups if group.name is None)
    number = count_of(len(known), noun)
    return f"{number} ({unknown:,} clips without)" if unknown else number


def _speed(overview: "Overview") -> str:
    if overview.fps is None:
        return "frames a second not stated"
    low, median, high = (overview.fps[name] for name in ("minimum", "median", "maximum"))
    rate = f"{median:g} frames a second"
    if low != high:
        rate = f"{low:g} to {high:g} frames a second, median {median:g}"
    unknown = overview.clips_without_fps
    return f"{rate} ({unknown:,} clips without)" if unknown else rate


def _image(overview: "Overview") -> str:
    aspects = list(overview.aspects.items())
    shown = ", ".join(
        f"{aspect:g}" + ("" if len(aspects) == 1 else f" ({clips:,} clips)")
        for aspect, clips in aspects[:4]
    )
    more = f" and {len(aspects) - 4} others" if len(aspects) > 4 else ""
    unknown = ", which is also what unknown is read as" if 1.0 in overview.aspects else ""
    return f"width / height {shown}{more}{unknown}"


def _show_missing(display: Display, overview: "Overview") -> None:
    shares = overview.missing_landmarks
    body = [(name, percent(share)) for name, share in shares.items() if "_" not in name]
    hand = [name.removesuffix("_left") for name in shares if name.endswith("_left")]
    body += [("", "")] * (len(hand) - len(body))
    rows = [
        (*beside, name, *(percent(shares[f"{name}_{side}"]) for side in ("left", "right")))
        for beside, name in zip(body, hand, strict=True)
    ]
    total = [percent(overview.missing[stream]) for stream in ("body", "left_hand", "right_hand")]
    rows.append(("all of the body", total[0], "all of the hand", total[1], total[2]))
    display.table(
        "not detected, share of frames",
        ["body", "missing", "hand", "left missing", "right missing"],
        rows,
    )


def _show_groups(display: Display, noun: str, groups: "Sequence[Group]", most: int) -> None:
    num_clips = sum(group.clips for group in groups)
    columns = [
        column
        for column, own in (("glosses", "gloss"), ("signers", "signer"), ("sessions", "session"))
        if own != noun and any(getattr(group, column) for group in groups)
    ]
    limit = f", the {most} with most clips of {len(groups):,}" if len(groups) > most else ""
    display.table(
        f"by {noun}{limit}",
        [noun, "clips", "share", *columns, "left hand dominant"],
        [
            (
                "not stated" if group.name is None else group.name,
                f"{group.clips:,}",
                percent(group.clips / num_clips),
                *(f"{getattr(group, column):,}" for column in columns),
                percent(group.left_dominant),
            )
            for group in _by_size(groups)[:most]
        ],
    )


def _by_size(groups: "Sequence[Group]") -> "list[Group]":
    """Sort groups by size, the largest first, but splits in their own order."""
    splits = ("train", "val", "test")
    if {group.name for group in groups} <= set(splits):
        return sorted(groups, key=lambda group: splits.index(group.name or ""))
    return sorted(groups, key=lambda group: -group.clips)


def _show_rectification(display: Display, report: "RectificationReport") -> None:
    """Print a table a hand: how often each joint is out of range, and by how much where it is."""
    for hand in dict.fromkeys(joint.hand for joint in report.joints):
        rows = [
            (joint.joint, f"{joint.num_frames:,}", *_cells(joint.before), *_cells(joint.after))
            for joint in report.joints
            if joint.hand == hand
        ]
        title = f"{hand} hand: joints out of range, before and after alpha {report.alpha:g}"
        display.table(title, _HEADINGS, rows)
    display.lines(
        "out of range: share of the frames in which the joint can be measured; by: mean excess "
        "in degrees where it is; 95 %: of these excesses are no larger",
        f"note: {report.note}",
    )


def _cells(excess: "Excess") -> list[str]:
    share = "" if excess.share is None else percent(excess.share)
    degrees = (excess.mean_degrees, excess.p95_degrees)
    return [share, *("" if value is None else f"{value:.1f}" for value in degrees)]
