"""Files that `slrctl inspect-attention` writes: pictures, data, a page."""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slrctl.files import replacing, write_json, write_text, writing_to
from slrctl.reports.attention_figures import (
    draw_comparison,
    draw_consistency,
    draw_faithfulness,
    draw_heads,
    draw_lags,
    draw_maps,
    draw_mean_maps,
)
from slrctl.reports.attention_page import PageRun, write_page
from slrctl.reports.tables import write_csv
from slrctl.studies.attention.faithfulness import Faithfulness
from slrctl.studies.attention.inspect import OpenedRun
from slrctl.studies.attention.measures import MeasuredClip, as_json
from slrctl.studies.attention.record import FUSION, InspectedClip
from slrctl.studies.attention.summary import BOTH_WAYS, AttentionSummary


def _facts(measured: MeasuredClip, source: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the source, the clip, the prediction and the numbers."""
    inspected, clip = measured.inspected, measured.inspected.clip
    names = ("clip_id", "gloss", "signer", "session", "fps", "aspect", "num_frames")
    return {
        "format": "slrctl attention 1",
        **source,
        "clip": {name: getattr(clip, name) for name in names},
        "prediction": inspected.prediction_json(),
        "axes": {
            layer: {
                m.name: {"reader": m.reader, "read": m.read, "shape": list(m.weights.shape)}
                for m in maps
            }
            for layer, maps in inspected.layers.items()
        },
        **measured.measures.to_json(),
        "misplaced": inspected.misplaced,
    }


def _arrays(inspected: InspectedClip) -> dict[str, np.ndarray]:
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


_PICTURES = ("png", "svg", "pdf")


def _write(
    folder: Path, formats: Collection[str], *files: tuple[str, str, Callable[..., object]]
) -> list[Path]:
    """Write the files whose format was asked for, and return their paths.

    Each file is a name, a format and its writer; a picture has every format of pictures.
    """
    paths = []
    for name, kind, write in files:
        suffixes = _PICTURES if kind == "picture" else (kind,)
        targets = [folder / f"{name}.{suffix}" for suffix in suffixes if suffix in formats]
        if targets:
            with writing_to(folder):
                write(*targets)
        paths += targets
    return paths


def write_clips(
    folder: Path,
    formats: Collection[str],
    runs: Sequence[OpenedRun],
    measured: Sequence[Sequence[MeasuredClip]],
    layer: str,
) -> list[Path]:
    """Write files of every format but the terminal's, and return their paths.

    Args:
        folder: made if it is not there.
        formats: some of terminal, png, svg, pdf, html, npz and json.
        runs: one run, or two; files of the second go to the folder `compared`, but for the page,
            which has both, and a picture of both.
        measured: the clips of each run, in the same order.
        layer: the one that pictures and data show.
    """
    pairs = zip(runs, measured, strict=True)
    page = [PageRun(run.name, run.run.settings.cmcl, clips) for run, clips in pairs]
    paths = _write(folder, formats, ("attention", "html", partial(write_page, runs=page)))
    if len(runs) > 1 and all(run.has_fusion for run in runs):
        names = [run.name for run in runs]
        for name, *clips in zip(_file_names(measured[0]), *measured, strict=True):
            draw = partial(draw_comparison, [one.inspected for one in clips], names)
            paths += _write(folder, formats, (f"{name}-compared", "picture", draw))
    for run, clips, place in zip(runs, measured, (folder, folder / "compared"), strict=False):
        shown = run.layer(layer)
        for name, one in zip(_file_names(clips), clips, strict=True):
            drawn = [("maps", partial(draw_maps, one.inspected, shown))]
            drawn.append(("heads", partial(draw_heads, one.inspected, shown)))
            if not math.isnan(one.measures.divergence):
                drawn.append(("consistency", partial(draw_consistency, one, run.run.settings.cmcl)))
            # Like the pictures, data hold the layer asked for; a page switches between layers.
            alone = one._replace(inspected=one.inspected.with_layers({FUSION, shown}))
            paths += _write(
                place,
                formats,
                *((f"{name}-{kind}", "picture", draw) for kind, draw in drawn),
                (name, "npz", partial(write_clip_npz, measured=alone, source=run.source())),
                (name, "json", partial(write_clip_json, measured=alone, source=run.source())),
            )
    return paths


def _file_names(clips: Sequence[MeasuredClip]) -> list[str]:
    """Name each clip's files: its id as far as any file system takes it, numbered."""
    width = len(str(len(clips)))
    names = []
    for number, one in enumerate(clips, start=1):
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", one.inspected.clip.clip_id).strip("-.")[:60]
        names.append(f"{number:0{width}}-{plain}".strip("-"))
    return names


def write_summary(
    folder: Path, formats: Collection[str], summary: AttentionSummary, whole: dict[str, Any]
) -> list[Path]:
    """Write the files about a summary; `whole` is its JSON. The CSV goes with the npz."""
    drawn = []
    if with_maps := [one for one in summary.glosses if np.isfinite(one.mean).any()]:
        drawn.append(("mean-maps", "picture", partial(draw_mean_maps, with_maps)))
    if with_lags := [one for one in summary.glosses if one.lags]:
        drawn.append(("lags", "picture", partial(draw_lags, with_lags)))
    return _write(
        folder,
        {*formats, "csv"} if "npz" in formats else formats,
        ("summary", "json", partial(write_json, value=whole)),
        ("summary", "npz", partial(write_summary_npz, summary=summary)),
        ("clips", "csv", partial(write_clips_csv, summary=summary)),
        *drawn,
    )


def write_difference(folder: Path, whole: dict[str, Any]) -> None:
    """Write how two runs differ; `whole` is its JSON."""
    _write(folder, ("json",), ("difference", "json", partial(write_json, value=whole)))


def write_faithfulness(
    folder: Path, formats: Collection[str], found: Faithfulness, whole: dict[str, Any]
) -> list[Path]:
    """Write the files about faithfulness; `whole` is its JSON."""
    return _write(
        folder,
        formats,
        ("faithfulness", "json", partial(write_json, value=whole)),
        ("faithfulness", "npz", partial(write_faithfulness_npz, found=found)),
        ("faithfulness", "picture", partial(draw_faithfulness, found)),
    )
