"""Write what was asked for about inspected clips: pictures, data, a page."""

import csv
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slrctl.errors import SlrctlError
from slrctl.files import replacing, write_json
from slrctl.reports.attention_html import write_json as write_clip_json
from slrctl.reports.attention_html import write_npz
from slrctl.reports.tables import spreadsheet_text
from slrctl.studies.attention.faithfulness import Faithfulness
from slrctl.studies.attention.inspect import OpenedRun
from slrctl.studies.attention.measures import MeasuredClip
from slrctl.studies.attention.record import FUSION
from slrctl.studies.attention.summary import Summary

PICTURES = ("png", "svg", "pdf")


def write_clips(
    folder: Path,
    formats: Collection[str],
    runs: Sequence[OpenedRun],
    looked: Sequence[Sequence[MeasuredClip]],
    layer: str,
) -> list[Path]:
    """Write files of every format but the terminal's, and return their paths.

    Args:
        folder: is made if absent.
        formats: of `FORMATS`.
        runs: one run, or two; files of the second go to the folder `compared`, but for the page,
            which has both, and a picture of both.
        looked: the clips of each run, in the same order.
        layer: the one that pictures and data show.

    Raises:
        SlrctlError: the folder cannot be written to.
    """
    if not set(formats) - {"terminal"}:
        return []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = list(_write_shared(folder, formats, runs, looked))
        for number, (opened, measured) in enumerate(zip(runs, looked, strict=True)):
            place = folder if number == 0 else folder / "compared"
            place.mkdir(exist_ok=True)
            paths += _write(place, formats, opened, measured, opened.layer(layer))
    except OSError as error:
        raise SlrctlError(
            f"{folder}: cannot be written ({error.strerror}); choose another --output"
        ) from None
    return paths


def _write_shared(
    folder: Path,
    formats: Collection[str],
    runs: Sequence[OpenedRun],
    looked: Sequence[Sequence[MeasuredClip]],
) -> Iterator[Path]:
    """What shows all runs together."""
    if "html" in formats:
        from slrctl.reports.attention_html import PageRun, write_page

        path = folder / "attention.html"
        write_page(
            path,
            [
                PageRun(opened.name, opened.run.settings.cmcl, measured)
                for opened, measured in zip(runs, looked, strict=True)
            ],
        )
        yield path
    if len(runs) < 2 or not all(opened.has_fusion for opened in runs):
        return
    for suffix in PICTURES:
        if suffix in formats:
            from slrctl.reports.attention_figures import draw_comparison

            names = [opened.name for opened in runs]
            pairs = zip(*looked, strict=True)
            for name, pair in zip(file_names(looked[0]), pairs, strict=True):
                path = folder / f"{name}-compared.{suffix}"
                draw_comparison([one.inspected for one in pair], names, path)
                yield path


def _write(
    folder: Path,
    formats: Collection[str],
    opened: OpenedRun,
    looked: Sequence[MeasuredClip],
    layer: str,
) -> Iterator[Path]:
    source = opened.source()
    for name, one in zip(file_names(looked), looked, strict=True):
        for suffix in PICTURES:
            if suffix in formats:
                yield from _draw(folder, name, suffix, opened, one, layer)
        # Like the pictures, data hold the layer asked for; only a page switches between layers.
        alone = one._replace(inspected=one.inspected.with_layers({FUSION, layer}))
        if "npz" in formats:
            path = folder / f"{name}.npz"
            write_npz(path, alone, source)
            yield path
        if "json" in formats:
            path = folder / f"{name}.json"
            write_clip_json(path, alone, source)
            yield path


def _draw(
    folder: Path, name: str, suffix: str, opened: OpenedRun, one: MeasuredClip, layer: str
) -> Iterator[Path]:
    # Imported late: matplotlib takes a second, and the terminal does not need it.
    from slrctl.reports.attention_consistency import draw_consistency
    from slrctl.reports.attention_figures import draw_heads, draw_maps

    for what, draw in (("maps", draw_maps), ("heads", draw_heads)):
        path = folder / f"{name}-{what}.{suffix}"
        draw(one.inspected, layer, path)
        yield path
    if not math.isnan(one.measures.divergence):
        path = folder / f"{name}-consistency.{suffix}"
        draw_consistency(one, opened.run.settings.cmcl, path)
        yield path


