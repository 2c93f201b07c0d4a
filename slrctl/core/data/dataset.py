"""A set of clips with its classes, read from any format we know."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from slrctl.core.clip import Clip
from slrctl.core.data.formats import Reading, read_clips
from slrctl.core.skeleton import LEFT_HAND, RIGHT_HAND
from slrctl.settings import DataSettings


@dataclass(frozen=True, eq=False)
class SignDataset(Sequence[Clip]):
    """Clips in the order of their file, and the glosses they show.

    `classes` is in the order of a model's logits. `notes` are one-line remarks on how the file was
    read (its orientation, padding cut off, label base), for the user to see.
    """

    clips: tuple[Clip, ...]
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Clip, ...]: ...
    def __getitem__(self, index: int | slice) -> Clip | tuple[Clip, ...]:
        return self.clips[index]

    def __len__(self) -> int:
        return len(self.clips)

    def part(self, clips: Iterable[Clip]) -> "SignDataset":
        """Some of the clips, under the same classes."""
        return replace(self, clips=tuple(clips), notes=())

    def fingerprint(self) -> str:
        """A hash of everything a training sees: ids, glosses and every landmark's bits."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(f"{clip.clip_id}\x1f{clip.gloss}\x1f{clip.num_frames}\x1e".encode())
            digest.update(clip.landmarks.tobytes())
        return digest.hexdigest()


def ordered_classes(glosses: Iterable[str]) -> tuple[str, ...]:
    """Distinct glosses in a stable order: by number where all are integers, else by text."""
    distinct = set(glosses)
    if all(gloss.isascii() and gloss.isdigit() for gloss in distinct):
        return tuple(sorted(distinct, key=lambda gloss: (int(gloss), gloss)))
    return tuple(sorted(distinct))


def load_dataset(
    path: Path | str,
    settings: DataSettings | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> SignDataset:
    """Read clips from a file, whatever its format.

    Args:
        path: a SPOTER/WLASL CSV or our own Parquet.
        settings: how to read it; the defaults if absent.
        classes: the glosses of the training set, where this file is to be evaluated with it. They
            decide whether integer labels count from 0 or from 1.

    Raises:
        DataError: the file cannot be read, or holds a gloss that is not among `classes`.
    """
    path = Path(path)
    reading: Reading = read_clips(path, settings or DataSettings(), classes)
    return SignDataset(
        clips=tuple(reading.clips),
        classes=tuple(classes) if classes else ordered_classes(c.gloss for c in reading.clips),
        name=path.stem,
        notes=tuple(reading.notes),
    )


def missing_hand_share(dataset: SignDataset) -> tuple[float, float]:
    """Share of frames without the left hand, and without the right one."""
    landmarks = np.concatenate([clip.landmarks for clip in dataset])
    is_missing = np.isnan(landmarks).any(-1)
    return (
        float(is_missing[:, LEFT_HAND].all(-1).mean()),
        float(is_missing[:, RIGHT_HAND].all(-1).mean()),
    )
