"""One file that holds clips in a form that is used where it lies, mapped into memory.

    frames    the landmarks of all clips behind one another, float32
    columns   everything else that is known of the clips: one Arrow record batch
    facts     a JSON object about the whole
    tail      where these three begin and end, their checksum, and a mark: the file is whole

An open file of a hundred thousand clips takes no memory of its own: the system reads pages when
they are touched, shares them between processes, and may forget them again. The landmarks stand
outside of Arrow because one array over all frames is cut in any place without a look at batches.
"""

import hashlib
import io
import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from slrctl.core import skeleton
from slrctl.core.clip import Clip

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
