"""Choose by person who trains, who validates and who tests."""

import difflib
from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.formats.reading import count_of, quote, some_of
from slrctl.errors import DataError, UsageError
from slrctl.settings import DataSettings


def signers_of(clips: Iterable[Clip]) -> list[str]:
    """The signers' names, in order."""
    return sorted({clip.signer for clip in clips if clip.signer is not None})


def are_chosen(settings: DataSettings) -> bool:
    """Whether the settings name people at all."""
    return any((settings.train_signers, settings.val_signers, settings.test_signers))


def rows_by_signer(
    clips: SignDataset, settings: DataSettings
) -> tuple[dict[str, Int64[np.ndarray, " M"]], str]:
    """The rows of each part by signer, whatever the split column says, and a note on it.

    Where people to train on are named and none to test on, all others test; where people to test
    on are named and none to train on, all others train. Clips of people in no part are left out.

    Args:
        clips: of one set.
        settings: `train_signers`, `val_signers`, `test_signers`, at least one of them.

    Raises:
        UsageError: somebody is named for two parts, or nobody is left to train on.
        DataError: a clip has no signer, or nobody has a name that was given.
    """
    signers = [clip.signer for clip in clips]
    unknown = signers.count(None)
    if unknown:
        raise DataError(
            f"{clips.source}: {count_of(unknown, 'clip')} of {len(clips)} without a signer, so "
            "parts cannot be chosen by person; fill in the signer column, or leave "
            "data.train_signers, val_signers and test_signers out"
        )
    named = {
        "train": settings.train_signers or (),
        "val": settings.val_signers or (),
        "test": settings.test_signers or (),
    }
    everybody = signers_of(clips)
    _check_names(named, everybody, clips.source)
    rest = tuple(name for name in everybody if not any(name in part for part in named.values()))
    if not named["train"]:
        named["train"] = rest
    elif not named["test"]:
        named["test"] = rest
    if not named["train"]:
        raise UsageError(f"{clips.source}: every signer validates or tests; leave some to train on")
    rows = {
        part: np.flatnonzero([signer in names for signer in signers])
        for part, names in named.items()
    }
    counts = ", ".join(
        f"{part} {some_of(list(named[part]))} ({count_of(len(chosen), 'clip')})"
        for part, chosen in rows.items()
        if len(chosen)
    )
    return rows, f"parts by signer: {counts}"


def _check_names(named: dict[str, tuple[str, ...]], everybody: list[str], source: str) -> None:
    seen: dict[str, str] = {}
    for part, names in named.items():
        for name in names:
            if name not in everybody:
                near = difflib.get_close_matches(name, everybody, n=1, cutoff=0.0)
                raise DataError(
                    f"{source}: nobody is called {quote(name)} (data.{part}_signers); the nearest "
                    f"is {quote(near[0]) if near else 'nobody'}, of {some_of(everybody)}"
                )
            if seen.setdefault(name, part) != part:
                raise UsageError(
                    f"{quote(name)} is named for {seen[name]} and for {part}; one part each"
                )
