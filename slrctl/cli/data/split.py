"""`slrctl data split`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.data.options import Force, reading_settings
from slrctl.cli.options import Json, Overrides, SkipBadClips, command
from slrctl.errors import DataError, UsageError

if TYPE_CHECKING:
    from slrctl.core.clip import Clip
    from slrctl.core.data.splitter import SplitCounts, Unit

# Names of people or sessions listed for a split; all of them are in --json.
_MOST_NAMED = 12


def _names_option(split: str, unit: str) -> Any:
    return typer.Option(
        f"--{split}-{unit}s", metavar="A,B", help=f"{unit.title()}s whose clips go to {split}."
    )


@command()
def split(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Clips in any format we read.")],
    by: Annotated[
        Literal["signer", "session", "random"] | None,
        typer.Option("--by", help="Keep signers or sessions whole, or divide clip by clip."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="OUT", help="Parquet to write; PATH itself if absent."),
    ] = None,
    val_share: Annotated[
        float, typer.Option("--val-share", min=0, max=0.9, help="Share of clips to validate on.")
    ] = 0.15,
    test_share: Annotated[
        float, typer.Option("--test-share", min=0, max=0.9, help="Share of clips to test on.")
    ] = 0.15,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Decides among choices as good.")
    ] = 379,
    train_signers: Annotated[str | None, _names_option("train", "signer")] = None,
    val_signers: Annotated[str | None, _names_option("val", "signer")] = None,
    test_signers: Annotated[str | None, _names_option("test", "signer")] = None,
    train_sessions: Annotated[str | None, _names_option("train", "session")] = None,
    val_sessions: Annotated[str | None, _names_option("val", "session")] = None,
    test_sessions: Annotated[str | None, _names_option("test", "session")] = None,
    skip_bad_clips: SkipBadClips = None,
    force: Force = False,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Divide clips into train, val and test, and write that into the split column.

    Every gloss gets its share in each split as nearly as can be. People or sessions that are named
    go where they are named for; all others are divided by --by, and without it they train.
    """
    with report_errors():
        settings = reading_settings(ctx)
        chosen = _chosen(
            {"train": train_signers, "val": val_signers, "test": test_signers},
            {"train": train_sessions, "val": val_sessions, "test": test_sessions},
        )
        if by is None and chosen is None:
            raise UsageError(
                "say how to divide: --by signer, --by session or --by random, or name people with "
                "--test-signers A,B"
            )
        from slrctl.core.data.selection import read_sources
        from slrctl.core.data.splitter import count_splits, split_clips, split_warnings
        from slrctl.core.data.writers import write_clips

        target = _target(path, output, force=force)
        read = read_sources([path], settings)
        if read.dropped and target == path:
            raise UsageError(f"{path}: its bad clips would be lost; write to another --output")
        unit, named = chosen or ("signer", {})
        clips = split_clips(
            read.clips,
            by,
            val_share=val_share,
            test_share=test_share,
            seed=seed,
            unit=unit,
            named=named,
        )
        counts = count_splits(clips)
        # Where people are named, the others are fewer, and what was wanted is a share of those.
        wanted = {"val": val_share, "test": test_share} if by and not named else {}
        notes = [*read.notes, *_replaced(read.clips), *split_warnings(counts, wanted)]
        write_clips(clips, target)
        console = console_for(as_json=as_json)
        _show(console, counts, unit if named else by)
        print_lines(console, [*notes, f"written to {target}"])
        if as_json:
            facts = {"path": str(path), "output": str(target), "by": by, "seed": seed}
            parts = [{"part": name, **split._asdict()} for name, split in counts.items()]
            print_json({**facts, "parts": parts, "notes": notes})


def _chosen(
    signers: dict[str, str | None], sessions: dict[str, str | None]
) -> "tuple[Unit, dict[str, list[str]]] | None":
    """The unit that is named, and the names for each split."""
    found: dict[Unit, dict[str, list[str]]] = {}
    units: tuple[tuple[Unit, dict[str, str | None]], ...] = (
        ("signer", signers),
        ("session", sessions),
    )
    for unit, texts in units:
        for split, text in texts.items():
            if text is None:
                continue
            names = [name.strip() for name in text.split(",") if name.strip()]
            if not names:
                raise UsageError(f"--{split}-{unit}s {text!r}: names nobody; expected A,B")
            found.setdefault(unit, {})[split] = names
    if len(found) > 1:
        raise UsageError("signers and sessions are both named; name one or the other")
    return next(iter(found.items()), None)


def _target(path: Path, output: Path | None, *, force: bool) -> Path:
    """The file to write; the source itself only if it is ours, and nothing in it would be lost."""
    from slrctl.core.data.readers.parquet import other_columns, recognises
    from slrctl.core.data.writers import check_output

    if output is not None:
        if output.suffix.lower() == ".csv":
            raise UsageError(
                f"--output {output}: the CSV layout has no split column; let it end in .parquet"
            )
        is_source = path.exists() and output.exists() and path.samefile(output)
        if not is_source:
            check_output(output, force=force)
            return output
    if not path.exists():
        raise DataError(f"{path}: is not there; check the path")
    try:
        is_ours = recognises(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not is_ours:
        raise UsageError(
            f"{path}: is not our Parquet, so it has no split column to write; name a file with "
            "--output"
        )
    others = other_columns(path)
    if others:
        raise UsageError(
            f"{path}: has columns that would be lost ({', '.join(others)}); write to another file "
            "with --output"
        )
    if not force:
        raise UsageError(
            f"{path}: its split column would be written over; pass --force, or name another file "
            "with --output"
        )
    return path


def _replaced(clips: "list[Clip]") -> list[str]:
    had = sum(clip.split is not None for clip in clips)
    return [f"the split column said something of {had:,} clips before: replaced"] if had else []


def _show(console: Console, counts: "dict[str, SplitCounts]", unit: str | None) -> None:
    total = sum(split.clips for split in counts.values())
    print_table(
        console,
        "",
        ["split", "clips", "share", "glosses", "signers", "sessions"],
        [
            (
                name,
                f"{split.clips:,}",
                f"{100 * split.clips / total:.1f} %",
                str(len(split.glosses)),
                str(len(split.signers)) if split.signers else "-",
                str(len(split.sessions)) if split.sessions else "-",
            )
            for name, split in counts.items()
        ],
    )
    for name, split in counts.items():
        names = {"signer": split.signers, "session": split.sessions}.get(unit or "", ())
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED)
            shown = ", ".join(names[:_MOST_NAMED])
            print_lines(console, [f"{name}: {unit}s {shown}{more}"])
