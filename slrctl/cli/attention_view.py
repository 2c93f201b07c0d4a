"""Attention in the terminal and in files: of single clips, of a whole set, and its faithfulness."""

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slrctl.cli.console import Display
from slrctl.cli.options import RUNS_DIR
from slrctl.core.data.dataset import SignDataset, rows_where
from slrctl.errors import UsageError
from slrctl.evaluation.predictions import predict_dataset
from slrctl.layers import Layer
from slrctl.reports.attention_files import (
    write_clips,
    write_difference,
    write_faithfulness,
    write_summary,
)
from slrctl.reports.terminal import map_lines
from slrctl.runs.folder import newest_run
from slrctl.studies.attention.faithfulness import (
    HANDS,
    HIGHER_IS_BETTER,
    MEASURES,
    RANDOM,
    Faithfulness,
    faithfulness_json,
    sampled,
    verdict,
)
from slrctl.studies.attention.inspect import OpenedRun, load_clips, open_run
from slrctl.studies.attention.measures import CLEAR, ClipMeasures, MeasuredClip, measure
from slrctl.studies.attention.record import (
    FUSION,
    STREAMS,
    AttentionMap,
    InspectedClip,
    clip_named,
    clips_of_gloss,
    layer_names,
    most_two_handed,
    worst_clips,
)
from slrctl.studies.attention.summary import AttentionSummary, MeanInterval, compare, summary_json

FAITHFULNESS_CLIPS = 200
"""The most clips to test: each is read about a hundred times."""
_SHOWN_GLOSSES = 30
_PAIRS = (
    ("left_to_right", "right_to_left"),
    ("right_to_body", "body_to_right"),
    ("left_to_body", "body_to_left"),
)
_SHORT = {"left_hand": "left", "right_hand": "right", "body": "body"}


class Inspection(NamedTuple):
    """One run, or two to compare, on the same clips, and the places of the results.

    `datasets` are these clips in the form that each run takes.
    """

    runs: list[OpenedRun]
    datasets: list[SignDataset]
    data: str
    formats: tuple[str, ...]
    folder: Path
    display: Display

    @property
    def in_terminal(self) -> bool:
        return "terminal" in self.formats

    def report_files(self, written: Sequence[Path], folder: Path) -> None:
        if written:
            self.display.lines(f"{len(written)} files in {folder}")

    def write(
        self, number: int, facts: dict[str, Any], write: Callable[..., list[Path]], found: Any
    ) -> dict[str, Any]:
        """Write what was found of one of the runs, and return its keys of `--json`."""
        opened, folder = self.runs[number], self.folder / "compared" if number else self.folder
        whole = {**opened.source(), "data": self.data, **facts}
        self.report_files(write(folder, self.formats, found, whole), folder)
        key = "compared_with" if number else "run"
        return {key: {"run_dir": str(opened.run_dir), **facts}}


def inspect(
    run: Path | None,
    compared: Path | None,
    layers: Sequence[Layer],
    formats: tuple[str, ...],
    output: Path | None,
    display: Display,
    *,
    data: Path | None,
    split: str | None,
    clip: str | None,
    gloss: str | None,
    worst: int | None,
    layer: str | None,
    summary: bool,
    faithfulness: bool,
) -> None:
    """Open the runs and the clips, answer the questions, show and write the answers."""
    runs = [open_run(run or newest_run(RUNS_DIR), layers)]
    if compared is not None:
        runs.append(open_run(compared, layers, beside=runs[0]))
    clips, datasets = load_clips(runs, data, split)
    if gloss is not None:
        datasets = [clips_of_gloss(dataset, gloss) for dataset in datasets]
    folder = output or runs[0].run_dir / f"attention-{clips.name}"
    inspection = Inspection(runs, datasets, clips.name, formats, folder, display)
    display.lines(*clips.notes)
    result: dict[str, Any] = {"run_dir": str(runs[0].run_dir), "data": clips.name}
    if summary:
        result["summary"] = _summarise(inspection)
    if faithfulness:
        result["faithfulness"] = _judge(inspection)
    if not (summary or faithfulness):
        if clip is not None:
            clip_ids = [clip_named(datasets[0], clip).clip_id]
        elif gloss is not None:
            clip_ids = [one.clip_id for one in datasets[0]]
        elif worst is not None:
            model, settings, device = runs[0].run.model, runs[0].settings, runs[0].device
            clip_ids = worst_clips(predict_dataset(model, datasets[0], settings, device), worst)
        else:
            clip_ids = [most_two_handed(datasets[0]).clip_id]
        result |= _look_at_clips(inspection, clip_ids, runs[0].layer(layer))
    display.json(result)


