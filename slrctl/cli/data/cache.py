"""`slrctl data cache`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import SlrctlError, UsageError, count_of
from slrctl.files import user_cache_folder
from slrctl.layers import resolve

if TYPE_CHECKING:
    from slrctl.core.data.cache import CacheEntry, ClipCache


@opt.command()
def cache(
    ctx: typer.Context,
    info: Annotated[
        bool, opt.option("Show what is kept, as without any option.", None, "--info")
    ] = False,
    clear: Annotated[bool, opt.option("Remove all of it.", None, "--clear")] = False,
    config: opt.ConfigPath = None,
    overrides: opt.Overrides = None,
    as_json: opt.Json = False,
) -> None:
    """Show or clear the clips that are kept so that no file is read twice."""
    if info and clear:
        raise UsageError("--info and --clear: one shows what the other removes; give one")
    settings = resolve(opt.setting_layers(ctx)).settings.data
    from slrctl.core.data.cache import ClipCache

    kept = ClipCache(settings.cache_dir or user_cache_folder(), settings.cache_gigabytes)
    display = Display(as_json=as_json)
    display.json(_clear(kept, display) if clear else _show(kept, display))


def _clear(kept: "ClipCache", display: Display) -> dict[str, object]:
    try:
        count, num_bytes = kept.clear()
    except OSError as error:
        raise SlrctlError(
            f"{error.filename}: cannot be removed ({error.strerror}); remove it by hand"
        ) from None
    display.lines(f"{count_of(count, 'file')}, {_size(num_bytes)} removed from {kept.folder}")
    return {"folder": str(kept.folder), "files": count, "bytes": num_bytes}


def _show(kept: "ClipCache", display: Display) -> dict[str, object]:
    entries, unfinished = kept.entries(), kept.unfinished()
    total = sum(entry.num_bytes for entry in entries)
    if entries:
        headings = ["source", "clips are", "clips", "frames", "size", "last used"]
        display.table("", headings, [_row(entry) for entry in entries], num_texts=2)
    files = count_of(len(entries), "file")
    display.lines(f"{files}, {_size(total)} of {kept.gigabytes:g} GB in {kept.folder}")
    if unfinished:
        files = count_of(len(unfinished), "file")
        display.lines(f"{files} unfinished: being written, or left behind")
    return {
        "folder": str(kept.folder),
        "bytes": total,
        "limit_bytes": int(kept.gigabytes * 1e9),
        "unfinished": len(unfinished),
        "entries": [_as_json(entry) for entry in entries],
    }


def _row(entry: "CacheEntry") -> list[str]:
    size, used = _size(entry.num_bytes), _used(entry).isoformat(" ", "minutes")
    if entry.clips is None:
        return [entry.path.stem, "damaged", "", "", size, used]
    source, kind = entry.clips.about["source"], entry.clips.about["kind"]
    num_frames = int(entry.clips.lengths.sum())
    return [source, kind, f"{len(entry.clips):,}", f"{num_frames:,}", size, used]


def _as_json(entry: "CacheEntry") -> dict[str, object]:
    clips = entry.clips
    return {
        "key": entry.path.stem,
        "source": None if clips is None else clips.about["source"],
        "kind": "damaged" if clips is None else clips.about["kind"],
        "clips": None if clips is None else len(clips),
        "frames": None if clips is None else int(clips.lengths.sum()),
        "bytes": entry.num_bytes,
        "last_used": _used(entry).isoformat(timespec="seconds"),
    }


def _used(entry: "CacheEntry") -> datetime:
    return datetime.fromtimestamp(entry.used_seconds, UTC).astimezone().replace(microsecond=0)


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
