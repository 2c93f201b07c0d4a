"""`slrctl data split`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from slrctl.cli.console import console_for, print_json, print_lines, print_table, report_errors
from slrctl.cli.options import (
    OUTPUT,
    Clips,
    Force,
    Json,
    Overrides,
    SkipBadClips,
    command,
    option,
    reading_settings,
)
from slrctl.errors import UsageError

if TYPE_CHECKING:
    from slrctl.core.data.splitter import SplitCounts, Unit

# Names of people or sessions listed for a split; all of them are in --json.
_MOST_NAMED = 12


def _names_option(split: str, unit: str) -> Any:
    return option(
        f"{unit.title()}s whose clips go to {split}.",
        "Named signers or sessions",
        f"--{split}-{unit}s",
        metavar="A,B",
    )


@command()
def split(
    ctx: typer.Context,
    path: Clips,
    overrides: Overrides = None,
    by: Annotated[
        Literal["signer", "session", "random"] | None,
        option("Keep signers or sessions whole, or divide clip by clip."),
    ] = None,
    val_share: Annotated[float, option("Share of clips to validate on.", least=0, most=0.9)] = 0.15,
    test_share: Annotated[float, option("Share of clips to test on.", least=0, most=0.9)] = 0.15,
    seed: Annotated[int, option("Decides among choices as good.", least=0)] = 379,
    skip_bad_clips: SkipBadClips = None,
    train_signers: Annotated[str | None, _names_option("train", "signer")] = None,
    val_signers: Annotated[str | None, _names_option("val", "signer")] = None,
    test_signers: Annotated[str | None, _names_option("test", "signer")] = None,
    train_sessions: Annotated[str | None, _names_option("train", "session")] = None,
    val_sessions: Annotated[str | None, _names_option("val", "session")] = None,
    test_sessions: Annotated[str | None, _names_option("test", "session")] = None,
    output: Annotated[
        Path | None,
        option("Parquet to write; PATH itself if absent.", OUTPUT, metavar="OUT"),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Divide clips into train, val and test, and write that into the split column.

    Every gloss gets its share in each split as nearly as can be. People or sessions that are named
    go where they are named for; all others are divided by --by, and without it they train.
    """
    with report_errors():
        settings = reading_settings(ctx)
        unit, named = _named(
            {"train": train_signers, "val": val_signers, "test": test_signers},
            {"train": train_sessions, "val": val_sessions, "test": test_sessions},
        )
        if by is None and not named:
            raise UsageError(
                "say how to divide: --by signer, --by session or --by random, or name people with "
                "--test-signers A,B"
            )
        from slrctl.core.data.conversion import split_file

        written = split_file(
            path,
            output,
            settings,
            by,
            shares={"val": val_share, "test": test_share},
            seed=seed,
            unit=unit,
            named=named,
            force=force,
        )
        console = console_for(as_json=as_json)
        _show(console, written.counts, unit if named else by)
        print_lines(console, [*written.notes, f"written to {written.output}"])
        if as_json:
            facts = {"path": str(path), "output": str(written.output), "by": by, "seed": seed}
            parts = [{"part": name, **found._asdict()} for name, found in written.counts.items()]
            print_json({**facts, "parts": parts, "notes": written.notes})


def _named(
    signers: dict[str, str | None], sessions: dict[str, str | None]
) -> "tuple[Unit, dict[str, list[str]]]":
    """Read the names for each split, and whether signers or sessions are named."""
    if any(map(_is_given, signers.values())) and any(map(_is_given, sessions.values())):
        raise UsageError("signers and sessions are both named; name one or the other")
    unit: Unit = "session" if any(map(_is_given, sessions.values())) else "signer"
    named = {}
    for split, text in (sessions if unit == "session" else signers).items():
        if text is None:
            continue
        named[split] = [name.strip() for name in text.split(",") if name.strip()]
        if not named[split]:
            raise UsageError(f"--{split}-{unit}s {text!r}: names nobody; expected A,B")
    return unit, named


def _is_given(text: str | None) -> bool:
    return text is not None


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