def _look_at_clips(inspection: Inspection, clip_ids: Sequence[str], layer: str) -> dict[str, Any]:
    """Show clips one by one, write their files, and return the keys of `--json`."""
    runs, formats, display = inspection.runs, inspection.formats, inspection.display
    measured: list[list[MeasuredClip]] = []
    for opened, dataset in zip(runs, inspection.datasets, strict=True):
        # A page switches between all layers; everything else shows the one asked for.
        kept = layer_names(opened.run.settings.model) if "html" in formats else (FUSION, layer)
        found = opened.inspect(dataset, clip_ids, kept)
        cmcl = opened.run.settings.cmcl
        measured.append([MeasuredClip(one, measure(one, cmcl)) for one in found])
        if inspection.in_terminal:
            _show_clip(display, opened.name, measured[-1][0], opened.layer(layer))
            display.lines(*(_line_of(one) for one in measured[-1][1:]))
    written = write_clips(inspection.folder, formats, runs, measured, layer)
    inspection.report_files(written, inspection.folder)
    result: dict[str, Any] = {"layer": layer, "clips": _clips_json(measured[0])}
    for opened, found in zip(runs[1:], measured[1:], strict=True):
        clips = _clips_json(found)
        result["compared_with"] = {"run_dir": str(opened.run_dir), "clips": clips}
    return {**result, "files": [str(path) for path in written]}


def _clips_json(measured: Sequence[MeasuredClip]) -> list[dict[str, Any]]:
    return [
        {
            "clip_id": one.inspected.clip.clip_id,
            "gloss": one.inspected.clip.gloss,
            "num_frames": one.inspected.clip.num_frames,
            "prediction": one.inspected.prediction_json(),
            **one.measures.to_json(),
            "misplaced": one.inspected.misplaced,
        }
        for one in measured
    ]


def _show_clip(display: Display, run_name: str, measured: MeasuredClip, layer: str) -> None:
    inspected, measures = measured
    display.facts(_facts(run_name, inspected, measures, layer))
    maps = _pair(inspected) if layer == FUSION else inspected.layers[layer]
    console = display.console
    has_colour = console.color_system in ("truecolor", "256") and not console.no_color
    for line in map_lines(maps, console.width, has_colour=has_colour):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    if inspected.norms is not None:
        _show_exchange(display, measures)


def _pair(inspected: InspectedClip) -> tuple[AttentionMap, ...]:
    """Return both maps between the hands, or between the body and the only hand that shows."""
    for names in _PAIRS:
        maps = tuple(inspected.fusion[name] for name in names)
        if all(found.rows_count.any() and found.keys_count.any() for found in maps):
            return maps
    return tuple(inspected.fusion[name] for name in _PAIRS[0])


