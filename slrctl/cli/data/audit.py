"""`slrctl data audit`."""

import math
from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import UsageError, count_of, some_of

if TYPE_CHECKING:
    from slrctl.core.data.audit.copies import Leak
    from slrctl.core.data.audit.leaks import Audit, Fixed

_GROUPS = ("signer", "session")
_KINDS = {
    "exact": "the same, landmark for landmark",
    "near": "a changed copy",
    "mirrored": "a copy in the mirror",
    "interpolated": "interpolated between others",
}
_BAR = 30


@opt.command()
def audit(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[SPLIT=]PATH", help="One file with a split column, or a file for each split."
        ),
    ],
    overrides: opt.Overrides = None,
    allow: Annotated[
        str, opt.option("What splits may share; it is told and no leak.", metavar="signer,session")
    ] = "",
    fix_path: Annotated[
        Path | None,
        opt.option("Write the clips without the leaks, as .parquet.", None, "--fix", metavar="OUT"),
    ] = None,
    fix_by: Annotated[
        Literal["drop", "move"],
        opt.option(
            "drop: take leaking clips out of training (of val where test is concerned), "
            "interpolated ones wherever they are; move: bring them together, in training."
        ),
    ] = "drop",
    most: Annotated[int, opt.option("Rows shown of each table.", least=1)] = 20,
    gloss_names: opt.GlossNames = None,
    frame_size: opt.FrameSize = None,
    skip_bad_clips: opt.SkipBadClips = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Look for leaks between the splits of a set; exit 1 where there are any.

    Leaks are copies of a clip in two splits (to the bit, or re-encoded, moved, scaled, turned,
    resampled, trimmed, jittered, mirrored), clips interpolated between two others, and signers and
    sessions in two splits unless --allow names them. Glosses that a split lacks are told too.
    """
    settings = opt.reading_settings(ctx)
    allowed = _allowed(allow)
    from slrctl.core.data.audit.leaks import audit_files

    found, notes, fixed = audit_files(sources, settings, fix_path, fix_by, force=force)
    display = Display(as_json=as_json)
    facts = found.to_json(allowed) | {"notes": notes}
    display.lines(*notes)
    _show(display, found, facts, allowed, most)
    if fixed is not None and fix_path is not None:
        _show_fixed(display, fixed, fix_path)
        facts["fixed"] = {
            "path": str(fix_path),
            "clips": len(fixed.clips),
            "dropped": fixed.dropped,
            "moved": fixed.moved,
            "leaks_left": len(fixed.remaining.leaks),
        }
    display.json(facts)
    if facts["leakage"]:
        raise typer.Exit(1)


def _allowed(text: str) -> frozenset[str]:
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    for name in sorted(names.difference(_GROUPS)):
        raise UsageError(f"--allow {name}: splits may share a signer or a session; name these")
    return names


def _show(
    display: Display, audit: "Audit", facts: dict[str, Any], allowed: Collection[str], most: int
) -> None:
    sizes = audit.sizes
    display.facts(
        {
            "splits": ", ".join(f"{count:,} {split}" for split, count in sizes.items()) + " clips",
            "copies": _said(audit, ("exact", "near", "mirrored"), "pair"),
            "interpolated": _said(audit, ("interpolated",), "clip"),
            "signers": _shared_line(audit, "signer", len(audit.signers)),
            "sessions": _shared_line(audit, "session", len(audit.sessions)),
            "glosses": _missing_line(audit.missing),
        }
    )
    first = partial(_show_first, display, most)
    first(
        "leaks between clips",
        ["clip", "in", "tells of", "in", "it is", "unexplained"],
        [
            [
                *_clip_and_split(audit, leak.first),
                _origin(audit, leak),
                audit.split(leak.second),
                _KINDS[leak.kind],
                f"{leak.unexplained:.4f}",
            ]
            for leak in audit.leaks
        ],
        5,
    )
    first(
        "people and sessions in several splits, in clips",
        ["", "name", *sizes],
        [
            [kind, name, *(f"{counts.get(split, 0):,}" for split in sizes)]
            for kind, groups in (("signer", audit.signers), ("session", audit.sessions))
            for name, counts in groups.items()
        ],
        2,
    )
    first(
        "ids that say they were made of a clip of another split (a hint)",
        ["clip", "in", "made of", "in"],
        [
            [*_clip_and_split(audit, row), *_clip_and_split(audit, origin)]
            for row, origin in audit.hints
        ],
        4,
    )
    _show_distances(display, facts)
    display.lines(_verdict(audit, allowed))


def _show_first(
    display: Display,
    most: int,
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    num_texts: int,
) -> None:
    """Show the first rows of a table, with their number; nothing without any row."""
    total = f"{len(rows):,}"
    if len(rows) > most:
        total = f"the first {most:,} of {total} (--most, --json)"
    if rows:
        display.table(f"{title}: {total}", headings, rows[:most], num_texts=num_texts)


def _said(audit: "Audit", kinds: Sequence[str], noun: str) -> str:
    found = [(kind, audit.count(kind)) for kind in kinds if audit.count(kind)]
    if not found:
        return "none found"
    listed = ", ".join(f"{count:,} {kind}" for kind, count in found)
    return f"{count_of(sum(count for _, count in found), noun)}: {listed}"


def _shared_line(audit: "Audit", kind: str, count: int) -> str:
    if all(getattr(clip, kind) is None for clip in audit.clips):
        return "not stated"
    return f"{count_of(count, kind)} in more than one split" if count else "none shared"


def _missing_line(missing: dict[str, list[str]]) -> str:
    if not missing:
        return "every split shows all of them"
    return "; ".join(
        f"{split} lacks {len(glosses)}: {some_of(glosses)}" for split, glosses in missing.items()
    )


def _clip_and_split(audit: "Audit", row: int) -> list[str]:
    return [audit.clips[row].clip_id, audit.split(row)]


def _origin(audit: "Audit", leak: "Leak") -> str:
    origin = audit.clips[leak.second].clip_id
    return origin if leak.third is None else f"{origin} + {audit.clips[leak.third].clip_id}"


def _show_distances(display: Display, facts: dict[str, Any]) -> None:
    """Show how alike clips of two splits are, beside takes of one split, and the threshold."""
    found = facts["unexplained"]
    edges = [*found["edges"], math.inf]
    columns = [found[side]["counts"] for side in ("across", "within")]
    rows = []
    for place, (low, high) in enumerate(pairwise(edges)):
        name = f"{low:g} to {high:g}" if math.isfinite(high) else f"{low:g} or more"
        cells = [(_bar(counts[place], sum(counts)), f"{counts[place]:,}") for counts in columns]
        rows.append([name, *cells[0], *cells[1]])
    display.table(
        "unexplained by the most alike clip",
        ["", "of another split", "clips", "of its own split", "clips asked"],
        rows,
        num_texts=2,
    )
    threshold, within = facts["copy_threshold"], found["within"]
    median, least = within["median"], within["least"]
    line = "most clips have nothing alike in their own split"
    if median is not None and least is not None:
        line = (
            f"the most alike take in its own split leaves {median:.3f} unexplained in the median, "
            f"{median / threshold:.0f} times as much, and never less than {least:.3f}"
        )
    display.lines(f"below {threshold:g} two clips are copies; {line}")


def _bar(count: int, total: int) -> str:
    return "█" * math.ceil(_BAR * count / max(total, 1))


def _verdict(audit: "Audit", allowed: Collection[str]) -> str:
    reasons = audit.leakage(allowed)
    if not reasons:
        return "no leakage found"
    line = f"leakage: {', '.join(reasons)}"
    if audit.leaks:
        line += "; --fix OUT writes a file without the leaking clips"
    elif "session" not in allowed or "signer" not in allowed:
        line += "; divide anew with slrctl data split --by signer, or --allow it"
    return line


def _show_fixed(display: Display, fixed: "Fixed", path: Path) -> None:
    changed = [
        f"{sum(counts.values()):,} clips {word} "
        f"({', '.join(f'{count:,} of {split}' for split, count in counts.items())})"
        for word, counts in (("dropped", fixed.dropped), ("moved", fixed.moved))
        if counts
    ]
    display.lines(
        f"{len(fixed.clips):,} clips written to {path}: {'; '.join(changed) or 'nothing to change'}"
    )
    if fixed.remaining.leaks:
        display.lines(
            f"warning: {len(fixed.remaining.leaks):,} leaks are left; run the audit on that file"
        )
    if fixed.remaining.signers or fixed.remaining.sessions:
        display.lines(
            "signers and sessions are as they were: whole people are moved by slrctl data split"
        )
