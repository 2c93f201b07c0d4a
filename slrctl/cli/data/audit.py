"""`slrctl data audit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slrctl.cli.console import console_for, print_json, print_lines, report_errors
from slrctl.cli.data.audit_views import audit_facts, show_audit, show_fixed
from slrctl.cli.data.options import Force, reading_settings
from slrctl.cli.options import FrameSize, GlossNames, Json, Overrides, SkipBadClips, command
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.core.data.audit.leaks import Audit, Fixed

_GROUPS = ("signer", "session")


@command()
def audit(
    ctx: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="[SPLIT=]PATH...",
            help="One file with a split column, or a file for each split.",
        ),
    ],
    allow: Annotated[
        str,
        typer.Option(
            metavar="signer,session", help="What splits may share; it is told and no leak."
        ),
    ] = "",
    fix_path: Annotated[
        Path | None,
        typer.Option(
            "--fix", metavar="OUT", help="Write the clips without the leaks, as .parquet."
        ),
    ] = None,
    fix_by: Annotated[
        Literal["drop", "move"],
        typer.Option(
            help="drop: take leaking clips out of training (of val where test is concerned), "
            "interpolated ones wherever they are; move: bring them together, in training."
        ),
    ] = "drop",
    most: Annotated[int, typer.Option("--most", min=1, help="Rows shown of each table.")] = 20,
    gloss_names: GlossNames = None,
    frame_size: FrameSize = None,
    skip_bad_clips: SkipBadClips = None,
    force: Force = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Look for leaks between the splits of a set; exit 1 where there are any.

    Leaks are copies of a clip in two splits (to the bit, or re-encoded, moved, scaled, turned,
    resampled, trimmed, jittered, mirrored), clips interpolated between two others, and signers and
    sessions in two splits unless --allow names them. Glosses that a split lacks are told too.
    """
    with report_errors():
        settings = reading_settings(ctx)
        allowed = _allowed(allow)
        from slrctl.core.data.audit.leaks import audit_splits, fix, read_splits, split_file
        from slrctl.core.data.writers import check_output

        if fix_path is not None:
            _check_fix(fix_path)
            check_output(fix_path, force=force)
        console = console_for(as_json=as_json)
        read = read_splits([split_file(source) for source in sources], settings)
        print_lines(console, read.notes)
        found = audit_splits(read.clips)
        show_audit(console, found, allowed, most)
        facts = audit_facts(found, allowed) | {"notes": read.notes}
        if fix_path is not None:
            fixed = fix(found, fix_by)
            _write(fixed, fix_path)
            show_fixed(console, found, fixed, fix_path)
            facts["fixed"] = _fixed_facts(fixed, fix_path)
        if as_json:
            print_json(facts)
        if facts["leakage"]:
            raise typer.Exit(1)


def _allowed(text: str) -> frozenset[str]:
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    for name in sorted(names.difference(_GROUPS)):
        raise UsageError(f"--allow {name}: splits may share a signer or a session; name these")
    return names


def _check_fix(path: Path) -> None:
    if path.suffix.lower() not in (".parquet", ".pq"):
        raise UsageError(
            f"--fix {path}: is written as our Parquet, which keeps the splits; name a .parquet file"
        )


def _write(fixed: "Fixed", path: Path) -> None:
    from slrctl.core.data.audit.leaks import with_own_ids
    from slrctl.core.data.writers import write_clips

    write_clips(with_own_ids(fixed.clips), path)


def _fixed_facts(fixed: "Fixed", path: Path) -> "dict[str, object]":
    remaining: Audit = fixed.remaining
    return {
        "path": str(path),
        "clips": len(fixed.clips),
        "dropped": fixed.dropped,
        "moved": fixed.moved,
        "leaks_left": len(remaining.leaks),
    }
