"""An offline page about inspected clips: one file that asks nothing of any network.

Charts are drawn by plotly.js, which lies in the page as well. Text from users' files reaches it as
JSON and is shown as text: nothing of it is ever markup or script, and the page's policy runs no
script but the two it came with. Markup, style and scripts are in the folder `web`.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from slrctl.core import skeleton
from slrctl.files import replacing
from slrctl.reports.attention_figures import DIVERGENCES, STREAM_NAMES
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import CLEAR, MeasuredClip
from slrctl.studies.attention.record import AttentionMap, InspectedClip

MAX_BYTES = 14_800_000
MAX_CLIPS = 50


class PageRun(NamedTuple):
    """A run's name, the loss its consistency is measured with, and its clips with all layers."""

    name: str
    cmcl: CMCLSettings
    clips: Sequence[MeasuredClip]


def _json(value: Any) -> str:
    """Write JSON that no text in it can end: `<` and all beyond ASCII are escapes."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _packed(content: bytes, level: int = 6) -> str:
    return base64.b64encode(zlib.compress(content, level)).decode("ascii")


def _packed_map(found: AttentionMap, *, is_averaged: bool) -> dict[str, Any]:
    """Pack the range of each head, and its 8-bit levels as differences to the row above."""
    weights = found.mean[None] if is_averaged else found.weights
    counted = weights[:, found.rows_count][:, :, found.keys_count].reshape(len(weights), -1)
    low, high = counted.min(axis=1, initial=1.0), counted.max(axis=1, initial=0.0)
    span = np.maximum(high - low, np.finfo(np.float32).tiny)
    places = np.clip((weights - low[:, None, None]) / span[:, None, None], 0.0, 1.0)
    levels = np.where(found.keys_count, np.rint(np.sqrt(places) * 255), 0).astype(np.uint8)
    return {
        "name": found.name,
        "reader": found.reader,
        "read": found.read,
        "rows": weights.shape[1],
        "columns": weights.shape[2],
        "is_averaged": is_averaged,
        "low": low.tolist(),
        "high": high.tolist(),
        "bytes": _packed(np.diff(levels, axis=1, prepend=np.uint8(0)).tobytes()),
    }


def _packed_landmarks(inspected: InspectedClip) -> tuple[list[float], str]:
    """Pack the box around all landmarks in image heights, and 16-bit levels in it, 0 if missing."""
    points = inspected.clip.landmarks.astype(np.float64) * [inspected.clip.aspect, 1.0]
    is_known = np.asarray(np.isfinite(points).all(axis=-1))
    if not is_known.any():
        return [0.0, 0.0, 1.0, 1.0], _packed(bytes(2 * points.size))
    low, high = points[is_known].min(axis=0), points[is_known].max(axis=0)
    size = np.maximum(high - low, 1e-6)
    places = np.clip(np.nan_to_num((points - low) / size), 0.0, 1.0)
    levels = np.where(is_known[..., None], 1 + np.rint(places * 65534), 0).astype("<u2")
    steps = np.diff(levels, axis=0, prepend=np.uint16(0))
    return [*low.tolist(), *size.tolist()], _packed(steps.tobytes())


def _packed_clip(
    measured: MeasuredClip, num_encoders: int | None, *, has_heads: bool
) -> dict[str, Any]:
    """Pack what the page shows of a clip; of the encoders the last ones, or all."""
    inspected, clip = measured.inspected, measured.inspected.clip
    encoders = [name for name in inspected.layers if name.startswith("encoder")]
    left_out = [] if num_encoders is None else encoders[: len(encoders) - num_encoders]
    box, landmarks = _packed_landmarks(inspected)
    names = ("clip_id", "gloss", "signer", "fps", "num_frames")
    return {
        **{name: getattr(clip, name) for name in names},
        "prediction": inspected.prediction_json(),
        "numbers": measured.measures.to_json(),
        "left_is_present": inspected.is_present["left_hand"].astype(int).tolist(),
        "right_is_present": inspected.is_present["right_hand"].astype(int).tolist(),
        "box": box,
        "landmarks": landmarks,
        "layers": [
            {
                "name": name,
                "maps": [
                    _packed_map(found, is_averaged=name in encoders and not has_heads)
                    for found in maps
                ],
            }
            for name, maps in inspected.layers.items()
            if name not in left_out
        ],
    }


def write_page(path: Path, runs: Sequence[PageRun]) -> None:
    """Write the page; of one run, or of several on the same clips.

    At most 50 clips of each run are shown. Where the page would pass 15 MB, the encoders' maps
    lose their heads first, then the earlier ones go, then all; then clips go, from the last. The
    page says so.
    """
    library = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    room = MAX_BYTES - len(_page({}, library))
    packed: list[dict[str, Any]] = []
    losses: list[str] = []
    for num_encoders, *losses in (
        (None,),
        (None, "the encoders' maps are means of their heads"),
        (1, "only the last encoders' maps are here, as means of their heads"),
        (0, "the encoders' maps are left out"),
    ):
        packed = [
            {
                "name": run.name,
                "cmcl": {"temperature": run.cmcl.temperature, "divergence": run.cmcl.divergence},
                "clips": [
                    _packed_clip(measured, num_encoders, has_heads=not losses)
                    for measured in run.clips[:MAX_CLIPS]
                ],
            }
            for run in runs
        ]
        if len(_json(packed)) <= room:
            break
    clips = packed[0]["clips"]
    num_clips = len(clips)
    while len(_json(packed)) > room and len(clips) > 1:
        for run in packed:
            run["clips"].pop()
    if len(clips) < num_clips:
        losses.append(f"the page shows the first {len(clips)}")
    notes = [f"To stay under 15 MB, {loss}." for loss in losses]
    if len(runs[0].clips) > MAX_CLIPS:
        notes.insert(0, f"Of {len(runs[0].clips)} clips the page shows the first {MAX_CLIPS}.")
    data = {
        "runs": packed,
        "notes": notes,
        "streams": STREAM_NAMES,
        "divergences": DIVERGENCES,
        "clear_lag": CLEAR,
        "edges": {
            "body": skeleton.BODY_EDGES,
            "left_hand": skeleton.LEFT_HAND_EDGES,
            "right_hand": skeleton.RIGHT_HAND_EDGES,
        },
        "origin": f"Made by slrctl {metadata.version('slrctl')}; charts by plotly.js (MIT).",
    }
    with replacing(path) as unfinished:
        unfinished.write_text(_page(data, library), encoding="ascii", newline="\n")


def _page(data: Mapping[str, Any], library: str) -> str:
    web = resources.files("slrctl.reports") / "web"
    names = ("decode.js", "drawing.js", "controls.js")
    script = "".join((web / name).read_text("utf-8") for name in names)
    digests = [hashlib.sha256(each.encode()).digest() for each in (script, library)]
    allowed = " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests)
    contents = {
        "POLICY": "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"style-src 'unsafe-inline'; script-src {allowed}",
        "VERSION": metadata.version("slrctl"),
        "STYLE": (web / "page.css").read_text("utf-8"),
        "SCRIPT": script,
        "LIBRARY": _packed(library.encode(), 9),
        "DATA": _json(data),
    }
    template = (web / "page.html").read_text("utf-8")
    # One pass: inserted text is not searched for further marks.
    return re.sub(r"%([A-Z]+)%", lambda found: contents[found[1]], template)
