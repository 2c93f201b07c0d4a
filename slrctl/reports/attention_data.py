"""An inspected clip as JSON and as npz; `docs/inspect.md` is the schema.

Both hold the same: the JSON for reading with anything, the npz for computing. Names and numbers
that are no arrays lie in the npz as one JSON text, so nothing is pickled.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slrctl.engine.files import replacing
from slrctl.studies.inspection.measures import ClipMeasures, MeasuredClip
from slrctl.studies.inspection.record import PARTS, InspectedClip

FORMAT = "slrctl attention 1"
Source = Mapping[str, Any]
"""What the maps were made with: run folder, settings, versions."""


def facts(measured: MeasuredClip, source: Source) -> dict[str, Any]:
    """Everything that is no array: where it comes from, the clip, the prediction, the numbers."""
    inspected, clip = measured.inspected, measured.inspected.clip
    return {
        "format": FORMAT,
        **source,
        "clip": {
            "clip_id": clip.clip_id,
            "gloss": clip.gloss,
            "signer": clip.signer,
            "session": clip.session,
            "fps": clip.fps,
            "aspect": clip.aspect,
            "num_frames": clip.num_frames,
        },
        "prediction": prediction(inspected),
        "axes": {
            layer: {
                found.name: {
                    "reader": found.reader,
                    "read": found.read,
                    "shape": list(found.weights.shape),
                }
                for found in maps
            }
            for layer, maps in inspected.layers.items()
        },
        **numbers(measured.measures),
        "misplaced": inspected.misplaced,
    }


def prediction(inspected: InspectedClip) -> dict[str, Any]:
    """What the model said."""
    return {
        "gloss": inspected.predicted,
        "probability": inspected.confidence,
        "probability_of_truth": inspected.probability_of_truth,
        "is_right": inspected.is_right,
    }


def numbers(measures: ClipMeasures) -> dict[str, Any]:
    """The measures of a clip, None where there is nothing to measure."""
    lag = measures.lag
    return {
        "exchange": {"parts": list(PARTS), "shares": plain(measures.exchange)},
        "relative_entropy": {name: plain(values) for name, values in measures.entropy.items()},
        "consistency": {
            "mean_of_heads": plain(measures.divergence),
            "heads": plain(measures.head_divergence),
        },
        "redundancy": {name: plain(value) for name, value in measures.redundancy.items()},
        "lag": None if lag is None else lag._asdict(),
    }


def arrays(inspected: InspectedClip) -> dict[str, np.ndarray]:
    """Every array under its name in the npz."""
    found = {
        f"{layer}.{item.name}": item.weights
        for layer, maps in inspected.layers.items()
        for item in maps
    }
    found |= {f"is_present.{part}": mask for part, mask in inspected.is_present.items()}
    found |= {f"gates.{part}": gate for part, gate in (inspected.gates or {}).items()}
    found |= {f"norms.{part}": norm for part, norm in (inspected.norms or {}).items()}
    return found | {"logits": inspected.logits, "landmarks": inspected.clip.landmarks}


def write_npz(path: Path, measured: MeasuredClip, source: Source) -> None:
    """Save arrays, and the rest as a JSON text under `facts`, classes under `classes`."""
    found = arrays(measured.inspected)
    found["classes"] = np.array(measured.inspected.classes, dtype=np.str_)
    found["facts"] = np.array(_dumps(facts(measured, source)), dtype=np.str_)
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **found)


def write_json(path: Path, measured: MeasuredClip, source: Source) -> None:
    """Save everything as one JSON object; arrays are nested lists under `arrays`."""
    whole = facts(measured, source)
    whole["classes"] = list(measured.inspected.classes)
    whole["arrays"] = {name: plain(array) for name, array in arrays(measured.inspected).items()}
    with replacing(path) as unfinished:
        unfinished.write_text(_dumps(whole) + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """Lists and numbers fit for JSON: NaN becomes None, float32 its shortest decimal form."""
    if isinstance(value, np.ndarray):
        if value.dtype == np.float32:
            # Ten digits hide what float32 does not know; the shortest form reads back to the bit.
            value = np.array(value.astype(np.str_), dtype=np.float64)
        nested = value.tolist()
        return _without_nan(nested) if value.dtype.kind == "f" and np.isnan(value).any() else nested
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _without_nan(nested: Any) -> Any:
    if isinstance(nested, list):
        return [_without_nan(item) for item in nested]
    return None if math.isnan(nested) else nested


def _dumps(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
