"""Keep clips, once read and cleaned, as files that are used where they lie."""

import errno
import hashlib
import io
import json
import mmap
import operator
import os
import secrets
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.prepare import canonical_clips, canonical_settings
from slrctl.core.data.readers import place_of, read_clips
from slrctl.core.data.readers.reading import Reading
from slrctl.files import parse_json, read_text
from slrctl.settings import DataSettings, PrepareSettings, Settings

TEXTS = ("clip_id", "gloss", "signer", "session", "split")
_SCHEMA = pa.schema(
    {
        **dict.fromkeys(TEXTS, pa.string()),
        "fps": pa.float64(),
        "aspect": pa.float64(),
        "num_frames": pa.int64(),
        "digest": pa.uint64(),
    }
)
_TAIL = struct.Struct("<QQQI8s")
_MARK = b"slrclip1"
_ALIGNMENT = 64  # where Arrow wants its columns to begin
_FRAME_BYTES = 4 * 2 * skeleton.NUM_LANDMARKS
_ROWS_TOGETHER = 1024
_BLOCK_BYTES = 1 << 20


class DamagedFile(Exception):  # noqa: N818 - it says what was found
    """The file is cut off, was changed, or was never one of ours."""


class _Tail(NamedTuple):
    """Where the parts of a file begin and end, and the checksum of them all."""

    columns_start: int
    facts_start: int
    end: int
    checksum: int


class MappedFile(NamedTuple):
    """The parts of an open file; none of them is a copy."""

    frames: Float32[np.ndarray, "F 54 2"]
    columns: pa.RecordBatch
    facts: dict[str, Any]


