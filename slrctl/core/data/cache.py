"""Clips kept after reading and cleaning, as Arrow files that are mapped into memory.

A file is found by a key, a hash of everything its content follows from. `docs/cache.md` says what
is kept, and when a source is read again.
"""

import hashlib
import json
import operator
import os
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.clip import Clip, groups_of_clips
from slrctl.core.data.readers.parquet import SCHEMA, table_of
from slrctl.errors import DataError, SlrctlError
from slrctl.files import read_json, replacing, user_cache_folder, write_json
from slrctl.settings import DataSettings

_SUFFIX = ".arrow"
_FACTS = ("clip_id", "gloss", "signer", "session", "split", "fps", "aspect")
_FRAMES_TOGETHER = 1 << 14  # some 14 MB of landmarks
_BLOCK_BYTES = 1 << 20
# A file ends in the CRC-32 of what stands before it; the CRC-32 of the two together is then this.
_INTACT = 0x2144DF1C
_CHECKSUM_BYTES = 4
# An unfinished file that has not grown for so long was left by a writer that was killed.
_ABANDONED_SECONDS = 3600.0
# A file that is changed twice within a tick of the system's clock keeps its times. So nothing is
# noted of files that were changed as recently as this.
_SETTLED_SECONDS = 2.0


def landmarks_digest(landmarks: Float32[np.ndarray, "T 54 2"]) -> int:
    """Hash landmarks into 64 bits, equal for equal bits."""
    digest = hashlib.blake2b(np.ascontiguousarray(landmarks).data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, eq=False, repr=False)
class StoredClips(Sequence[Clip]):
    """Some of the clips of a file, or all of them, in any order.

    `rows` are the rows of the file that these clips are. Their landmarks are views of the mapped
    file and read-only; a clip asked for twice is two equal objects. `about` is what was said of
    the clips when they were stored.
    """

    facts: pa.Table
    landmarks: pa.ChunkedArray
    about: dict[str, Any]
    rows: Int64[np.ndarray, " N"]

    @classmethod
    def from_file(cls, path: Path) -> "StoredClips":
        """Map a file into memory: its landmarks are read where they lie."""
        content = pa.memory_map(str(path)).read_buffer()
        table = pa.ipc.open_file(content.slice(0, content.size - _CHECKSUM_BYTES)).read_all()
        facts = table.drop_columns(["landmarks"]).combine_chunks()
        about = json.loads(table.schema.metadata[b"about"])
        return cls(facts, table["landmarks"], about, np.arange(len(table)))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Clip, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Clip | tuple[Clip, ...]:
        if isinstance(index, slice):
            return tuple(self.select(np.arange(len(self))[index]))
        return next(iter(self.select(np.array([operator.index(index)]))))

    def __iter__(self) -> Iterator[Clip]:
        for first in range(0, len(self.rows), 1024):  # this many facts become objects at a time
            rows = self.rows[first : first + 1024]
            facts = self.facts.select(_FACTS).take(pa.array(rows)).to_pylist()
            for row, fact in zip(rows.tolist(), facts, strict=True):
                # `from_dlpack`, because Arrow's own `to_numpy` would load pandas.
                numbers = np.from_dlpack(self.landmarks[row].values)
                yield Clip(landmarks=numbers.reshape(-1, skeleton.NUM_LANDMARKS, 2), **fact)

    def select(self, places: Int64[np.ndarray, " M"]) -> "StoredClips":
        """Return the clips at these places, in that order."""
        return replace(self, rows=self.rows[places])

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Frames of each clip."""
        return self._column("n_frames").astype(np.int64)

    @property
    def digests(self) -> UInt64[np.ndarray, " N"]:
        """`landmarks_digest` of each clip."""
        return self._column("digest")

    def _column(self, name: str) -> np.ndarray:
        return np.from_dlpack(self.facts[name].combine_chunks())[self.rows]


def _checksum(path: Path) -> int:
    """Compute the CRC-32 of a file.

    It is read, not mapped: pages touched through a map would count as memory of this process.
    """
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _write(path: Path, clips: Iterable[Clip], about: Mapping[str, Any]) -> None:
    """Write clips one after the other: they need not fit into memory together."""
    digest = pa.field("digest", pa.uint64())
    schema = SCHEMA.append(digest).with_metadata({"about": json.dumps(about)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for group in groups_of_clips(clips, _FRAMES_TOGETHER):
            digests = pa.array([landmarks_digest(clip.landmarks) for clip in group], pa.uint64())
            writer.write_table(table_of(group).append_column(digest, digests))
    checksum = _checksum(path).to_bytes(_CHECKSUM_BYTES, "little")
    with path.open("ab") as file:
        file.write(checksum)


class CacheEntry(NamedTuple):
    """One file of the cache; `clips` is None if it is damaged."""

    path: Path
    num_bytes: int
    used_seconds: float  # time of the last use, in seconds since 1970
    clips: StoredClips | None


@dataclass(frozen=True)
class ClipCache:
    """A folder of stored clips, with a limit on its size.

    `gigabytes` (10^9 bytes) is the limit: the least recently used files go first, and the file
    written last stays in any case.
    """

    folder: Path
    gigabytes: float = 20.0

    @property
    def clips_dir(self) -> Path:
        return self.folder / "clips"

    @property
    def notes_dir(self) -> Path:
        """Folder of the notes of `content_digest`."""
        return self.folder / "sources"

    def find(self, key: str) -> StoredClips | None:
        """Return the clips stored under a key, if there are any; a damaged file is removed."""
        path = self._path(key)
        try:
            if path.is_file() and _checksum(path) == _INTACT:
                stored = StoredClips.from_file(path)
                with suppress(OSError):  # the folder may be read-only
                    os.utime(path)
                return stored
            path.unlink(missing_ok=True)
        except (OSError, pa.ArrowInvalid):
            pass
        return None

    def store(self, key: str, clips: Iterable[Clip], about: Mapping[str, Any]) -> StoredClips:
        """Write clips under a key, and return them as they lie in the file.

        Raises:
            OSError: the disk is full, or the folder cannot be written to. Nothing is left there.
        """
        path = self._path(key)
        self.clips_dir.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            _write(temporary, clips, about)
            # Mapped before it is renamed: another process may remove it at once.
            stored = StoredClips.from_file(temporary)
        self._make_room(path)
        return stored

    def entries(self) -> list[CacheEntry]:
        """List the files, the last used first."""
        entries: list[CacheEntry] = []
        for path in self._files():
            with suppress(FileNotFoundError):  # removed by another process
                state, clips = path.stat(), None
                with suppress(pa.ArrowException, OSError, KeyError, TypeError, ValueError):
                    clips = StoredClips.from_file(path) if path.is_file() else None
                entries.append(CacheEntry(path, state.st_size, state.st_mtime, clips))
        return sorted(entries, key=lambda entry: entry.used_seconds, reverse=True)

    def unfinished(self) -> list[Path]:
        """List the files that are being written, or whose writers were killed."""
        return sorted(self.clips_dir.glob(f".*{_SUFFIX}"))

    def clear(self) -> tuple[int, int]:
        """Remove all clips, unfinished files too, and return the number of files and of bytes.

        Processes that have one of the files open can still use it.

        Raises:
            OSError: a file may not be removed.
        """
        count = num_bytes = 0
        for path in (*self._files(), *self.unfinished()):
            with suppress(FileNotFoundError):  # removed by another process
                size = path.stat().st_size
                path.unlink()
                count, num_bytes = count + 1, num_bytes + size
        for path in self.notes_dir.glob("*.json"):
            path.unlink(missing_ok=True)
        return count, num_bytes

    def _path(self, key: str) -> Path:
        return self.clips_dir / f"{key}{_SUFFIX}"

    def _files(self) -> list[Path]:
        return [path for path in self.clips_dir.glob(f"*{_SUFFIX}") if path.name[0] != "."]

    def _make_room(self, newest: Path) -> None:
        """Remove abandoned files, and the least recently used ones until the rest fits."""
        with suppress(OSError):
            for path in self.unfinished():
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink(missing_ok=True)
            room = self.gigabytes * 1e9 - newest.stat().st_size
            others = [(path, path.stat()) for path in self._files() if path != newest]
            for path, state in sorted(others, key=lambda pair: -pair[1].st_mtime_ns):
                room -= state.st_size
                if room < 0:
                    path.unlink(missing_ok=True)


def open_cache(settings: DataSettings) -> ClipCache | None:
    """Return the cache in the folder the settings name, else in the user's; None if it is off."""
    if not settings.cache:
        return None
    return ClipCache(settings.cache_dir or user_cache_folder(), settings.cache_gigabytes)


