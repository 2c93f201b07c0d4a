"""A folder of clip files, each under a key that says what is in it.

What is there is right or is not used: a key is a hash of everything that decides the content, a
file appears whole or not at all, and its checksum is compared when it is opened. So processes may
read, write and clear the same folder at once without asking one another.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slrctl.core.clip import Clip
from slrctl.core.data.cache.clip_file import DamagedFile, map_clip_file, read_facts, write_clip_file
from slrctl.core.data.cache.publish import UNFINISHED, abandoned_files, publishing
from slrctl.core.data.cache.stored_clips import StoredClips

_SUFFIX = ".clips"
_GIGABYTE = 10**9


@dataclass(frozen=True)
class CacheEntry:
    """One file of the cache; `facts` is what `store` was given, or None if it is damaged.

    `used_seconds` is the time of its last use, in seconds since 1970.
    """

    key: str
    facts: dict[str, Any] | None
    num_bytes: int
    used_seconds: float


def _describe(path: Path) -> CacheEntry:
    state = path.stat()
    try:
        facts = read_facts(path)
    except DamagedFile:
        facts = None
    return CacheEntry(path.stem, facts, state.st_size, state.st_mtime)


@dataclass(frozen=True)
class ClipCache:
    """Where clips are kept, and how much of them.

    `gigabytes` (10^9 bytes) is what may lie there: what was not used for longest goes first, and
    what was written last stays in any case.
    """

    folder: Path
    gigabytes: float = 20.0

    @property
    def clips_dir(self) -> Path:
        return self.folder / "clips"

    @property
    def notes_dir(self) -> Path:
        """What is noted about sources, see `content_digest`."""
        return self.folder / "sources"

    def find(self, key: str) -> StoredClips | None:
        """The clips under a key; None where there are none, or a damaged file that is removed."""
        path = self._path(key)
        try:
            file = map_clip_file(path)
        except OSError:
            return None
        except DamagedFile:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a folder that may only be read is as good
            os.utime(path)
        return StoredClips.whole(file)

    def store(self, key: str, clips: Iterable[Clip], facts: Mapping[str, Any]) -> StoredClips:
        """Write clips under a key, one by one, and hand them back from the file.

        Raises:
            OSError: the disk is full, or the folder cannot be written to. Nothing is left there.
        """
        path = self._path(key)
        with publishing(path) as unfinished:
            write_clip_file(unfinished, clips, facts)
            # Mapped before it is moved: another process may remove it at once.
            file = map_clip_file(unfinished, check=False)
        self._make_room(path)
        return StoredClips.whole(file)

    def entries(self) -> list[CacheEntry]:
        """What there is, last used first."""
        found: list[CacheEntry] = []
        for path in self.clips_dir.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # removed by another process
                found.append(_describe(path))
        return sorted(found, key=lambda entry: entry.used_seconds, reverse=True)

    def unfinished(self) -> list[Path]:
        """Files that are being written, or whose writers were killed."""
        return sorted(self.clips_dir.glob(f"*{UNFINISHED}"))

    def clear(self) -> tuple[int, int]:
        """Remove all clips, unfinished files too, and say how many files and bytes that was.

        Processes that have one of the files open go on with it.

        Raises:
            OSError: a file may not be removed.
        """
        count = num_bytes = 0
        for path in (*self.clips_dir.glob(f"*{_SUFFIX}"), *self.unfinished()):
            with suppress(FileNotFoundError):  # removed by another process
                size = path.stat().st_size
                path.unlink()
                count, num_bytes = count + 1, num_bytes + size
        for path in self.notes_dir.glob("*.json"):
            path.unlink(missing_ok=True)
        return count, num_bytes

    def _path(self, key: str) -> Path:
        return self.clips_dir / f"{key}{_SUFFIX}"

    def _make_room(self, newest: Path) -> None:
        """Remove what was not used for longest until the rest fits, and what was left behind."""
        with suppress(OSError):
            for path in abandoned_files(self.clips_dir):
                path.unlink(missing_ok=True)
            room = self.gigabytes * _GIGABYTE - newest.stat().st_size
            others = [
                (path, path.stat()) for path in self.clips_dir.glob(f"*{_SUFFIX}") if path != newest
            ]
            for path, state in sorted(others, key=lambda pair: -pair[1].st_mtime_ns):
                room -= state.st_size
                if room < 0:
                    path.unlink(missing_ok=True)
