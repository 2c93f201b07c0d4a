"""The demo set: made signing, with its truth, for use where no data is given.

Not noise: a jointed body makes signs of five components (handshape, place, movement, orientation,
kind), in minimal pairs; signers differ in body, handedness, tempo and camera; a detector jitters
and loses landmarks.
"""

from slrctl.core.data.synthetic.generator import (
    ClipTruth,
    SynthesisParameters,
    SyntheticSet,
    synthesise,
)
from slrctl.core.data.synthetic.lexicon import Sign, lexicon, minimal_pairs

__all__ = [
    "ClipTruth",
    "Sign",
    "SynthesisParameters",
    "SyntheticSet",
    "lexicon",
    "minimal_pairs",
    "synthesise",
]
