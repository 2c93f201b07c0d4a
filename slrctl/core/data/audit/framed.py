"""The clips of a set in one frame of reference, made when asked for."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32

from slrctl.core.clip import Clip
from slrctl.core.data.audit.torso import in_torso_frame

# Neighbouring pairs ask for the same clips; a few thousand take less than 100 MB.
_MOST_KEPT = 4096


Frame = Callable[[Float32[np.ndarray, "T 54 2"], float], Float32[np.ndarray, "T 54 2"]]


def in_image_frame(
    landmarks: Float32[np.ndarray, "T 54 2"], aspect: float
) -> Float32[np.ndarray, "T 54 2"]:
    """The coordinates as they stand in the file, whatever the aspect."""
    return landmarks


class FramedClips:
    """A sequence of framed clips that remembers only the last few thousand."""

    def __init__(self, clips: Sequence[Clip], frame: Frame = in_torso_frame) -> None:
        self._clips = clips
        self._frame = frame
        self._kept: dict[int, Float32[np.ndarray, "T 54 2"]] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, row: int) -> Float32[np.ndarray, "T 54 2"]:
        if row not in self._kept:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]  # the oldest
            clip = self._clips[row]
            self._kept[row] = self._frame(clip.landmarks, clip.aspect)
        return self._kept[row]

    def length(self, row: int) -> int:
        """The number of frames, which takes no framing."""
        return self._clips[row].num_frames
