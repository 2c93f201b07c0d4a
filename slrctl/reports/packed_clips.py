"""Inspected clips as a page carries them: few bytes, which its script unpacks.

A map is 8 bits a cell, the square root of where the weight lies between the smallest and the
largest of its head, so that small weights keep more levels. Rows change slowly from frame to frame:
what is compressed is their difference to the row above, modulo 256.
"""

import base64
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from slrctl.reports.attention_data import numbers, prediction
from slrctl.studies.inspection.measures import MeasuredClip
from slrctl.studies.inspection.record import AttentionMap, InspectedClip

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
