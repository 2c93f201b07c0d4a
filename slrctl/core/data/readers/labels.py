"""Glosses of the integer labels of a CSV: the base they count from, and their names."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slrctl.errors import DataError, quote
from slrctl.files import parse_json, read_text, reporting_text


def _base(labels: Sequence[int] | dict[int, str]) -> int:
    return 0 if min(labels, default=0) == 0 else 1


def _shift_to_training(labels: Sequence[int], training: Sequence[int]) -> tuple[int, str]:
    """Compute the offset from an evaluation file's labels to the training file's, with a note."""
    if not training:
        return 0, "labels taken as they are: no class of the training set is a number"
    training_base = _base(training)
    # One past the training file's largest label: K itself where no label is left out.
    past_last = training[-1] + 1 - training_base
    base = 0 if 0 in labels else 1 if past_last in labels else training_base
    shift = training_base - base
    if shift == 0:
        return 0, f"labels count from {base}, as in the training set"
    return shift, (
        f"labels count from {base}, those of the training set from {training_base}: "
        f"shifted by {shift:+d}"
    )


def glosses_of(
    labels: Sequence[int], names: dict[int, str] | None, classes: Sequence[str] | None
) -> tuple[list[str | None], str]:
    """Give each label its gloss: the training file's integer as text, or its name.

    Args:
        labels: the integers of one file, none below 0.
        names: the name of each integer of the training file, if known.
        classes: the glosses of the training file, if this one is evaluated with them.

    Returns:
        The glosses, None where `names` lacks the integer, and a note on the base of the labels.
    """
    if classes is None:
        shift = 0
        note = f"labels count from {_base(labels if names is None else names)}"
    else:
        numbers = [int(name) for name in classes if name.isascii() and name.isdigit()]
        shift, note = _shift_to_training(labels, sorted(numbers if names is None else names))
    integers = [label + shift for label in labels]
    if names is None:
        return [str(integer) for integer in integers], note
    return [names.get(integer) for integer in integers], note


def _pairs_in(text: str) -> list[tuple[str, Any]]:
    """Return the labels and names of a JSON object, a JSON list or a CSV, unchecked."""
    if text.lstrip().startswith(("{", "[")):
        content = parse_json(text)
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        return [(str(label), name) for label, name in pairs]
    lines = [line for line in csv.reader(text.splitlines()) if any(cell.strip() for cell in line)]
    if lines and not lines[0][0].strip().isdecimal():
        lines = lines[1:]  # the header
    return [(line[0], line[1].strip() if len(line) == 2 else None) for line in lines]


def read_gloss_names(path: Path) -> dict[int, str]:
    """Read the name of each integer label.

    Args:
        path: a JSON object `{"0": "book"}`, a JSON list (its first entry names label 0), or a CSV
            with two columns, the integer and the name, with or without a header.

    Raises:
        DataError: the file is none of these, or names a label twice or two labels alike.
    """
    with reporting_text(path, "JSON or CSV"):
        pairs = _pairs_in(read_text(path))
    if not pairs:
        raise DataError(f"{path}: names no label; expected lines such as 0,book")
    names: dict[int, str] = {}
    labels: dict[str, str] = {}
    for row, (label, name) in enumerate(pairs):
        if not (isinstance(name, str) and label.strip().isdecimal()):
            raise DataError(
                f"{path}: row {row + 1}: found {quote(label)}: {quote(name)}; expected an integer "
                'and a name, such as 0,book, an object such as {"0": "book"}, or a list of names'
            )
        if int(label) in names or name in labels:
            raise DataError(
                f"{path}: row {row + 1}: found {quote(label)}: {quote(name)} beside "
                f"{quote(labels.get(name, label))}: {quote(names.get(int(label), name))}; "
                "every label has one name, and no name two labels"
            )
        names[int(label)], labels[name] = name, label
    return names
