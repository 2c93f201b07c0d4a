"""The part of an audit that costs next to nothing: done before every training.

A copy that was only moved, scaled, stretched or mirrored has its landmarks missing in the same
places as the original, and, once both axes are measured from their mean in their spread, the same
coordinates. So clips are compared by a hash of what is missing and by a few coordinates.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from scipy.spatial import KDTree

from slrctl.core import skeleton
from slrctl.core.clip import Clip

_NUM_POINTS = 12
# Float16 and rounding to three places leave less, in spreads of the coordinates.
_TOLERANCE = 0.01
_NOTHING = b""
"""The key of a clip without a single landmark, which is no copy of another such."""


class Essentials(NamedTuple):
    """For each clip a hash of what is missing, and the coordinates of a few known landmarks."""

    keys: list[bytes]
    values: Float32[np.ndarray, "N 24"]


def essentials(clips: Iterable[Clip], *, is_mirrored: bool = False) -> Essentials:
    """Read every clip once, as it is or as its mirror image."""
    found = [_essence(clip.landmarks, is_mirrored) for clip in clips]
    values = [value for _, value in found]
    return Essentials([key for key, _ in found], np.array(values).reshape(-1, 2 * _NUM_POINTS))


def _essence(
    landmarks: Float32[np.ndarray, "T 54 2"], is_mirrored: bool
) -> tuple[bytes, Float32[np.ndarray, " 24"]]:
    if is_mirrored:
        landmarks = landmarks[:, skeleton.MIRROR] * np.array([-1, 1], np.float32)
    is_known = ~np.isnan(landmarks[..., 0])
    key = blake2b(np.packbits(is_known).tobytes(), digest_size=8)
    key.update(len(landmarks).to_bytes(4, "little"))
    known = landmarks[is_known]
    if len(known) == 0:
        return _NOTHING, np.zeros(2 * _NUM_POINTS, np.float32)
    spread = np.maximum(known.std(axis=0), 1e-6)
    chosen = known[np.linspace(0, len(known) - 1, _NUM_POINTS).astype(np.int64)]
    return key.digest(), ((chosen - known.mean(axis=0)) / spread).ravel()


def copies_in(training: Essentials, part: Sequence[Clip]) -> set[int]:
    """Rows of the part that are training clips, as they are, moved, scaled or mirrored."""
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(training.keys):
        rows_of[key].append(row)
    rows_of.pop(_NOTHING, None)
    trees: dict[bytes, KDTree] = {}
    found = set()
    for is_mirrored in (False, True):
        mine = essentials(part, is_mirrored=is_mirrored)
        for row, (key, value) in enumerate(zip(mine.keys, mine.values, strict=True)):
            if key not in rows_of:
                continue
            if key not in trees:
                trees[key] = KDTree(training.values[rows_of[key]])
            distance, _ = trees[key].query(value, p=np.inf, distance_upper_bound=_TOLERANCE)
            if np.isfinite(distance):
                found.add(row)
    return found


def shared_names(training: Iterable[Clip], part: Iterable[Clip]) -> Iterator[tuple[str, list[str]]]:
    """Signer and session, each with the names that both show, where there are any."""
    first, second = _names(training), _names(part)
    for kind, mine, theirs in zip(("signer", "session"), first, second, strict=True):
        if mine & theirs:
            yield kind, sorted(mine & theirs)


def _names(clips: Iterable[Clip]) -> tuple[set[str], set[str]]:
    """Signers and sessions; a session is one signer's, where the signer is known."""
    signers, sessions = set(), set()
    for clip in clips:
        if clip.signer is not None:
            signers.add(clip.signer)
        if clip.session is not None:
            both = (clip.signer, clip.session)
            sessions.add(" / ".join(name for name in both if name is not None))
    return signers, sessions
