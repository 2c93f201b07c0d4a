"""Write what was asked for about inspected clips: pictures, data, a page."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from slrctl.errors import SlrctlError
from slrctl.reports.attention_data import write_json, write_npz
from slrctl.studies.inspection.measures import MeasuredClip
from slrctl.studies.inspection.opened import OpenedRun
from slrctl.studies.inspection.record import FUSION

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
            write_json(path, alone, source)
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
