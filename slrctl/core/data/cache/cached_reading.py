"""Read a source, or take what was read of it before."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from slrctl.core.clip import Clip
from slrctl.core.data.cache.clip_cache import ClipCache
from slrctl.core.data.cache.content import SourceState, state_of
from slrctl.core.data.cache.keys import reading_key
from slrctl.core.data.cache.stored_clips import StoredClips
from slrctl.core.data.canonical import canonical_clips
from slrctl.core.data.formats import place_of, read_clips
from slrctl.core.data.formats.reading import Reading
from slrctl.settings import DataSettings, PrepareSettings


class KeptReading(NamedTuple):
    """What was read; `cache` is None where nothing can be kept."""

    clips: tuple[Clip, ...] | StoredClips
    notes: tuple[str, ...]
    cache: ClipCache | None


def read_kept(
    path: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    cache: ClipCache | None,
) -> KeptReading:
    """Take canonical clips from the cache, else read them and put them there.

    A cache that cannot be written to is no error: the clips are then held in memory, and a note
    says why.

    Raises:
        DataError: the source cannot be read.
    """
    place = None if cache is None else _place_of(path, settings, classes, prepare, cache)
    if cache is None or place is None:
        reading = read_clips(path, settings, classes)
        return KeptReading(_in_memory(reading, prepare), tuple(reading.notes), None)
    found = cache.find(place.key)
    if found is not None:
        return KeptReading(found, tuple(found.file.facts["notes"]), cache)
    reading = read_clips(path, settings, classes)
    facts = {"source": str(path.absolute()), "kind": "cleaned", "notes": reading.notes}
    clips = canonical_clips(reading.clips, prepare)
    try:
        stored = cache.store(place.key, _while_unchanged(clips, place_of(path), place.state), facts)
    except OSError as error:
        notes = (*reading.notes, _why_not(cache, error))
        return KeptReading(_in_memory(reading, prepare), notes, None)
    return KeptReading(stored, tuple(reading.notes), cache)


class _Place(NamedTuple):
    """Where a reading belongs in the cache, and the state of the files its key was made from."""

    key: str
    state: SourceState


def _place_of(
    path: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    cache: ClipCache,
) -> _Place | None:
    """None where a file cannot be read: the reader finds the same fault, and has words for it."""
    try:
        state, source = state_of(place_of(path)), path.absolute()
        return _Place(reading_key(source, settings, classes, prepare, cache.notes_dir), state)
    except OSError:
        return None


def _in_memory(reading: Reading, prepare: PrepareSettings | None) -> tuple[Clip, ...]:
    return tuple(canonical_clips(reading.clips, prepare))


def _while_unchanged(clips: Iterable[Clip], source: Path, before: SourceState) -> Iterator[Clip]:
    """Pass clips on, and at the end make sure that they are of the files the key was made from."""
    yield from clips
    if state_of(source) != before:
        raise OSError(errno.ESTALE, "the source was changed while it was read")


def _why_not(cache: ClipCache, error: OSError) -> str:
    return (
        f"warning: not cached in {cache.folder} ({error.strerror or error}), so it is read again "
        "next time and held in memory; name another folder with data.cache_dir, "
        "or turn this off with data.cache=false"
    )
