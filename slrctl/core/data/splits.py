"""Which clips are for training, which for validation, which for the test."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, ordered_classes
from slrctl.core.seeding import stable_seed
from slrctl.errors import DataError

ROLES = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "dev": "val",
    "test": "test",
}


class Parts(NamedTuple):
    """The parts of a training, all with the classes of the training part, and remarks on them."""

    train: SignDataset
    val: SignDataset
    test: SignDataset | None
    notes: tuple[str, ...]


def choose_parts(
    train: SignDataset,
    val: SignDataset | None,
    test: SignDataset | None,
    *,
    val_share: float,
    seed: int,
) -> Parts:
    """Sort clips into parts by what was given, by split columns, and else by splitting some off.

    A training file with a `split` column may hold all three parts. A validation or test file with a
    `split` column gives the rows of that part, if it has any, else all. Without validation clips, a
    share of the training clips is split off: whole signers where that leaves every gloss in
    training, else whole sessions, else clips at random within each gloss.

    Raises:
        DataError: a part is empty, or holds a gloss that training lacks.
    """
    notes = [*train.notes]
    rows = _by_role(train)
    chosen: dict[str, Sequence[Clip]] = {"train": rows.get("train", [])}
    if not chosen["train"]:
        raise DataError(
            f"{train.name}: its split column has no 'train' rows, only {', '.join(sorted(rows))}; "
            "name a file with training clips"
        )
    for role, given in (("val", val), ("test", test)):
        if given is not None:
            chosen[role], note = _rows_for(role, given)
            notes += [*given.notes, *([note] if note else [])]
        elif rows.get(role):
            chosen[role] = rows[role]
    if "val" not in chosen:
        chosen["train"], chosen["val"], note = _split_off(chosen["train"], val_share, seed)
        notes.append(note)
    classes = ordered_classes(clip.gloss for clip in chosen["train"])
    sources = {"train": train, "val": val or train, "test": test or train}
    parts = {
        role: SignDataset(tuple(clips), classes, sources[role].name)
        for role, clips in chosen.items()
    }
    for role in ("val", "test"):
        if role in parts:
            notes += _check_glosses(parts[role], role)
    return Parts(parts["train"], parts["val"], parts.get("test"), tuple(notes))


def _by_role(dataset: SignDataset) -> dict[str, list[Clip]]:
    """Rows by part; all are for training where there is no split column."""
    if all(clip.split is None for clip in dataset):
        return {"train": list(dataset)}
    rows: dict[str, list[Clip]] = {}
    for clip in dataset:
        if clip.split is None:
            raise DataError(
                f"{dataset.name}: clip {clip.clip_id!r} has no split, while others have; "
                "write train, val or test in every row, or in none"
            )
        role = ROLES.get(clip.split.lower())
        if role is None:
            raise DataError(
                f"{dataset.name}: clip {clip.clip_id!r} has the split {clip.split!r}; "
                "expected train, val or test"
            )
        rows.setdefault(role, []).append(clip)
    return rows


def _rows_for(role: str, given: SignDataset) -> tuple[Sequence[Clip], str | None]:
    own = [clip for clip in given if clip.split and ROLES.get(clip.split.lower()) == role]
    if own and len(own) < len(given):
        return own, f"{role}: {len(own)} of {len(given)} clips of {given.name}, by its split column"
    return given.clips, None


def _split_off(
    clips: Sequence[Clip], share: float, seed: int
) -> tuple[list[Clip], list[Clip], str]:
    """Training clips, validation clips, and a line that says how they were parted."""
    groupings: tuple[tuple[str, Callable[[Clip], str | None]], ...] = (
        ("signer", lambda clip: clip.signer),
        ("session", lambda clip: clip.session),
    )
    for unit, name_of in groupings:
        groups = _choose_groups(clips, name_of, share, seed)
        if groups:
            train = [clip for clip in clips if name_of(clip) not in groups]
            val = [clip for clip in clips if name_of(clip) in groups]
            names = f"{unit}{'s' if len(groups) > 1 else ''} {', '.join(sorted(groups))}"
            return train, val, _note(val, f"of {names}")
    val_ids = _stratified(clips, share, seed)
    train = [clip for clip in clips if clip.clip_id not in val_ids]
    val = [clip for clip in clips if clip.clip_id in val_ids]
    if not val:
        raise DataError(
            f"{len(clips)} training clips leave none for validation, for every gloss has only one; "
            "give validation clips with --val"
        )
    return train, val, _note(val, "at random within each gloss")


def _note(val: Sequence[Clip], how: str) -> str:
    return (
        f"validation: {len(val)} clips {how} split off from training "
        "(no validation set was given)"
    )


def _choose_groups(
    clips: Sequence[Clip], name_of: Callable[[Clip], str | None], share: float, seed: int
) -> set[str]:
    """Whole groups of about the share, between half and twice it, that leave every gloss."""
    sizes: dict[str, int] = {}
    for clip in clips:
        name = name_of(clip)
        if name is None:
            return set()
        sizes[name] = sizes.get(name, 0) + 1
    glosses = {clip.gloss for clip in clips}
    target, chosen, taken = share * len(clips), set[str](), 0
    for name in sorted(sizes, key=lambda name: stable_seed(seed, "validation", name)):
        tried = {*chosen, name}
        left = {clip.gloss for clip in clips if name_of(clip) not in tried}
        if taken + sizes[name] <= 2 * target and left == glosses:
            chosen, taken = tried, taken + sizes[name]
        if taken >= target:
            break
    return chosen if taken >= target / 2 else set()


def _stratified(clips: Sequence[Clip], share: float, seed: int) -> set[str]:
    """The share of each gloss's clips, at least one of two, never all."""
    by_gloss: dict[str, list[str]] = {}
    for clip in clips:
        by_gloss.setdefault(clip.gloss, []).append(clip.clip_id)
    chosen: set[str] = set()
    for clip_ids in by_gloss.values():
        clip_ids.sort(key=lambda clip_id: stable_seed(seed, "validation", clip_id))
        count = min(max(1, round(share * len(clip_ids))), len(clip_ids) - 1)
        chosen.update(clip_ids[:count])
    return chosen


def _check_glosses(part: SignDataset, role: str) -> list[str]:
    shown = {clip.gloss for clip in part}
    unknown = ordered_classes(shown - set(part.classes))
    if unknown:
        count = sum(clip.gloss in unknown for clip in part)
        raise DataError(
            f"{part.name}: {role} holds {count} clips of {len(unknown)} glosses that training "
            f"lacks, the first is {unknown[0]!r}; leave them out, or add them to training"
        )
    missing = len(part.classes) - len(shown)
    return [f"{role}: {missing} of {len(part.classes)} glosses have no clip"] if missing else []
