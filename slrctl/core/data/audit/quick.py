"""Leaks that cost next to nothing to find, looked for before every training.

A copy that was only moved, scaled, stretched or mirrored misses the landmarks that the original
misses, and has the same coordinates once both axes are measured from their mean in their spread. So
clips are compared by a hash of what is missing and by a few coordinates.
"""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Float32
from scipy.spatial import KDTree

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.splitter import Unit

_NUM_POINTS = 12
# Float16 and rounding to three places leave less, in spreads of the coordinates.
_TOLERANCE = 0.01


def group_name(clip: Clip, unit: Unit) -> str | None:
    """Return the signer or session; two signers' sessions of one name are two sessions."""
    if unit == "signer" or clip.session is None or clip.signer is None:
        return clip.signer if unit == "signer" else clip.session
    return f"{clip.signer} / {clip.session}"


def copies_in(training: Sequence[Clip], others: Sequence[Clip]) -> set[int]:
    """Return the rows of the other clips that are training clips, moved, scaled or mirrored."""
    points: dict[bytes, list[Float32[np.ndarray, " 24"]]] = defaultdict(list)
    for clip in training:
        if (essence := _essence(clip.landmarks)) is not None:
            points[essence[0]].append(essence[1])
    trees: dict[bytes, KDTree] = {}
    found = set()
    for row, clip in enumerate(others):
        mirror_image = clip.landmarks[:, skeleton.MIRROR] * np.array([-1, 1], np.float32)
        for landmarks in (clip.landmarks, mirror_image):
            essence = _essence(landmarks)
            if essence is None or essence[0] not in points:
                continue
            key, values = essence
            if key not in trees:
                trees[key] = KDTree(np.array(points[key]))
            distance, _ = trees[key].query(values, p=np.inf, distance_upper_bound=_TOLERANCE)
            if np.isfinite(distance):
                found.add(row)
    return found


def _essence(
    landmarks: Float32[np.ndarray, "T 54 2"],
) -> tuple[bytes, Float32[np.ndarray, " 24"]] | None:
    """Hash what is missing of a clip, and scale a few known landmarks; None if none is known."""
    is_known = ~np.isnan(landmarks[..., 0])
    known = landmarks[is_known]
    if len(known) == 0:
        return None
    key = blake2b(np.packbits(is_known).tobytes(), digest_size=8)
    key.update(len(landmarks).to_bytes(4, "little"))
    spread = np.maximum(known.std(axis=0), 1e-6)
    chosen = known[np.linspace(0, len(known) - 1, _NUM_POINTS).astype(np.int64)]
    return key.digest(), ((chosen - known.mean(axis=0)) / spread).ravel()
