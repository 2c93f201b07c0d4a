"""Attention maps and their numbers as JSON, npz and CSV."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slrctl.files import replacing, write_text
from slrctl.reports.tables import write_csv
from slrctl.studies.attention.faithfulness import Faithfulness
from slrctl.studies.attention.measures import ClipMeasures, MeasuredClip
from slrctl.studies.attention.record import STREAMS, InspectedClip
from slrctl.studies.attention.summary import BOTH_WAYS, AttentionSummary


def as_json(value: Any) -> Any:
    """Turn arrays into lists fit for JSON: NaN becomes None, float32 its shortest decimal form."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.float32:
            # Ten digits hide what float32 does not know; the shortest form reads back to the bit.
            value = value.astype(np.str_).astype(np.float64)
        if value.dtype.kind == "f" and np.isnan(value).any():
            value = np.where(np.isnan(value), np.array(None), value)
        return value.tolist()
    return None if isinstance(value, float) and math.isnan(value) else value


def prediction(inspected: InspectedClip) -> dict[str, Any]:
    """Describe what the model predicts for a clip."""
    return {
        "gloss": inspected.predicted,
        "probability": inspected.confidence,
        "probability_of_truth": inspected.probability_of_truth,
        "is_right": inspected.is_right,
    }


def numbers(measures: ClipMeasures) -> dict[str, Any]:
    """List the measures of a clip, None where there is nothing to measure."""
    return {
        "exchange": {"parts": list(STREAMS), "shares": as_json(measures.exchange)},
        "relative_entropy": {name: as_json(values) for name, values in measures.entropy.items()},
        "consistency": {
            "mean_of_heads": as_json(measures.divergence),
            "heads": as_json(measures.head_divergence),
        },
        "redundancy": {name: as_json(value) for name, value in measures.redundancy.items()},
        "lag": None if measures.lag is None else measures.lag._asdict(),
    }


def _facts(measured: MeasuredClip, source: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is no array: the source, the clip, the prediction, the numbers."""
    inspected, clip = measured.inspected, measured.inspected.clip
    names = ("clip_id", "gloss", "signer", "session", "fps", "aspect", "num_frames")
    return {
        "format": "slrctl attention 1",
        **source,
        "clip": {name: getattr(clip, name) for name in names},
        "prediction": prediction(inspected),
        "axes": {
            layer: {
                m.name: {"reader": m.reader, "read": m.read, "shape": list(m.weights.shape)}
                for m in maps
            }
            for layer, maps in inspected.layers.items()
        },
        **numbers(measured.measures),
        "misplaced": inspected.misplaced,
    }


def _arrays(inspected: InspectedClip) -> dict[str, np.ndarray]:
    """Every array under its name in the npz."""
    arrays = {
        f"{layer}.{found.name}": found.weights
        for layer, maps in inspected.layers.items()
        for found in maps
    }
    for kind in ("is_present", "gates", "norms"):
        for stream, array in (getattr(inspected, kind) or {}).items():
            arrays[f"{kind}.{stream}"] = array
    return {**arrays, "logits": inspected.logits, "landmarks": inspected.clip.landmarks}


def _dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_npz(path: Path, **arrays: Any) -> None:
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def write_clip_npz(path: Path, measured: MeasuredClip, source: Mapping[str, Any]) -> None:
    """Save arrays, and the rest as a JSON text under `facts`, classes under `classes`.

    Args:
        path: the file to write.
        measured: a clip and its numbers.
        source: the run, its settings and versions.
    """
    facts, classes = _dumps(_facts(measured, source)), list(measured.inspected.classes)
    _write_npz(path, **_arrays(measured.inspected), classes=classes, facts=facts)


def write_clip_json(path: Path, measured: MeasuredClip, source: Mapping[str, Any]) -> None:
    """Save the same as one JSON object; arrays are nested lists under `arrays`."""
    arrays = {name: as_json(array) for name, array in _arrays(measured.inspected).items()}
    rest = {"classes": list(measured.inspected.classes), "arrays": arrays}
    write_text(path, _dumps({**_facts(measured, source), **rest}) + "\n")


def write_summary_npz(path: Path, summary: AttentionSummary) -> None:
    """Save the mean maps of every gloss with their intervals."""
    columns = ("gloss", "clips", "mean", "low", "high")
    arrays = {name: np.array([getattr(one, name) for one in summary.glosses]) for name in columns}
    facts = json.dumps({"format": "slrctl attention summary 1"})
    _write_npz(path, glosses=arrays.pop("gloss"), directions=BOTH_WAYS, facts=facts, **arrays)


def write_clips_csv(path: Path, summary: AttentionSummary) -> None:
    """Save a row a clip with its measures."""
    rows = [
        {
            "clip_id": one.inspected.clip.clip_id,
            "gloss": one.inspected.clip.gloss,
            "predicted": one.inspected.predicted,
            "probability": one.inspected.confidence,
            "two_handed": one.is_two_handed,
            "lag": one.lag,
            **one.values,
        }
        for one in summary.clips
    ]
    write_csv(pd.DataFrame(rows), path, float_format="%.7g")


def write_faithfulness_npz(path: Path, found: Faithfulness) -> None:
    """Save the curves of every clip."""
    curves = {
        f"{name}.{kind}": array
        for name, curves in found.curves.items()
        for kind, array in curves._asdict().items()
    }
    _write_npz(path, clip_ids=list(found.clip_ids), **curves)
