"""The clips of a set in the frame of their torso, made when asked for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

from slrctl.core.clip import Clip
from slrctl.core.data.audit.torso import in_torso_frame

# Neighbouring pairs ask for the same clips; a few thousand take less than 100 MB.
_MOST_KEPT = 4096


class FramedClips:
    """A sequence of framed clips that remembers only the last few thousand."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips
        self._kept: dict[int, Float32[np.ndarray, "T 54 2"]] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: int) -> Float32[np.ndarray, "T 54 2"]:
        if row not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]  # the oldest
            clip = self._clips[row]
            self._kept[row] = in_torso_frame(clip.landmarks, clip.aspect)
        return self._kept[row]

    def length(self, row: int) -> int:
        """The number of frames, which takes no framing."""
        return self._clips[row].num_frames
