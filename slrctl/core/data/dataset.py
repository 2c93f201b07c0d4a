"""A set of clips with its classes, read from any format we know."""

import errno
import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import SupportsIndex, overload

import numpy as np
from jaxtyping import Int64, UInt64

from slrctl.core.clip import Clip
from slrctl.core.data.cache import (
    ClipCache,
    StoredClips,
    content_digest,
    key_of,
    landmarks_digest,
    states_of,
)
from slrctl.core.data.prepare import canonical_clips, canonical_settings
from slrctl.core.data.readers import folder_of, read_clips
from slrctl.errors import DataError, count_of, quote, some_of
from slrctl.settings import DataSettings, PrepareSettings

# Settings that say where clips lie and how they are divided, and not how a file is read; the names
# of glosses count by their content.
_NOT_READING = {
    *("train", "val", "test", "val_share", "val_mirrored"),
    *("train_signers", "val_signers", "test_signers"),
    *("cache", "cache_dir", "cache_gigabytes", "gloss_names"),
}


@dataclass(frozen=True, eq=False, repr=False)
class SignDataset(Sequence[Clip]):
    """Clips in the order of their file, and the glosses they show.

    `clips` are held in memory, or read from a file of the cache when they are asked for.
    `classes` is in the order of a model's logits. `notes` are one-line remarks on how the file was
    read (its orientation, padding cut off, label base); those that start with "warning: " need
    attention. `path` is the file they came from, if there is one. `canonical` holds the settings
    by which the clips were brought into their canonical form, None where they are as they were
    cleaned. `cache` stores what is computed from them, if there is one.
    """

    clips: tuple[Clip, ...] | StoredClips
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    path: Path | None = None
    canonical: PrepareSettings | None = None
    cache: ClipCache | None = None

    @overload
    def __getitem__(self, index: SupportsIndex) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Clip, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Clip | tuple[Clip, ...]:
        return self.clips[index]

    def __iter__(self) -> Iterator[Clip]:
        return iter(self.clips)

    def __len__(self) -> int:
        return len(self.clips)

    def __repr__(self) -> str:
        sizes = f"{count_of(len(self.clips), 'clip')}, {count_of(len(self.classes), 'class')}"
        return f"<{type(self).__name__} {self.name!r}: {sizes}>"

    @property
    def source(self) -> str:
        """The file, else the name: for messages."""
        return self.name if self.path is None else str(self.path)

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Frames of each clip."""
        if isinstance(self.clips, StoredClips):
            return self.clips.lengths
        return np.array([clip.num_frames for clip in self.clips], dtype=np.int64)

    @property
    def digests(self) -> UInt64[np.ndarray, " N"]:
        """`landmarks_digest` of each clip."""
        if isinstance(self.clips, StoredClips):
            return self.clips.digests
        return np.array([landmarks_digest(clip.landmarks) for clip in self.clips], dtype=np.uint64)

    def with_clips(self, clips: Iterable[Clip]) -> "SignDataset":
        """Hold these clips in memory under the same classes; see `select` for a large set."""
        return replace(self, clips=tuple(clips), notes=())

    def select(self, rows: Int64[np.ndarray, " M"]) -> "SignDataset":
        """Return the clips of these rows, in that order, under the same classes.

        They need not fit into memory together.
        """
        if isinstance(self.clips, StoredClips):
            return replace(self, clips=self.clips.select(rows))
        return replace(self, clips=tuple(self.clips[row] for row in rows.tolist()))

    def fingerprint(self) -> str:
        """Hash everything a training sees: ids, glosses, aspects, every landmark's bits."""
        whole = hashlib.sha256()
        for clip, digest in zip(self.clips, self.digests.tolist(), strict=True):
            facts = (clip.clip_id, clip.gloss, clip.aspect, clip.num_frames, digest)
            whole.update(("\x1f".join(map(str, facts)) + "\x1e").encode("utf-8", "surrogatepass"))
        return whole.hexdigest()


def rows_where(clips: Iterable[Clip], is_wanted: Callable[[Clip], bool]) -> Int64[np.ndarray, " M"]:
    """Return the rows of the clips that are wanted."""
    return np.fromiter((row for row, clip in enumerate(clips) if is_wanted(clip)), np.int64)


def ordered_classes(glosses: Iterable[str]) -> tuple[str, ...]:
    """Sort distinct glosses: by number where all are integers, else by text."""
    distinct = set(glosses)
    if all(gloss.isascii() and gloss.isdigit() for gloss in distinct):
        return tuple(sorted(distinct, key=lambda gloss: (int(gloss), gloss)))
    return tuple(sorted(distinct))


def _reading_key(
    source: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    cache: ClipCache,
) -> str:
    """Return the key of the clips of a source as they are read with these settings."""
    names = settings.gloss_names
    return key_of(
        # Clip ids of a CSV begin with its name; the names of folders may be those of signs.
        name=source.parts[-2:] if source.is_dir() else source.name,
        content=content_digest(folder_of(source), cache.notes_dir),
        settings=settings.model_dump(mode="json", exclude=_NOT_READING),
        gloss_names=None if names is None else content_digest(names, cache.notes_dir),
        # They decide what the integer labels of a CSV count from.
        classes=None if classes is None else list(classes),
        canonical=canonical_settings(prepare),
    )