def _facts(
    run_name: str, inspected: InspectedClip, measures: ClipMeasures, layer: str
) -> dict[str, str]:
    clip = inspected.clip
    judged = "right" if inspected.is_right else f"wrong: it shows {clip.gloss}"
    if not inspected.is_right:
        judged += f", given {100 * inspected.probability_of_truth:.1f} %"
    facts = {
        "run": f"{run_name}, layer {layer}",
        "clip": f"{clip.clip_id}, {clip.num_frames} frames, gloss {clip.gloss}",
        "hands": ", ".join(
            f"{_SHORT[stream]} in {int(mask.sum())} frames"
            for stream, mask in inspected.is_present.items()
            if stream != "body"
        ),
        "predicted": f"{inspected.predicted}, probability {100 * inspected.confidence:.1f} % "
        f"({judged})",
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


def _show_exchange(display: Display, measures: ClipMeasures) -> None:
    rows = []
    for place, reader in enumerate(STREAMS):
        row = [reader.replace("_", " ")]
        for column, read in enumerate(STREAMS):
            share = float(measures.exchange[place, column])
            heads = measures.entropy.get(f"{_SHORT[reader]}_to_{_SHORT[read]}")
            entropy = "own)  " if heads is None else f"{heads.mean():.2f})".replace("nan", "-")
            row.append("-" if math.isnan(share) else f"{100 * share:.1f} % ({entropy}")
        rows.append(row)
    display.table(
        "what each stream takes: share (entropy, 1 = uniform)",
        ["stream", "from left hand", "from right hand", "from body"],
        rows,
    )
    display.lines("own features on the diagonal; a row adds up to 100 %")


def _line_of(measured: MeasuredClip) -> str:
    inspected, measures = measured
    mark = "right" if inspected.is_right else "wrong"
    gap = "" if math.isnan(measures.divergence) else f", divergence {measures.divergence:.3g}"
    return (
        f"{inspected.clip.clip_id}: {inspected.clip.gloss}, predicted {inspected.predicted} "
        f"{100 * inspected.confidence:.1f} % ({mark}){gap}"
    )


def _summarise(inspection: Inspection) -> dict[str, Any]:
    """Summarise the clips for each run, compare two, and return the keys of `--json`."""
    summaries, result = [], {}
    for number, (opened, dataset) in enumerate(
        zip(inspection.runs, inspection.datasets, strict=True)
    ):
        if not opened.has_fusion:
            raise UsageError(
                f"--summary: {opened.run_dir} has streams that do not read one another, so there "
                "are no maps between the hands; name a run with cross-attention"
            )
        summary = opened.summarise(dataset)
        summaries.append(summary)
        if inspection.in_terminal:
            _show_summary(inspection.display, opened.name, summary)
        result |= inspection.write(number, summary_json(summary), write_summary, summary)
    if len(summaries) == 2:
        first, second = (opened.name for opened in inspection.runs)
        differences = compare(*summaries)
        result["difference"] = {name: one.to_json() for name, one in differences.items()}
        if inspection.in_terminal:
            inspection.display.table(
                f"{second} minus {first}, clip by clip",
                ["", "difference and 95 % interval"],
                [[name, _with_interval(found)] for name, found in differences.items()],
            )
        if "json" in inspection.formats:
            facts = {"run": first, "compared_with": second, "difference": result["difference"]}
            write_difference(inspection.folder, facts)
    return result


def _show_summary(display: Display, name: str, summary: AttentionSummary) -> None:
    count = len(summary.clips)
    right = sum(one.inspected.is_right for one in summary.clips)
    two = sum(one.is_two_handed for one in summary.clips)
    display.table(
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
    display.lines(
        f"95 % intervals by {summary.bootstrap.kind}; divergence in nats, entropy relative to "
        "uniform, redundancy 1 where heads agree, shares of norms",
        "a lag is the shift of the strongest diagonal; it is noise where that diagonal gets "
        f"less than {CLEAR:g} times uniform attention",
        f"attention on missing or padded frames: at most {summary.misplaced:.3g} of a row"
        + (" (as it must be)" if summary.misplaced == 0 else " (warning: it must be 0)"),
    )
    shown = sorted(summary.glosses, key=lambda one: -one.clips)[:_SHOWN_GLOSSES]
    display.table(
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
        display.lines(f"... and {len(summary.glosses) - len(shown)} glosses more")


def _judge(inspection: Inspection) -> dict[str, Any]:
    """Test the explanations of each run, and return the keys of `--json`."""
    datasets, seed = inspection.datasets, inspection.runs[0].settings.seed
    if len(datasets[0]) > FAITHFULNESS_CLIPS:
        every = [clip.clip_id for clip in datasets[0]]
        drawn = set(sampled(every, FAITHFULNESS_CLIPS, seed))
        datasets = [
            one.select(rows_where(one, lambda clip: clip.clip_id in drawn)) for one in datasets
        ]
        inspection.display.lines(
            f"faithfulness: {len(drawn)} of {len(every)} clips, drawn by the seed"
        )
    result = {}
    for number, (opened, dataset) in enumerate(zip(inspection.runs, datasets, strict=True)):
        found = opened.judge(dataset)
        if inspection.in_terminal:
            _show_faithfulness(inspection.display, opened.name, found)
        result |= inspection.write(number, faithfulness_json(found), write_faithfulness, found)
    return result


def _show_faithfulness(display: Display, name: str, found: Faithfulness) -> None:
    question = f"{name}: do explanations say what the prediction hangs on?"
    better = {True: "higher", False: "lower"}
    directed = [f"{one} ({better[HIGHER_IS_BETTER[one]]} is better)" for one in MEASURES]
    for title, headings, table in (
        (f"{question} {len(found.clip_ids)} clips", directed, found.measures),
        ("minus a random order", MEASURES, found.over[RANDOM]),
        ("minus a random order, frames with hands first", MEASURES, found.over[HANDS]),
    ):
        rows = [
            [order, *(_with_interval(values[measure]) for measure in MEASURES)]
            for order, values in table.items()
        ]
        display.table(title, ["order of frames", *headings], rows)
    display.lines(
        f"{name}: {verdict(found)}.",
        f"95 % intervals by {found.bootstrap.kind}; probabilities of the predicted gloss",
    )


def _middle_half(lags: tuple[int, ...]) -> str:
    if len(lags) < 2:
        return "-"
    first, _, third = statistics.quantiles(lags, n=4, method="inclusive")
    return f"{first:+g} to {third:+g}"


def _mean(found: MeanInterval) -> str:
    return f"{found.mean:.3g}" if found.clips else "-"


def _with_interval(found: MeanInterval) -> str:
    if not found.clips:
        return "-"
    return f"{found.mean:.3g} ({found.low:.3g} to {found.high:.3g})"