def landmarks_digest(landmarks: Float32[np.ndarray, "T 54 2"]) -> int:
    """64 bits that tell landmarks apart, equal for equal bits."""
    digest = hashlib.blake2b(np.ascontiguousarray(landmarks).data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


class _CheckedWriter:
    """Writes on, and keeps the checksum and the size of what it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.checksum, self.position = file, 0, 0

    def write(self, content: bytes | memoryview | pa.Buffer) -> None:
        view = memoryview(content).cast("B")
        self.file.write(view)
        self.checksum = zlib.crc32(view, self.checksum)
        self.position += view.nbytes


def write_clip_file(path: Path, clips: Iterable[Clip], facts: Mapping[str, Any]) -> None:
    """Write clips to a new file, one by one: they need not fit into memory together.

    The facts are written down with the number of clips and of frames.

    Raises:
        OSError: the file is there already, the disk is full, or the folder cannot be written to.
    """
    with path.open("xb") as file:
        writer = _CheckedWriter(file)
        batches: list[pa.RecordBatch] = []
        rows: list[dict[str, Any]] = []
        for clip in clips:
            writer.write(np.ascontiguousarray(clip.landmarks, np.float32).data)
            rows.append(_row(clip))
            if len(rows) == _ROWS_TOGETHER:
                batches.append(pa.RecordBatch.from_pylist(rows, _SCHEMA))
                rows = []
        batches.append(pa.RecordBatch.from_pylist(rows, _SCHEMA))
        counts = {
            "num_clips": sum(batch.num_rows for batch in batches),
            "num_frames": writer.position // _FRAME_BYTES,
        }
        writer.write(bytes(-writer.position % _ALIGNMENT))
        columns_start = writer.position
        writer.write(_as_arrow_file(batches))
        facts_start = writer.position
        writer.write(json.dumps({**facts, **counts}).encode())
        tail = _Tail(columns_start, facts_start, writer.position, writer.checksum)
        file.write(_TAIL.pack(*tail, _MARK))


def _row(clip: Clip) -> dict[str, Any]:
    facts = {name: getattr(clip, name) for name in (*TEXTS, "fps", "aspect", "num_frames")}
    return {**facts, "digest": landmarks_digest(clip.landmarks)}


def _as_arrow_file(batches: list[pa.RecordBatch]) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, _SCHEMA) as writer:
        writer.write_table(pa.Table.from_batches(batches, _SCHEMA).combine_chunks())
    return sink.getvalue()


def map_clip_file(path: Path, *, check: bool = True) -> MappedFile:
    """Map a file into memory.

    Args:
        path: what `write_clip_file` wrote.
        check: whether to read it through once and compare its checksum.

    Raises:
        OSError: there is no such file, or it may not be read.
        DamagedFile: it is cut off, or not what was written.
    """
    _refuse_a_pipe(path)
    with path.open("rb") as file:
        tail = _read_tail(path, file)
        if check and _checksum(file, tail.end) != tail.checksum:
            raise DamagedFile(f"{path}: its content has changed since it was written")
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    columns = pa.py_buffer(mapped[tail.columns_start : tail.facts_start])
    facts = json.loads(bytes(mapped[tail.facts_start : tail.end]))
    count = facts["num_frames"] * _FRAME_BYTES // 4
    frames = np.frombuffer(mapped, np.float32, count).reshape(-1, skeleton.NUM_LANDMARKS, 2)
    return MappedFile(frames, pa.ipc.open_file(columns).get_batch(0), facts)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a file, without a look at its clips.

    Raises:
        OSError: there is no such file, or it may not be read.
        DamagedFile: it is cut off, or was never a file of clips.
    """
    _refuse_a_pipe(path)
    with path.open("rb") as file:
        tail = _read_tail(path, file)
        file.seek(tail.facts_start)
        try:
            return json.loads(file.read(tail.end - tail.facts_start))
        except ValueError as error:
            raise DamagedFile(f"{path}: its facts are not JSON") from error


def _refuse_a_pipe(path: Path) -> None:
    """Opening one would wait for somebody to write into it."""
    if path.exists() and not path.is_file():
        raise DamagedFile(f"{path}: is no file")


def _read_tail(path: Path, file: BinaryIO) -> _Tail:
    file_size = file.seek(0, os.SEEK_END)
    file.seek(max(file_size - _TAIL.size, 0))
    content = file.read()
    if len(content) == _TAIL.size:
        *numbers, mark = _TAIL.unpack(content)
        tail = _Tail(*numbers)
        if mark == _MARK and tail.end + _TAIL.size == file_size:
            return tail
    raise DamagedFile(f"{path}: is cut off, or not a file of clips")


def _checksum(file: io.BufferedReader, end: int) -> int:
    """The checksum of the file up to `end`, read in pieces rather than through the map.

    Pages touched through the map would count as memory of this process from the start.
    """
    block, checksum, left = memoryview(bytearray(_BLOCK_BYTES)), 0, end
    file.seek(0)
    while left > 0:
        count = file.readinto(block[:left])
        if not count:
            break
        checksum = zlib.crc32(block[:count], checksum)
        left -= count
    return checksum


def column_values(columns: pa.RecordBatch, name: str) -> np.ndarray:
    """A column of numbers without nulls as an array over the same memory."""
    column = columns.column(name)
    # Not `to_numpy`, which would load pandas.
    kind = {"num_frames": np.int64, "digest": np.uint64, "aspect": np.float64}[name]
    return np.frombuffer(column.buffers()[1], kind, len(column), 8 * column.offset)


# Rows whose columns become Python objects at a time.
_ROWS_TOGETHER_stored_clips = 1024


@dataclass(frozen=True, eq=False, repr=False)
class StoredClips(Sequence[Clip]):
    """Some of the clips of a file, or all of them, in any order.

    `rows` says which clips of the file these are. Their landmarks are cut from the mapped file and
    cannot be written to; a clip asked for twice is two equal objects.
    """

    file: MappedFile
    rows: Int64[np.ndarray, " N"]

    @classmethod
    def whole(cls, file: MappedFile) -> "StoredClips":
        """All clips of a file in its order."""
        return cls(file, np.arange(file.columns.num_rows))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Clip, ...]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Clip | tuple[Clip, ...]:
        if isinstance(index, slice):
            return tuple(self._clips(self.rows[index]))
        return next(self._clips(self.rows[[operator.index(index)]]))

    def __iter__(self) -> Iterator[Clip]:
        for first in range(0, len(self.rows), _ROWS_TOGETHER_stored_clips):
            yield from self._clips(self.rows[first : first + _ROWS_TOGETHER_stored_clips])

    def select(self, places: Int64[np.ndarray, " M"]) -> "StoredClips":
        """The clips at these places, in that order."""
        return StoredClips(self.file, self.rows[places])

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Frames of each clip."""
        return column_values(self.file.columns, "num_frames")[self.rows]

    @property
    def digests(self) -> UInt64[np.ndarray, " N"]:
        """Of each clip what `landmarks_digest` says."""
        return column_values(self.file.columns, "digest")[self.rows]

    @cached_property
    def _ends(self) -> Int64[np.ndarray, " R"]:
        """One past the last frame of each clip of the file."""
        return np.cumsum(column_values(self.file.columns, "num_frames"))

    def _clips(self, rows: Int64[np.ndarray, " M"]) -> Iterator[Clip]:
        wanted = pa.array(rows)
        columns: list[list[Any]] = [
            self.file.columns.column(name).take(wanted).to_pylist()
            for name in (*TEXTS, "fps", "aspect")
        ]
        lengths = column_values(self.file.columns, "num_frames")[rows].tolist()
        ends = self._ends[rows].tolist()
        for clip_id, gloss, signer, session, split, fps, aspect, length, end in zip(
            *columns, lengths, ends, strict=True
        ):
            landmarks = self.file.frames[end - length : end]
            yield Clip(clip_id, gloss, landmarks, signer, session, split, fps, aspect)


UNFINISHED = ".part"
# A writer that is alive writes on; what has not grown for this long was left behind by one that
# was killed.
_ABANDONED_SECONDS = 3600.0


@contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """Give a path of its own to write to, whose file then takes the place of `path`.

    Two writers of one file both succeed, and the later one's stays. Where the block raises,
    nothing is left. Nothing is forced onto the disk: a reader that finds what a power cut left
    must tell by a checksum.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(8)}{UNFINISHED}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def abandoned_files(folder: Path) -> list[Path]:
    """What writers that were killed have left in a folder."""
    found: list[Path] = []
    for path in folder.glob(f"*{UNFINISHED}"):
        with suppress(OSError):  # its writer may have finished meanwhile
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                found.append(path)
    return found


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


