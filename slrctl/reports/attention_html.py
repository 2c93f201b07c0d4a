"""An offline page about inspected clips: one file that asks nothing of any network.

Charts are drawn by plotly.js, which lies in the page as well. Text from users' files reaches it as
JSON and is shown as text: nothing of it is ever markup or script, and the page's policy runs no
script but the two it came with.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple, get_args

from slrctl.core import skeleton
from slrctl.engine.files import replacing
from slrctl.reports.packed_clips import Detail, packed_clip
from slrctl.reports.part_names import DIVERGENCES
from slrctl.settings import CMCLSettings
from slrctl.studies.inspection.lag import CLEAR
from slrctl.studies.inspection.measures import MeasuredClip

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