def _clips_of(
    path: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    cache: ClipCache | None,
) -> tuple[tuple[Clip, ...] | StoredClips, tuple[str, ...], ClipCache | None]:
    """Return canonical clips from the cache, else read and store them; also notes and the cache.

    Where the cache cannot be written to, the clips are held in memory, a note says why, and no
    cache is returned.
    """
    key, before = None, None
    if cache is not None:
        with suppress(OSError):  # the reader meets the same fault and reports it
            before = states_of(folder_of(path))
            key = _reading_key(path.absolute(), settings, classes, prepare, cache)
    if cache is not None and key is not None and (found := cache.find(key)) is not None:
        return found, tuple(found.about["notes"]), cache
    reading = read_clips(path, settings, classes)
    notes = tuple(reading.notes)
    if cache is None or key is None:
        return tuple(canonical_clips(reading.clips, prepare)), notes, None

    def unchanged_clips() -> Iterator[Clip]:
        """Yield the clips, and check that they are of the files the key was made from."""
        yield from canonical_clips(reading.clips, prepare)
        if states_of(folder_of(path)) != before:
            raise OSError(errno.ESTALE, "the source was changed while it was read")

    about = {"source": str(path.absolute()), "kind": "cleaned", "notes": notes}
    try:
        return cache.store(key, unchanged_clips(), about), notes, cache
    except OSError as error:
        warning = (
            f"warning: not cached in {cache.folder} ({error.strerror or error}), so it is read "
            "again next time and held in memory; name another folder with data.cache_dir, "
            "or turn this off with data.cache=false"
        )
        return tuple(canonical_clips(reading.clips, prepare)), (*notes, warning), None


def canonical_dataset(dataset: SignDataset, prepare: PrepareSettings) -> SignDataset:
    """Bring clips that are held in memory into their canonical form."""
    clips = tuple(canonical_clips(dataset, prepare))
    return replace(dataset, clips=clips, canonical=prepare)


def _advice(unknown: Collection[str], classes: Collection[str]) -> str:
    are_numbers = all(gloss.isdigit() for gloss in unknown)
    if are_numbers and not any(gloss.isdigit() for gloss in classes):
        return "say what the integer labels are called with --set data.gloss_names=FILE"
    return "add such clips to training, or leave them out here with --skip-bad-clips"


def with_known_glosses(
    dataset: SignDataset, classes: Sequence[str], *, skip_bad_clips: bool = False
) -> SignDataset:
    """Put a data set under the classes of a training set.

    Raises:
        DataError: a clip shows a gloss that training lacks and `skip_bad_clips` is off, or no
            clip shows one that it has.
    """
    known = set(classes)
    unknown = Counter(clip.gloss for clip in dataset if clip.gloss not in known)
    if not unknown:
        return replace(dataset, classes=tuple(classes))
    clips = count_of(unknown.total(), "clip")
    found = f"{clips} of {len(dataset)} with a gloss that training lacks"
    if not skip_bad_clips or unknown.total() == len(dataset):
        gloss = next(clip.gloss for clip in dataset if clip.gloss in unknown)
        row = next(clip.clip_id for clip in dataset if clip.gloss == gloss)
        raise DataError(
            f"{dataset.source}: found {found}: {some_of(list(unknown))} "
            f"({count_of(unknown[gloss], 'clip')} of {quote(gloss)}, the first is {quote(row)}); "
            f"expected the {len(classes)} glosses of training, such as "
            f"{some_of(list(classes), 3)}; {_advice(unknown, classes)}"
        )
    kept = rows_where(dataset, lambda clip: clip.gloss not in unknown)
    return replace(
        dataset.select(kept),
        classes=tuple(classes),
        notes=(*dataset.notes, f"left out {found}: {some_of(list(unknown))}"),
    )


def load_dataset(
    path: Path | str,
    settings: DataSettings | None = None,
    classes: Sequence[str] | None = None,
    *,
    prepare: PrepareSettings | None = None,
    cache: ClipCache | None = None,
) -> SignDataset:
    """Read clips from a file, whatever its format.

    Args:
        path: a file or folder in any format of `readers.READERS`.
        settings: how to read it; the defaults if absent.
        classes: the glosses of the training set, if this file is evaluated with it. They decide
            whether integer labels count from 0 or from 1.
        prepare: brings the clips into the canonical form of these settings; without it they stay
            as they were cleaned.
        cache: holds the clips for the next time; without it they are held in memory.

    Raises:
        DataError: the file cannot be read, or holds a gloss that is not among `classes`.
    """
    path, settings = Path(path), settings or DataSettings()
    clips, notes, cache = _clips_of(path, settings, classes, prepare, cache)
    dataset = SignDataset(
        clips=clips,
        classes=ordered_classes(clip.gloss for clip in clips),
        name=path.stem,
        notes=notes,
        path=path,
        canonical=prepare,
        cache=cache,
    )
    if classes is None:
        return dataset
    return with_known_glosses(dataset, classes, skip_bad_clips=settings.skip_bad_clips)
