"""What `slrctl inspect-attention` shows of one clip in the terminal."""

import math
from typing import TYPE_CHECKING

from rich.console import Console

from slrctl.cli.console import print_facts, print_lines, print_table

if TYPE_CHECKING:
    from slrctl.studies.attention.measures import ClipMeasures, MeasuredClip
    from slrctl.studies.attention.record import AttentionMap, InspectedClip

_PAIRS = (
    ("left_to_right", "right_to_left"),
    ("right_to_body", "body_to_right"),
    ("left_to_body", "body_to_left"),
)
_SHORT = {"left_hand": "left", "right_hand": "right", "body": "body"}


def show_clip(
    console: Console,
    run_name: str,
    measured: "MeasuredClip",
    layer: str,
) -> None:
    """The clip, its prediction, the maps of a layer, and who takes how much from whom."""
    from slrctl.reports.terminal import map_lines
    from slrctl.studies.attention.record import FUSION

    inspected, measures = measured
    print_facts(console, _facts(run_name, inspected, measures, layer))
    maps = _pair(inspected) if layer == FUSION else inspected.layers[layer]
    has_colour = console.color_system in ("truecolor", "256") and not console.no_color
    for line in map_lines(maps, console.width, has_colour=has_colour):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    if inspected.norms is not None:
        _show_exchange(console, measures)


def _pair(inspected: "InspectedClip") -> "tuple[AttentionMap, ...]":
    """Both maps between the hands, or between the body and the only hand that shows."""
    for names in _PAIRS:
        maps = tuple(inspected.fusion[name] for name in names)
        if all(found.rows_count.any() and found.keys_count.any() for found in maps):
            return maps
    return tuple(inspected.fusion[name] for name in _PAIRS[0])


def _facts(
    run_name: str, inspected: "InspectedClip", measures: "ClipMeasures", layer: str
) -> dict[str, str]:
    clip = inspected.clip
    verdict = "right" if inspected.is_right else f"wrong: it shows {clip.gloss}"
    if not inspected.is_right:
        verdict += f", given {100 * inspected.probability_of_truth:.1f} %"
    facts = {
        "run": f"{run_name}, layer {layer}",
        "clip": f"{clip.clip_id}, {clip.num_frames} frames, gloss {clip.gloss}",
        "hands": ", ".join(
            f"{_SHORT[part]} in {int(mask.sum())} frames"
            for part, mask in inspected.is_present.items()
            if part != "body"
        ),
        "predicted": f"{inspected.predicted}, probability {100 * inspected.confidence:.1f} % "
        f"({verdict})",
    }
    if math.isnan(measures.divergence) and inspected.fusion:
        facts["consistency"] = "none: a hand never shows, so the hands do not read each other"
    if not math.isnan(measures.divergence):
        facts["consistency"] = (
            f"{measures.divergence:.3g} nats between left->right and right->left read backwards; "
            f"by head {', '.join(f'{value:.3g}' for value in measures.head_divergence)}"
        )
    if measures.lag is not None:
        lag = measures.lag
        facts["lag"] = (
            f"{lag.frames:+d} frames: the diagonal the hands attend to most, "
            f"{lag.strength:.2f} times uniform attention"
            if lag.is_clear
            else f"none to speak of: the strongest diagonal, at {lag.frames:+d} frames, gets "
            f"{lag.strength:.2f} times uniform attention"
        )
    return facts


def _show_exchange(console: Console, measures: "ClipMeasures") -> None:
    from slrctl.studies.attention.record import STREAMS

    rows = []
    for place, reader in enumerate(STREAMS):
        row = [reader.replace("_", " ")]
        for column, read in enumerate(STREAMS):
            share = measures.exchange[place, column]
            entropy = measures.entropy.get(f"{_SHORT[reader]}_to_{_SHORT[read]}")
            row.append(_cell(float(share), None if entropy is None else float(entropy.mean())))
        rows.append(row)
    print_table(
        console,
        "what each stream takes: share (entropy, 1 = uniform)",
        ["stream", "from left hand", "from right hand", "from body"],
        rows,
    )
    print_lines(console, ["own features on the diagonal; a row adds up to 100 %"])


def _cell(share: float, entropy: float | None) -> str:
    if math.isnan(share):
        return "-"
    text = f"{100 * share:.1f} %"
    if entropy is None:
        return f"{text} (own)  "
    return f"{text} ({'-' if math.isnan(entropy) else f'{entropy:.2f}'})"


def line_of(measured: "MeasuredClip") -> str:
    """One line on a clip, where several were asked for."""
    inspected, measures = measured
    mark = "right" if inspected.is_right else "wrong"
    gap = "" if math.isnan(measures.divergence) else f", divergence {measures.divergence:.3g}"
    return (
        f"{inspected.clip.clip_id}: {inspected.clip.gloss}, predicted {inspected.predicted} "
        f"{100 * inspected.confidence:.1f} % ({mark}){gap}"
    )
