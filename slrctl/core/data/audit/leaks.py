"""The audit of a set: leaks between its splits, and the set without them."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from slrctl.core.clip import Clip
from slrctl.core.data.audit.copies import (
    COPY_THRESHOLD,
    INTERPOLATION_THRESHOLD,
    CopySearch,
    Kind,
    Leak,
    exact_copies,
    interpolated,
)
from slrctl.core.data.dataset import ordered_classes
from slrctl.core.data.readers import read_clips
from slrctl.core.data.splits import group_name
from slrctl.core.data.splitter import Unit, split_name
from slrctl.core.data.writers import check_output, write_clips
from slrctl.errors import DataError, UsageError, count_of, quote
from slrctl.settings import DataSettings

# Words that mark a clip as changed from another, and the number that may follow one of them.
_CHANGED = re.compile(
    r"[-_. ](aug(mented)?|copy|dup(licate)?|mirror(ed)?|flip(ped)?|smote|synth|interp|"
    r"jitter|noise|resampled|oversampled)[-_ ]?\d*$",
    re.IGNORECASE,
)
# The most valuable split is left alone: the test set, then validation. Splits of other names come
# between, those named later being worth more.
_WORTH = {"train": -1.0, "val": 1e6, "test": 1e7}
_MOST_ROUNDS = 5
_EDGES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, math.inf)
_QUANTILES = {"least": 0.0, "p1": 0.01, "p5": 0.05, "p25": 0.25, "median": 0.5}


# Clips of each signer or session that is in several splits, by split.
Shared = dict[str, dict[str, int]]


def split_of(clip: Clip) -> str:
    """Return the split of a clip, whatever its name."""
    return clip.split or ""


@dataclass(frozen=True, eq=False)
class Audit:
    """The leaks between the splits of a set; rows count the clips as they were given.

    `missing` lists the glosses that each split lacks. `hints` are pairs of rows: a clip whose id
    says that it was changed from another, and that other one. `across` holds for each clip the
    least difference to a clip of another split, `within` the same for a sample of the clips and
    their own split; both are inf where nothing is alike.
    """

    clips: Sequence[Clip]
    leaks: list[Leak]
    signers: Shared
    sessions: Shared
    missing: dict[str, list[str]]
    hints: list[tuple[int, int]]
    across: Float[np.ndarray, " N"]
    within: Float[np.ndarray, " M"]

    @property
    def sizes(self) -> dict[str, int]:
        """The number of clips of each split."""
        return dict(Counter(map(split_of, self.clips)))

    def count(self, kind: str) -> int:
        return sum(leak.kind == kind for leak in self.leaks)

    def split(self, row: int) -> str:
        return split_of(self.clips[row])

    def leakage(self, allowed: Collection[str]) -> list[str]:
        """Say in words why the set leaks; signers and sessions may be allowed in several splits."""
        reasons = ["copies or interpolated clips"] if self.leaks else []
        groups = {"signer": self.signers, "session": self.sessions}
        reasons += [
            f"{kind}s in several splits"
            for kind, found in groups.items()
            if found and kind not in allowed
        ]
        return reasons

    def to_json(self, allowed: Collection[str]) -> dict[str, Any]:
        """Return the keys of `data audit --json`."""

        def fact(row: int) -> dict[str, str]:
            clip = self.clips[row]
            return {"clip_id": clip.clip_id, "part": self.split(row), "gloss": clip.gloss}

        reasons = self.leakage(allowed)
        return {
            "parts": self.sizes,
            "leakage": bool(reasons),
            "reasons": reasons,
            "allowed": sorted(allowed),
            "counts": {kind: self.count(kind) for kind in get_args(Kind)},
            "pairs": [
                {
                    "kind": leak.kind,
                    "unexplained": leak.unexplained,
                    "clips": [fact(row) for row in leak.rows],
                }
                for leak in self.leaks
            ],
            "signers": self.signers,
            "sessions": self.sessions,
            "missing_glosses": self.missing,
            "id_hints": [
                {"made": self.clips[row].clip_id, "origin": self.clips[origin].clip_id}
                for row, origin in self.hints
            ],
            "copy_threshold": COPY_THRESHOLD,
            "lineage_threshold": INTERPOLATION_THRESHOLD,
            "unexplained": {
                "edges": list(_EDGES[:-1]),
                "across": _distribution(self.across),
                "within": _distribution(self.within),
            },
        }


def _distribution(values: Float[np.ndarray, " N"]) -> dict[str, Any]:
    """Count values between the edges, and take quantiles; None stands for infinity."""
    bins = np.digitize(np.where(np.isfinite(values), values, _EDGES[-2]), _EDGES[1:-1])
    quantiles: dict[str, float | None] = dict.fromkeys(_QUANTILES)
    if len(values):
        # No interpolation: between a number and infinity there is nothing.
        found = np.quantile(values, list(_QUANTILES.values()), method="lower").tolist()
        quantiles = {
            name: value if math.isfinite(value) else None
            for name, value in zip(_QUANTILES, found, strict=True)
        }
    return {"counts": np.bincount(bins, minlength=len(_EDGES) - 1).tolist(), **quantiles}


def shared_groups(clips: Sequence[Clip], unit: Unit) -> Shared:
    """Count the clips of each named signer or session that is in several splits."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for clip in clips:
        name = group_name(clip, unit)
        if name is not None:
            counts[name][split_of(clip)] += 1
    return {name: dict(found) for name, found in sorted(counts.items()) if len(found) > 1}


