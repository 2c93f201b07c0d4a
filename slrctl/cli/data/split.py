"""`slrctl data split`."""

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from slrctl.cli import options as opt
from slrctl.cli.console import Display
from slrctl.errors import UsageError
from slrctl.reports.tables import percent

if TYPE_CHECKING:
    from slrctl.core.data.splitter import SplitCounts, Unit

# Names of people or sessions listed for a split; all of them are in --json.
_MOST_NAMED = 12


def _names_option(split: str, unit: str) -> Any:
    return opt.option(
        f"{unit.title()}s whose clips go to {split}.",
        "Named signers or sessions",
        f"--{split}-{unit}s",
        metavar="A,B",
    )


@opt.command()
def split(
    ctx: typer.Context,
    path: opt.Clips,
    overrides: opt.Overrides = None,
    by: Annotated[
        Literal["signer", "session", "random"] | None,
        opt.option("Keep signers or sessions whole, or divide clip by clip."),
    ] = None,
    val_share: Annotated[
        float, opt.option("Share of clips to validate on.", least=0, most=0.9)
    ] = 0.15,
    test_share: Annotated[
        float, opt.option("Share of clips to test on.", least=0, most=0.9)
    ] = 0.15,
    seed: Annotated[int, opt.option("Decides among choices as good.", least=0)] = 379,
    skip_bad_clips: opt.SkipBadClips = None,
    train_signers: Annotated[str | None, _names_option("train", "signer")] = None,
    val_signers: Annotated[str | None, _names_option("val", "signer")] = None,
    test_signers: Annotated[str | None, _names_option("test", "signer")] = None,
    train_sessions: Annotated[str | None, _names_option("train", "session")] = None,
    val_sessions: Annotated[str | None, _names_option("val", "session")] = None,
    test_sessions: Annotated[str | None, _names_option("test", "session")] = None,
    output: Annotated[
        Path | None,
        opt.option("Parquet to write; PATH itself if absent.", opt.OUTPUT, metavar="OUT"),
    ] = None,
    force: opt.Force = False,
    as_json: opt.Json = False,
) -> None:
    """Divide clips into train, val and test, and write that into the split column.

    Every gloss gets its share in each split as nearly as can be. People or sessions that are named
    go where they are named for; all others are divided by --by, and without it they train.
    """
    settings = opt.reading_settings(ctx)
    unit, named = _named(ctx.params)
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
    display = Display(as_json=as_json)
    _show(display, written.counts, unit if named else by)
    display.lines(*written.notes, f"written to {written.output}")
    facts = {"path": str(path), "output": str(written.output), "by": by, "seed": seed}
    parts = [{"part": name, **found._asdict()} for name, found in written.counts.items()]
    display.json({**facts, "parts": parts, "notes": written.notes})


def _named(params: dict[str, Any]) -> "tuple[Unit, dict[str, list[str]]]":
    """Read the names for each split, and whether they are signers' or sessions'."""
    units: tuple[Unit, Unit] = ("signer", "session")
    given: dict[Unit, dict[str, list[str]]] = {unit: {} for unit in units}
    for unit, split in product(units, ("train", "val", "test")):
        text = params[f"{split}_{unit}s"]
        if text is None:
            continue
        given[unit][split] = [name.strip() for name in text.split(",") if name.strip()]
        if not given[unit][split]:
            raise UsageError(f"--{split}-{unit}s {text!r}: names nobody; expected A,B")
    if all(given.values()):
        raise UsageError("signers and sessions are both named; name one or the other")
    unit = "session" if given["session"] else "signer"
    return unit, given[unit]


def _show(display: Display, counts: "dict[str, SplitCounts]", unit: str | None) -> None:
    total = sum(split.clips for split in counts.values())
    display.table(
        "",
        ["split", "clips", "share", "glosses", "signers", "sessions"],
        [
            (
                name,
                f"{split.clips:,}",
                percent(split.clips / total),
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
            display.lines(f"{name}: {unit}s {shown}{more}")
