"""An offline page about inspected clips: one file that asks nothing of any network.

Charts are drawn by plotly.js, which lies in the page as well. Text from users' files reaches it as
JSON and is shown as text: nothing of it is ever markup or script, and the page's policy runs no
script but the two it came with.
"""

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from slrctl.core import skeleton
from slrctl.files import replacing
from slrctl.reports.attention_figures import DIVERGENCES
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import CLEAR, ClipMeasures, MeasuredClip
from slrctl.studies.attention.record import PARTS, AttentionMap, InspectedClip

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


Detail = Literal["heads", "mean", "last", "none"]
"""What a page holds of the encoders' maps: every head, means of heads, those of the last, none."""
_LEVELS = 255
_POINT_LEVELS = 65534


def packed_clip(measured: MeasuredClip, detail: Detail) -> dict[str, Any]:
    """Everything a page shows of a clip, fit for JSON."""
    inspected = measured.inspected
    clip = inspected.clip
    box, landmarks = _packed_landmarks(inspected)
    return {
        "clip_id": clip.clip_id,
        "gloss": clip.gloss,
        "signer": clip.signer,
        "fps": clip.fps,
        "num_frames": clip.num_frames,
        "prediction": prediction(inspected),
        "numbers": numbers(measured.measures),
        "left_is_present": _bits(inspected.is_present["left_hand"]),
        "right_is_present": _bits(inspected.is_present["right_hand"]),
        "box": box,
        "landmarks": landmarks,
        "layers": [
            _packed_layer(name, maps, is_averaged=_is_encoder(name) and detail != "heads")
            for name, maps in inspected.layers.items()
            if not _is_encoder(name) or name in _encoders(inspected, detail)
        ],
    }


def _is_encoder(layer: str) -> bool:
    return layer.startswith("encoder")


def _encoders(inspected: InspectedClip, detail: Detail) -> list[str]:
    """The encoder layers a page holds."""
    names = [name for name in inspected.layers if _is_encoder(name)]
    return {"heads": names, "mean": names, "last": names[-1:], "none": []}[detail]


def _packed_layer(name: str, maps: Sequence[AttentionMap], *, is_averaged: bool) -> dict[str, Any]:
    entries, levels = [], []
    for found in maps:
        weights = found.mean[None] if is_averaged else found.weights
        low, high, packed = pack_map(weights, found.rows_count, found.keys_count)
        levels.append(packed.ravel())
        entries.append(
            {
                "name": found.name,
                "reader": found.reader,
                "read": found.read,
                "rows": weights.shape[1],
                "columns": weights.shape[2],
                "is_averaged": is_averaged,
                "low": low,
                "high": high,
            }
        )
    return {"name": name, "maps": entries, "bytes": _deflated(np.concatenate(levels))}


def pack_map(
    weights: Float[np.ndarray, "H Q T"],
    rows_count: Bool[np.ndarray, " Q"],
    keys_count: Bool[np.ndarray, " T"],
) -> tuple[list[float], list[float], UInt8[np.ndarray, "H Q T"]]:
    """The range of each head, and its levels as differences to the row above."""
    counted = weights[:, rows_count][:, :, keys_count].reshape(len(weights), -1)
    if counted.shape[1] == 0:
        counted = np.zeros((len(weights), 1), np.float32)
    # Rounded outwards, since the script computes with the numbers that are written.
    low = [float(f"{value:.6g}") for value in counted.min(axis=1).tolist()]
    high = [float(f"{value:.6g}") for value in counted.max(axis=1).tolist()]
    base = np.array(low)[:, None, None]
    span = np.maximum(np.array(high)[:, None, None] - base, np.finfo(np.float64).tiny)
    places = np.clip((weights - base) / span, 0.0, 1.0)
    levels = np.where(keys_count, np.rint(np.sqrt(places) * _LEVELS), 0).astype(np.uint8)
    return low, high, np.diff(levels, axis=1, prepend=np.zeros_like(levels[:, :1]))


def _packed_landmarks(inspected: InspectedClip) -> tuple[list[float], str]:
    """The box around all landmarks in image heights, and 16-bit levels in it; 0 is missing."""
    points = inspected.clip.landmarks.astype(np.float64) * [inspected.clip.aspect, 1.0]
    is_known = np.asarray(np.isfinite(points).all(axis=-1))
    if not is_known.any():
        return [0.0, 0.0, 1.0, 1.0], _deflated(np.zeros(points.size, "<u2"))
    low, high = points[is_known].min(axis=0), points[is_known].max(axis=0)
    size = np.maximum(high - low, 1e-6)
    places = np.clip(np.nan_to_num((points - low) / size), 0.0, 1.0)
    levels = np.where(is_known[..., None], 1 + np.rint(places * _POINT_LEVELS), 0)
    steps = np.diff(levels.reshape(len(points), -1).astype("<u2"), axis=0, prepend=0)
    return [*low.tolist(), *size.tolist()], _deflated(steps.astype("<u2"))


