"""`slrctl data cache`."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.options import ConfigPath, Json, Overrides, command, setting_layers, switch
from slrctl.errors import SlrctlError, UsageError
from slrctl.files import user_cache_folder
from slrctl.layers import resolve

if TYPE_CHECKING:
    from slrctl.core.data.cache import CacheEntry, ClipCache


@command()
def cache(
    ctx: typer.Context,
    info: Annotated[bool, switch("--info", "Show what is kept, as without any option.")] = False,
    clear: Annotated[bool, switch("--clear", "Remove all of it.")] = False,
    config: ConfigPath = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show or clear the clips that are kept so that no file is read twice."""
    with report_errors():
        if info and clear:
            raise UsageError("--info and --clear: one shows what the other removes; give one")
        settings = resolve(setting_layers(ctx)).settings.data
        from slrctl.core.data.cache import ClipCache

        kept = ClipCache(settings.cache_dir or user_cache_folder(), settings.cache_gigabytes)
        console = console_for(as_json=as_json)
        facts = _clear(kept, console) if clear else _show(kept, console)
        if as_json:
            print_json(facts)


def _clear(kept: "ClipCache", console: Console) -> dict[str, object]:
    try:
        count, num_bytes = kept.clear()
    except OSError as error:
        raise SlrctlError(
            f"{error.filename}: cannot be removed ({error.strerror}); remove it by hand"
        ) from None
    print_lines(console, [f"{_files(count)}, {_size(num_bytes)} removed from {kept.folder}"])
    return {"folder": str(kept.folder), "files": count, "bytes": num_bytes}


def _show(kept: "ClipCache", console: Console) -> dict[str, object]:
    entries, unfinished = kept.entries(), kept.unfinished()
    total = sum(entry.num_bytes for entry in entries)
    if entries:
        headings = ["source", "clips are", "clips", "frames", "size", "last used"]
        print_table(console, "", headings, [_row(entry) for entry in entries], num_texts=2)
    lines = [f"{_files(len(entries))}, {_size(total)} of {kept.gigabytes:g} GB in {kept.folder}"]
    if unfinished:
        lines.append(f"{_files(len(unfinished))} unfinished: being written, or left behind")
    print_lines(console, lines)
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


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"