def missing_classes(clips: Sequence[Clip]) -> dict[str, list[str]]:
    """Return, for each split that lacks some, the glosses that only other splits show."""
    shown: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        shown[split_of(clip)].add(clip.gloss)
    classes = ordered_classes(clip.gloss for clip in clips)
    return {
        split: [gloss for gloss in classes if gloss not in glosses]
        for split, glosses in shown.items()
        if len(glosses) < len(classes)
    }


def name_hints(clips: Sequence[Clip]) -> list[tuple[int, int]]:
    """Find clips that are by their id a changed copy of a clip of another split: `abc_aug3`."""
    row_of = {clip.clip_id: row for row, clip in enumerate(clips)}
    origins = [row_of.get(_CHANGED.sub("", clip.clip_id)) for clip in clips]
    return [
        (row, origin)
        for row, origin in enumerate(origins)
        if origin is not None and split_of(clips[origin]) != split_of(clips[row])
    ]


def audit_splits(clips: Sequence[Clip]) -> Audit:
    """Look for leaks between the splits of a set.

    Args:
        clips: of at least two splits, which may have any names.

    Raises:
        ValueError: there are fewer than two splits.
    """
    names = list(dict.fromkeys(map(split_of, clips)))
    if len(names) < 2:
        raise ValueError(f"an audit compares splits, but all clips are in {names}")
    splits = np.array([names.index(split_of(clip)) for clip in clips])
    search = CopySearch(clips, splits)
    exact = exact_copies(clips, splits)
    near, across = search.between_splits()
    across[[row for leak in exact for row in leak.rows]] = 0.0
    copies = {leak.rows: leak for leak in exact}
    for leak in sorted(near, key=lambda leak: leak.unexplained):
        copies.setdefault(leak.rows, leak)
    copied = {row for pair in copies for row in pair}
    between = [leak for leak in interpolated(clips, splits) if leak.first not in copied]
    return Audit(
        clips=clips,
        leaks=[*copies.values(), *sorted(between, key=lambda leak: leak.unexplained)],
        signers=shared_groups(clips, "signer"),
        sessions=shared_groups(clips, "session"),
        missing=missing_classes(clips),
        hints=name_hints(clips),
        across=across,
        within=search.within_splits(),
    )


class Fixed(NamedTuple):
    """The remaining clips, each in its split, and the changes.

    `dropped` and `moved` count clips by the split they were in. `remaining` is the audit of the
    result, in which no leak between clips is left.
    """

    clips: list[Clip]
    dropped: dict[str, int]
    moved: dict[str, int]
    remaining: Audit


