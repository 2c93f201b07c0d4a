"""Clips of a mapped file as a sequence: each is made when it is asked for, and forgotten again."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

from slrctl.core.clip import Clip
from slrctl.core.data.cache.clip_file import TEXTS, MappedFile, column_values

# Rows whose columns become Python objects at a time.
_ROWS_TOGETHER = 1024


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
        for first in range(0, len(self.rows), _ROWS_TOGETHER):
            yield from self._clips(self.rows[first : first + _ROWS_TOGETHER])

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