def file_names(looked: Sequence[MeasuredClip]) -> list[str]:
    """A name for each clip's files: its id as far as any file system takes it, numbered."""
    width = len(str(len(looked)))
    return [
        f"{number:0{width}}-{_slug(one.inspected.clip.clip_id)}".strip("-")
        for number, one in enumerate(looked, start=1)
    ]


def _slug(clip_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", clip_id).strip("-.")[:60]


def write_summary(
    folder: Path, formats: Collection[str], summary: Summary, whole: dict[str, Any]
) -> list[Path]:
    """Write the files about a summary; `whole` is its JSON."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        if "json" in formats:
            write_json(folder / "summary.json", whole)
            paths.append(folder / "summary.json")
        if "npz" in formats:
            _write_maps(folder / "summary.npz", summary)
            _write_clips(folder / "clips.csv", summary)
            paths += [folder / "summary.npz", folder / "clips.csv"]
        for suffix in PICTURES:
            if suffix in formats:
                from slrctl.reports.attention_summary_figures import draw_lags, draw_mean_maps

                for name, draw in (("mean-maps", draw_mean_maps), ("lags", draw_lags)):
                    if draw(summary, folder / f"{name}.{suffix}"):
                        paths.append(folder / f"{name}.{suffix}")
    except OSError as error:
        raise _unwritable(folder, error) from None
    return paths


def write_difference(folder: Path, whole: dict[str, Any]) -> Path:
    """Write how two runs differ; `whole` is its JSON. Returns the path."""
    path = folder / "difference.json"
    try:
        write_json(path, whole)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return path


def write_faithfulness(
    folder: Path, formats: Collection[str], found: Faithfulness, whole: dict[str, Any]
) -> list[Path]:
    """Write the files about faithfulness; `whole` is its JSON."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        if "json" in formats:
            write_json(folder / "faithfulness.json", whole)
            paths.append(folder / "faithfulness.json")
        if "npz" in formats:
            path = folder / "faithfulness.npz"
            arrays = {
                f"{name}.{kind}": getattr(curves, kind)
                for name, curves in found.curves.items()
                for kind in curves._fields
            }
            clip_ids = np.array(found.clip_ids, dtype=np.str_)
            with replacing(path) as unfinished, unfinished.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, clip_ids=clip_ids, **arrays)
            paths.append(path)
        for suffix in PICTURES:
            if suffix in formats:
                from slrctl.reports.attention_summary_figures import draw_faithfulness

                draw_faithfulness(found, folder / f"faithfulness.{suffix}")
                paths.append(folder / f"faithfulness.{suffix}")
    except OSError as error:
        raise _unwritable(folder, error) from None
    return paths


def _write_maps(path: Path, summary: Summary) -> None:
    arrays = {
        "glosses": np.array([one.gloss for one in summary.glosses], dtype=np.str_),
        "clips": np.array([one.clips for one in summary.glosses]),
        "mean": np.stack([one.mean for one in summary.glosses]),
        "low": np.stack([one.low for one in summary.glosses]),
        "high": np.stack([one.high for one in summary.glosses]),
        "directions": np.array(["left_to_right", "right_to_left"]),
        "facts": np.array(json.dumps({"format": "slrctl attention summary 1"})),
    }
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _write_clips(path: Path, summary: Summary) -> None:
    """One row a clip; empty where there is nothing to measure."""
    names = list(summary.overall)
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["clip_id", "gloss", "predicted", "probability", "two_handed", "lag", *names]
        )
        for one in summary.clips:
            clip = one.inspected.clip
            texts = (clip.clip_id, clip.gloss, one.inspected.predicted)
            values = (one.inspected.confidence, one.is_two_handed, _cell(one.lag))
            row = [*map(spreadsheet_text, texts), *values]
            writer.writerow([*row, *(_cell(one.values[name]) for name in names)])


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.7g}"


def _unwritable(folder: Path, error: OSError) -> SlrctlError:
    return SlrctlError(f"{folder}: cannot be written ({error.strerror}); choose another --output")