def fix(audit: Audit, way: Literal["drop", "move"]) -> Fixed:
    """Drop or move clips until no leak between clips is left.

    Of two copies, the one in the less valuable split is dropped (train, then val, then test); an
    interpolated clip is dropped wherever it is. Moving brings all of them into the least valuable
    split. Every round is audited again, since a leak may show only once the copy before it is gone.
    """
    clips = list(audit.clips)
    names = dict.fromkeys(map(split_of, clips))
    worth = {name: _WORTH.get(name, float(place)) for place, name in enumerate(names)}
    dropped, moved = Counter[str](), Counter[str]()
    for _ in range(_MOST_ROUNDS):
        if not audit.leaks:
            break
        if way == "drop":
            gone = {_less_worth(leak, clips, worth) for leak in audit.leaks}
            dropped.update(split_of(clips[row]) for row in gone)
            clips = [clip for row, clip in enumerate(clips) if row not in gone]
        else:
            before, clips = clips, _gathered(audit.leaks, clips, worth)
            pairs = zip(before, clips, strict=True)
            moved.update(split_of(old) for old, new in pairs if old.split != new.split)
        if len(set(map(split_of, clips))) < 2:
            audit = replace(audit, clips=clips, leaks=[])
        else:
            audit = audit_splits(clips)
    return Fixed(clips, dict(dropped), dict(moved), audit)


def _less_worth(leak: Leak, clips: Sequence[Clip], worth: dict[str, float]) -> int:
    if leak.kind == "interpolated":
        return leak.first
    return min(leak.rows, key=lambda row: worth[split_of(clips[row])])


def _gathered(leaks: Sequence[Leak], clips: Sequence[Clip], worth: dict[str, float]) -> list[Clip]:
    """Move all clips that leaks connect to the least valuable split among them."""
    edges = [(leak.first, other) for leak in leaks for other in leak.rows[1:]]
    graph = coo_array(
        (np.ones(len(edges)), tuple(np.array(edges).T)), shape=(len(clips), len(clips))
    )
    _, groups = connected_components(graph, directed=False)
    goal: dict[int, str] = {}
    for group, clip in zip(groups.tolist(), clips, strict=True):
        split = split_of(clip)
        goal[group] = min(goal.get(group, split), split, key=lambda name: worth[name])
    return [replace(c, split=goal[group]) for c, group in zip(clips, groups.tolist(), strict=True)]


def with_own_ids(clips: Sequence[Clip]) -> list[Clip]:
    """Name clips that share an id after their split, and number them if need be.

    Two files may call different clips alike; one file may not.
    """
    counts = Counter(clip.clip_id for clip in clips)
    taken = {clip_id for clip_id, count in counts.items() if count == 1}
    named = []
    for clip in clips:
        clip_id, number = clip.clip_id, 1
        if counts[clip_id] > 1:
            clip_id = f"{clip.split}/{clip.clip_id}"
            while clip_id in taken:
                number += 1
                clip_id = f"{clip.split}/{clip.clip_id}-{number}"
            taken.add(clip_id)
        named.append(replace(clip, clip_id=clip_id))
    return named


def split_file(argument: str) -> tuple[str | None, Path]:
    """Read `PATH` or `SPLIT=PATH`; an existing path is a path, whatever its name holds."""
    name, separator, path = argument.partition("=")
    if not separator or Path(argument).exists():
        return None, Path(argument)
    if not name or not path:
        raise UsageError(f"{argument}: expected PATH or SPLIT=PATH, such as train=clips.csv")
    return split_name(name) or name, Path(path)