def _bits(mask: Bool[np.ndarray, " T"]) -> str:
    return "".join("1" if is_set else "0" for is_set in mask.tolist())


def _deflated(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode("ascii")


MAX_BYTES = 14_800_000
MAX_CLIPS = 50
_SCRIPTS = ("decode.js", "drawing.js", "controls.js")
_REMARKS = {
    "heads": None,
    "mean": "To stay under 15 MB, the encoders' maps are means of their heads.",
    "last": "To stay under 15 MB, only the last encoders' maps are here, as means of their heads.",
    "none": "To stay under 15 MB, the encoders' maps are left out.",
}


class PageRun(NamedTuple):
    """A run's name, the loss its consistency is measured with, and its clips with all layers."""

    name: str
    cmcl: CMCLSettings
    clips: Sequence[MeasuredClip]


def write_page(path: Path, runs: Sequence[PageRun]) -> None:
    """Write the page; of one run, or of several on the same clips.

    At most 50 clips of each run are shown. Where the page would pass 15 MB, the encoders' maps
    lose their heads first, then the earlier ones go, then all; then clips go, from the last. The
    page says so.
    """
    library = _library()
    frame = len(_page({}, library))
    notes: list[str] = []
    count = len(runs[0].clips)
    if count > MAX_CLIPS:
        notes.append(f"Of {count} clips the page shows the first {MAX_CLIPS}.")
    room = MAX_BYTES - frame
    detail, packed = _as_much_as_fits(runs, room)
    remark = _REMARKS[detail]
    notes += [] if remark is None else [remark]
    before = len(packed[0]["clips"])
    while _size(packed) > room and len(packed[0]["clips"]) > 1:
        for run in packed:
            run["clips"].pop()
    if len(packed[0]["clips"]) < before:
        notes.append(f"To stay under 15 MB, the page shows the first {len(packed[0]['clips'])}.")
    page = _page(_data(packed, notes), library)
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="ascii", newline="\n")


def _as_much_as_fits(runs: Sequence[PageRun], room: int) -> tuple[Detail, list[dict[str, Any]]]:
    *richer, barest = get_args(Detail)
    for detail in richer:
        packed = [_packed_run(run, detail) for run in runs]
        if _size(packed) <= room:
            return detail, packed
    return barest, [_packed_run(run, barest) for run in runs]


def _packed_run(run: PageRun, detail: Detail) -> dict[str, Any]:
    return {
        "name": run.name,
        "cmcl": {"temperature": run.cmcl.temperature, "divergence": run.cmcl.divergence},
        "clips": [packed_clip(measured, detail) for measured in run.clips[:MAX_CLIPS]],
    }


def _size(packed: Sequence[Mapping[str, Any]]) -> int:
    return len(_json(packed))


def _data(packed: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> dict[str, Any]:
    return {
        "runs": packed,
        "notes": notes,
        "divergences": DIVERGENCES,
        "clear_lag": CLEAR,
        "edges": {
            "body": skeleton.BODY_EDGES,
            "left_hand": skeleton.LEFT_HAND_EDGES,
            "right_hand": skeleton.RIGHT_HAND_EDGES,
        },
        "origin": f"Made by slrctl {metadata.version('slrctl')}; charts by plotly.js (MIT).",
    }


def _library() -> str:
    """plotly.js as the Python package brings it."""
    return (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")


def _page(data: Mapping[str, Any], library: str) -> str:
    own = resources.files("slrctl.reports.attention_page")
    script = "".join((own / name).read_text("utf-8") for name in _SCRIPTS)
    parts = {
        "POLICY": "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"style-src 'unsafe-inline'; script-src {_hash(script)} {_hash(library)}",
        "VERSION": metadata.version("slrctl"),
        "STYLE": (own / "page.css").read_text("utf-8"),
        "SCRIPT": script,
        "LIBRARY": base64.b64encode(zlib.compress(library.encode(), 9)).decode("ascii"),
        "DATA": _json(data),
    }
    template = (own / "page.html").read_text("utf-8")
    # One pass: what is put in is not looked through for more places.
    return re.sub(r"%([A-Z]+)%", lambda found: parts[found[1]], template)


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _json(value: Any) -> str:
    """JSON that no text in it can end: `<` is written as an escape, and so is all beyond ASCII."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