FileStates = list[tuple[str, int, int, int]]


def _files_of(source: Path) -> Iterator[Path]:
    """Yield the file itself, or every file in a folder and its subfolders, in a stable order."""
    if not source.is_dir():
        yield source
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above would be followed for ever
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def states_of(source: Path) -> FileStates:
    """Return path, size, and times of modification and change of every file of a source.

    Raises:
        OSError: one of them does not exist, or its folder cannot be read.
    """
    states = ((path, path.stat()) for path in _files_of(source))
    return [(str(path), s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in states]


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def content_digest(source: Path, notes_dir: Path) -> str:
    """Hash the content of a source's files and their places below it.

    Args:
        source: a file or a folder.
        notes_dir: folder in which the result is noted, with sizes and times of the files, so that
            unchanged files are not read again.

    Raises:
        OSError: a file cannot be read.
    """
    states = states_of(source)
    state = _hash(os.fsencode(repr(states)))
    note_path = notes_dir / f"{_hash(os.fsencode(source.absolute()))}.json"
    with suppress(DataError, KeyError, TypeError):
        note = read_json(note_path)
        if note["state"] == state:
            return str(note["content"])
    whole = hashlib.blake2b(digest_size=16)
    for path in _files_of(source):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, hashlib.blake2b).digest()
        whole.update(content + os.fsencode(os.path.relpath(path, source)) + b"\0")
    last_change = max((max(modified, changed) for _, _, modified, changed in states), default=0)
    if time.time() - last_change / 1e9 > _SETTLED_SECONDS:
        with suppress(OSError, SlrctlError):
            notes_dir.mkdir(parents=True, exist_ok=True)
            write_json(note_path, {"state": state, "content": whole.hexdigest()})
    return whole.hexdigest()


@cache
def code_version() -> str:
    """Hash the code that reads and prepares clips, and the versions of the libraries behind it.

    A cache filled by another version of slrctl is then not mistaken for this one's, without a
    version number that somebody has to count up.
    """
    whole = hashlib.blake2b(digest_size=16)
    whole.update(f"numpy {np.__version__}, pyarrow {pa.__version__}".encode())
    core = Path(__file__).resolve().parents[1]
    for path in (core / "clip.py", core / "skeleton.py", *sorted((core / "data").rglob("*.py"))):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def key_of(**facts: object) -> str:
    """Return the key of clips, from everything that their content follows from."""
    text = json.dumps({**facts, "code": code_version()}, sort_keys=True)
    return _hash(text.encode())