def read_splits(sources: Sequence[str], settings: DataSettings) -> tuple[list[Clip], list[str]]:
    """Read files into splits; integer labels of all are counted as in the first.

    One file is divided by its split column. Of several, each is a split: called as the caller says,
    else train, val or test where its name has that word, else by its name. The rows that a file
    marks for the split it is given as are the split, if it marks any.

    Args:
        sources: see `split_file`.
        settings: how to read them.

    Returns:
        The clips, each with the name of its split, and notes on how the files were read.

    Raises:
        UsageError: two files would be the same split.
        DataError: a file cannot be read, or one file alone has no split column or but one split.
    """
    files = [split_file(source) for source in sources]
    if len(files) == 1 and files[0][0] is None:
        return _split_by_column(files[0][1], settings)
    clips: list[Clip] = []
    notes: list[str] = []
    classes = None
    for name, (_, path) in zip(_names_of(files), files, strict=True):
        reading = read_clips(path, settings, classes)
        given = list(reading.clips)
        chosen = [clip for clip in given if split_name(clip.split) == name] or given
        notes += [f"{path}: {note}" for note in reading.notes]
        notes.append(f"{name}: {count_of(len(chosen), 'clip')} of {path}")
        clips += [replace(clip, split=name) for clip in chosen]
        classes = classes or ordered_classes(clip.gloss for clip in chosen)
    if len(files) == 1:
        raise DataError(f"{files[0][1]}: is one split; name a file for another split beside it")
    return clips, notes


def _split_by_column(path: Path, settings: DataSettings) -> tuple[list[Clip], list[str]]:
    reading = read_clips(path, settings, None)
    clips = []
    for row, clip in enumerate(reading.clips):
        if clip.split is None:
            raise DataError(
                f"{path}: row {row + 1} (clip {quote(clip.clip_id)}), column 'split': found "
                "nothing, and an audit compares splits; divide the file with slrctl data split, or "
                "name a file for each split"
            )
        clips.append(replace(clip, split=split_name(clip.split) or clip.split))
    counts = Counter(map(split_of, clips))
    if len(counts) < 2:
        raise DataError(
            f"{path}: column 'split': found {quote(clips[0].split)} in every row; expected two "
            "splits"
        )
    listed = ", ".join(f"{count} {split}" for split, count in counts.items())
    return clips, [*reading.notes, f"split column of {path.name}: {listed}"]


def _names_of(files: Sequence[tuple[str | None, Path]]) -> list[str]:
    words = [split or _word_in(path.stem) for split, path in files]
    counts = Counter(words)
    names = [
        split or (word if word and counts[word] == 1 else path.stem)
        for word, (split, path) in zip(words, files, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(
                f"{count} files would be the split {name!r}; say which is which with SPLIT=PATH"
            )
    return names


def _word_in(stem: str) -> str | None:
    """Return the split that the name of a file mentions, if it mentions one alone."""
    found = {split_name(word) for word in re.split(r"[^A-Za-z]+", stem)} - {None}
    return found.pop() if len(found) == 1 else None


def audit_files(
    sources: Sequence[str],
    settings: DataSettings,
    fix_path: Path | None = None,
    way: Literal["drop", "move"] = "drop",
    *,
    force: bool = False,
) -> tuple[Audit, list[str], Fixed | None]:
    """Audit files, and write their clips without the leaks.

    Args:
        sources: see `split_file`.
        settings: how to read them.
        fix_path: our Parquet to write; nothing is written without.
        way: see `fix`.
        force: write over a file that is there.

    Returns:
        The audit, how the files were read, and the set without leaks, if it was asked for.

    Raises:
        UsageError, DataError: as in `read_splits`; or the file to write is there, or no Parquet.
    """
    if fix_path is not None:
        if fix_path.suffix.lower() not in (".parquet", ".pq"):
            raise UsageError(
                f"--fix {fix_path}: is written as our Parquet, which keeps the splits; name a "
                ".parquet file"
            )
        check_output(fix_path, force=force)
    clips, notes = read_splits(sources, settings)
    audit, fixed = audit_splits(clips), None
    if fix_path is not None:
        fixed = fix(audit, way)
        write_clips(with_own_ids(fixed.clips), fix_path)
    return audit, notes, fixed
