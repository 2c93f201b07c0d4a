"""Glosses of the integer labels of a CSV: the base they count from, and their names."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slrctl.core.data.readers.reading import quote
from slrctl.errors import DataError
from slrctl.files import parse_json, read_text


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


def read_gloss_names(path: Path) -> dict[int, str]:
    """Read the name of each integer label.

    Args:
        path: a JSON object `{"0": "book"}`, a JSON list (its first entry names label 0), or a CSV
            with two columns, the integer and the name, with or without a header.

    Raises:
        DataError: the file is none of these, or names a label twice or two labels alike.
    """
    try:
        text = read_text(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; check data.gloss_names"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text; save it again as UTF-8") from error
    is_json = text.lstrip().startswith(("{", "["))
    pairs = _json_pairs(path, text) if is_json else _csv_pairs(path, text)
    if not pairs:
        raise DataError(f"{path}: names no label; expected lines such as 0,book")
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for label, name in pairs:
        if label in names or name in labels:
            other = label if label in names else labels[name]
            raise DataError(
                f"{path}: label {label} ({quote(name)}) and label {other} "
                f"({quote(names[other])}) clash; every label has one name, and no name two labels"
            )
        names[label], labels[name] = name, label
    return names


def _json_pairs(path: Path, text: str) -> list[tuple[int, str]]:
    expected = 'expected an object such as {"0": "book"}, or a list of names'
    try:
        content: Any = parse_json(text)
    except ValueError as error:
        place = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}: {place}is not JSON; {expected}") from error
    pairs = list(content.items() if isinstance(content, dict) else enumerate(content))
    for label, name in pairs:
        if not isinstance(name, str) or not str(label).strip().isdecimal():
            raise DataError(f"{path}: found {quote(label)}: {quote(name)}; {expected}")
    return [(int(label), name) for label, name in pairs]


def _csv_pairs(path: Path, text: str) -> list[tuple[int, str]]:
    lines = [line for line in csv.reader(text.splitlines()) if any(cell.strip() for cell in line)]
    if lines and not lines[0][0].strip().isdecimal():
        lines = lines[1:]
    for row, line in enumerate(lines):
        if len(line) != 2 or not line[0].strip().isdecimal():
            raise DataError(
                f"{path}: row {row + 1}: found {quote(','.join(line))}, "
                "expected an integer and a name, such as 0,book"
            )
    return [(int(label), name.strip()) for label, name in lines]
