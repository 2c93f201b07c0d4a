"""How large and how hard a made set is."""

import math
from dataclasses import dataclass

from slrctl.core.data.synthetic.lexicon import MAX_GLOSSES
from slrctl.errors import UsageError

# (least, greatest) of every number.
LIMITS: dict[str, tuple[float, float]] = {
    "num_glosses": (2, MAX_GLOSSES),
    "num_train_signers": (1, 1000),
    "num_val_signers": (0, 1000),
    "num_test_signers": (0, 1000),
    "repetitions": (1, 1000),
    "num_sessions": (1, 26),
    "min_frames": (8, 10_000),
    "max_frames": (8, 10_000),
    "max_lag": (0, 1000),
    "jitter": (0, 1),
    "hand_dropout": (0, 1),
    "landmark_dropout": (0, 1),
}


@dataclass(frozen=True)
class SynthesisParameters:
    """Numbers of the demo set; the defaults make the one used where no data is given."""

    num_glosses: int = 24
    num_train_signers: int = 5
    num_val_signers: int = 1
    num_test_signers: int = 2
    """In each part every second signer is left-handed, beginning with the second."""
    repetitions: int = 6
    """Clips of each gloss by each signer."""
    num_sessions: int = 2
    """Recording days of each signer; the camera stands a little differently on each."""
    min_frames: int = 20
    max_frames: int = 60
    max_lag: int = 8
    """Largest lag between two moving hands, in frames, either way; drawn evenly."""
    jitter: float = 0.012
    """Standard deviation of a detected landmark, in shoulder distances."""
    hand_dropout: float = 0.03
    """Probability that a hand is lost from a given frame on, for 1 to 6 frames."""
    landmark_dropout: float = 0.005
    """Probability that a landmark of the body is lost in a frame."""

    def __post_init__(self) -> None:
        for name, (least, greatest) in LIMITS.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and least <= value <= greatest):
                raise UsageError(
                    f"{name} ({value}) must be from {least} to {greatest}; set it in between"
                )
        if self.min_frames + self.max_lag > self.max_frames:
            raise UsageError(
                f"min_frames ({self.min_frames}) + max_lag ({self.max_lag}) must not exceed "
                f"max_frames ({self.max_frames}), since a lag lengthens a clip; "
                "lower max_lag or raise max_frames"
            )
