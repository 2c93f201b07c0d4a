"""Write what was found over a data set: numbers, mean maps, a table of clips, figures."""

import csv
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from slrctl.engine.files import replacing
from slrctl.engine.run_folder import write_json
from slrctl.errors import SlrctlError
from slrctl.reports.attention_files import PICTURES
from slrctl.reports.evaluation_tables import spreadsheet_text
from slrctl.studies.inspection.faithfulness import Faithfulness
from slrctl.studies.inspection.summary import Summary


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