# A file that is changed twice within a tick of the system's clock keeps its times. So nothing is
# noted of files that were changed as recently as this.
_SETTLED_SECONDS = 2.0


class SourceState(NamedTuple):
    """What the file system says about the files of a source, and when it last changed one."""

    digest: str
    changed_seconds: float

    @property
    def is_settled(self) -> bool:
        """Whether the last change lies so far back that another one would show."""
        return time.time() - self.changed_seconds > _SETTLED_SECONDS


def files_of(source: Path) -> Iterator[Path]:
    """The file itself, or every file in a folder and in the folders in it, in a stable order."""
    if not source.is_dir():
        yield source
        return
    seen: set[str] = set()
    for folder, folders, names in os.walk(source, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above leads round and round
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def state_of(source: Path) -> SourceState:
    """Look at the files of a source as they are now.

    Raises:
        OSError: one of them is not there, or its folder cannot be looked into.
    """
    whole, latest = hashlib.blake2b(digest_size=16), 0
    for path in files_of(source):
        s = path.stat()
        facts = (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev)
        whole.update(repr((str(path), facts)).encode(errors="surrogateescape"))
        latest = max(latest, s.st_mtime_ns, s.st_ctime_ns)
    return SourceState(whole.hexdigest(), latest / 1e9)


def content_digest(source: Path, notes_dir: Path) -> str:
    """Hash the content of a source's files and their places below it.

    Args:
        source: a file or a folder.
        notes_dir: folder in which results are noted for the next time.

    Raises:
        OSError: a file cannot be read.
    """
    state = state_of(source)
    place = hashlib.blake2b(os.fsencode(source.absolute()), digest_size=16)
    note_path = notes_dir / f"{place.hexdigest()}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        note = parse_json(read_text(note_path))
        if note["state"] == state.digest:
            return str(note["content"])
    content = _hash_content(source)
    if state.is_settled:
        with suppress(OSError), publishing(note_path) as unfinished:
            unfinished.write_text(json.dumps({"state": state.digest, "content": content}))
    return content


def _hash_content(source: Path) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for path in files_of(source):
        place = os.fsencode(os.path.relpath(path, source))
        with path.open("rb") as file:
            content = hashlib.file_digest(file, hashlib.blake2b).digest()
        whole.update(len(place).to_bytes(8, "little") + place + content)
    return whole.hexdigest()


# What says where clips lie and what becomes of them, and not how a file is read.
_NOT_READING = {"train", "val", "test", "val_share", "cache", "cache_dir", "cache_gigabytes"}


@cache
def code_version() -> str:
    """A hash of the code that reads and prepares clips, and of the versions of what it stands on.

    So a cache filled by another version of slrctl is not mistaken for this one's, and nobody has
    to remember to count a number up.
    """
    whole = hashlib.blake2b(digest_size=16)
    whole.update(f"numpy {np.__version__}, pyarrow {pa.__version__}".encode())
    core = Path(__file__).resolve().parents[1]
    for path in (core / "clip.py", core / "skeleton.py", *sorted((core / "data").rglob("*.py"))):
        whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def reading_key(
    source: Path,
    settings: DataSettings,
    classes: Sequence[str] | None,
    prepare: PrepareSettings | None,
    notes_dir: Path,
) -> str:
    """The key of a source's clips as they are read with these settings.

    Args:
        source: what the user named, as an absolute path.
        settings: how it is read.
        classes: the glosses of training, if the source is to be evaluated with it.
        prepare: the canonical form of the clips.
        notes_dir: see `content_digest`.

    Raises:
        OSError: a file of the source cannot be read.
    """
    names = settings.gloss_names
    return _key(
        {
            # Clip ids of a CSV begin with its name; the names of folders may be those of signs.
            "name": source.parts[-2:] if source.is_dir() else source.name,
            "content": content_digest(place_of(source), notes_dir),
            "settings": settings.model_dump(mode="json", exclude=_NOT_READING | {"gloss_names"}),
            "gloss_names": None if names is None else content_digest(names, notes_dir),
            # They decide what the integer labels of a CSV count from.
            "classes": None if classes is None else list(classes),
            "canonical": canonical_settings(prepare),
        }
    )


def prepared_key(fingerprint: str, settings: Settings) -> str:
    """The key of normalised clips, from a fingerprint of the cleaned ones."""
    return _key(
        {
            "fingerprint": fingerprint,
            "prepare": settings.prepare.model_dump(mode="json"),
            "max_frames": settings.model.max_frames,
        }
    )


def _key(facts: dict[str, Any]) -> str:
    text = json.dumps({**facts, "code": code_version()}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
