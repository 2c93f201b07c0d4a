"""Make the demo set: signers, their clips, and the truth about each of them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, ordered_classes
from slrctl.core.data.synthetic.body import (
    ASPECTS,
    Signer,
    bell,
    draw_camera,
    draw_goals,
    draw_signer,
    keys_for,
    perform,
    project,
)
from slrctl.core.data.synthetic.lexicon import MAX_GLOSSES, Sign, draw_timing, lexicon, strokes
from slrctl.core.seeding import counter_uniform
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


# A hand hanging or on its way up is not detected; no symmetric clock stops exactly here.
SEEN_FROM = 0.4
LONGEST_GAP = 6


def detect(
    points: Float[np.ndarray, "N 54 2"],
    raised: Float[np.ndarray, "N 2"],
    frame: Int64[np.ndarray, " N"],
    keys: UInt64[np.ndarray, " N"],
    *,
    jitter: Float[np.ndarray, " 2"],
    hand_dropout: float,
    landmark_dropout: float,
) -> Float[np.ndarray, "N 54 2"]:
    """Jitter the landmarks and set the missing ones to NaN.

    Args:
        points: true positions, frames of many clips one after the other.
        raised: how far the left and the right hand are up.
        frame: number of each frame in its clip.
        keys: one random key a frame.
        jitter: standard deviation in x and in y.
        hand_dropout: probability that a hand is lost from this frame on, for up to LONGEST_GAP.
        landmark_dropout: probability that a landmark of the body is lost in a frame.
    """
    noise = bell(keys, 2 * skeleton.NUM_LANDMARKS).reshape(points.shape)
    share = counter_uniform(keys ^ np.uint64(1), 4 + skeleton.NUM_BODY)
    seen = points + jitter * noise
    is_outside = np.any((points < 0) | (points > 1), axis=-1)

    is_lost = is_outside.copy()
    is_lost[:, skeleton.BODY] |= share[:, 4:] < landmark_dropout
    for side, hand in enumerate((skeleton.LEFT_HAND, skeleton.RIGHT_HAND)):
        # Detectors find a hand as a whole: all of its points, or none.
        is_gap = _gaps(share[:, side] < hand_dropout, share[:, 2 + side], frame)
        is_hidden = (raised[:, side] < SEEN_FROM) | is_gap | is_outside[:, hand.start]
        is_lost[:, hand] = is_hidden[:, None]
    seen[is_lost] = np.nan
    return seen


def _gaps(
    starts: Bool[np.ndarray, " N"],
    share: Float[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> Bool[np.ndarray, " N"]:
    """Lengthen each start to a gap of 1 to LONGEST_GAP frames that stays in its clip."""
    length = np.where(starts, 1 + np.floor(share * LONGEST_GAP), 0)
    is_gap = np.zeros_like(starts)
    for age in range(LONGEST_GAP):
        is_gap |= (np.roll(length, age) > age) & (frame >= age)
    return is_gap


Side = Literal["left", "right"]


@dataclass(frozen=True)
class ClipTruth:
    """What is known of a made clip because we made it."""

    dominant_hand: Side
    """The signer's: the one hand of a one-handed sign, the moving one above a base hand."""
    leading_hand: Side
    """The hand that is ahead in time; the dominant one where neither is."""
    lag: int | None
    """Frame i of the left hand does what frame i + lag of the right hand does, so a true
    left-to-right attention peaks at j = i + lag. None unless both hands move."""
    kind: str
    """one, mirrored, alternating or base."""
    is_two_handed: bool
    stroke: tuple[int, int]
    """First frame, and one past the last, in which a moving hand is between approach and return."""


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """Clips, the truth about each by its `clip_id`, and the signs behind the glosses."""

    dataset: SignDataset
    truth: Mapping[str, ClipTruth]
    signs: tuple[Sign, ...]


def synthesise(
    parameters: SynthesisParameters | None = None, seed: int = 0, *, name: str = "demo"
) -> SyntheticSet:
    """Make a set of clips, the same on every machine for the same arguments.

    Every clip follows from the seed, its signer, gloss and number alone: more signers, glosses or
    repetitions leave the clips that were there as they were.
    """
    parameters = parameters or SynthesisParameters()
    signs = lexicon(parameters.num_glosses)
    made = [
        pair
        for split, signer, aspect in _people(parameters, seed)
        for session in range(min(parameters.num_sessions, parameters.repetitions))
        for pair in _film(parameters, seed, split, signer, aspect, session, signs)
    ]
    dataset = SignDataset(
        clips=tuple(clip for clip, _ in made),
        classes=ordered_classes(sign.gloss for sign in signs),
        name=name,
    )
    return SyntheticSet(dataset, {clip.clip_id: truth for clip, truth in made}, signs)


def _people(parameters: SynthesisParameters, seed: int) -> Iterator[tuple[str, Signer, float]]:
    """Every signer with their part and the aspect of their camera."""
    for split in ("train", "val", "test"):
        for number in range(getattr(parameters, f"num_{split}_signers")):
            # Handedness and aspect go round, so that both occur in small parts too, in train in
            # all combinations.
            signer = draw_signer(seed, f"{split}{number + 1}", is_left_handed=number % 2 == 1)
            turn = number // 2 if split == "train" else number
            yield split, signer, ASPECTS[turn % 2]


def _film(
    parameters: SynthesisParameters,
    seed: int,
    split: str,
    signer: Signer,
    aspect: float,
    session: int,
    signs: tuple[Sign, ...],
) -> list[tuple[Clip, ClipTruth]]:
    """All clips of one session of a signer."""
    numbers = range(session, parameters.repetitions, parameters.num_sessions)
    shown = [sign for sign in signs for _ in numbers]
    clip_ids = [f"{signer.name}-{sign.gloss}-{number + 1}" for sign in signs for number in numbers]
    keys = {
        purpose: keys_for((seed, purpose, clip_id) for clip_id in clip_ids)
        for purpose in ("timing", "goals", "sway", "frames")
    }
    timing = draw_timing(
        keys["timing"],
        shown,
        signer.tempo,
        (parameters.min_frames, parameters.max_frames),
        parameters.max_lag,
        is_left_handed=signer.is_left_handed,
    )
    clip = np.repeat(np.arange(len(shown)), timing.num_frames)
    starts = np.cumsum(timing.num_frames) - timing.num_frames
    frame = np.arange(len(clip)) - starts[clip]

    goals = draw_goals(signer, shown, keys["goals"])
    body, raised = perform(signer, shown, goals, timing, clip, frame)
    session_name = f"{signer.name}-{chr(ord('a') + session)}"
    camera = draw_camera(seed, signer.name, session_name, aspect)
    filmed = project(camera, body + _sway(keys["sway"], clip, frame))
    detected = detect(
        filmed,
        raised,
        frame,
        _frame_keys(keys["frames"], timing.num_frames, clip, frame),
        jitter=parameters.jitter * camera.scale / np.array([aspect, 1.0]),
        hand_dropout=parameters.hand_dropout,
        landmark_dropout=parameters.landmark_dropout,
    )
    # Rounded so that the last bit of a machine's sine never reaches a clip's fingerprint.
    landmarks = np.split(np.round(detected, 5).astype(np.float32), starts[1:])
    spans = strokes(timing, np.array([sign.kind in ("mirrored", "alternating") for sign in shown]))
    return [
        (
            Clip(clip_id, sign.gloss, frames, signer.name, session_name, split, signer.fps, aspect),
            _truth(signer, sign, int(lag), (int(first), int(last))),
        )
        for clip_id, sign, frames, lag, (first, last) in zip(
            clip_ids, shown, landmarks, timing.lag, spans, strict=True
        )
    ]


def _truth(signer: Signer, sign: Sign, lag: int, stroke: tuple[int, int]) -> ClipTruth:
    dominant: Side = "left" if signer.is_left_handed else "right"
    ahead: Side = "left" if lag > 0 else "right"
    return ClipTruth(
        dominant_hand=dominant,
        leading_hand=ahead if lag else dominant,
        lag=lag if sign.kind in ("mirrored", "alternating") else None,
        kind=sign.kind,
        is_two_handed=sign.is_two_handed,
        stroke=stroke,
    )


def _frame_keys(
    keys: UInt64[np.ndarray, " B"],
    num_frames: Int64[np.ndarray, " B"],
    clip: Int64[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> UInt64[np.ndarray, " N"]:
    drawn = counter_uniform(keys, int(num_frames.max()))
    return (drawn * 2.0**53).astype(np.uint64)[clip, frame]


def _sway(
    keys: UInt64[np.ndarray, " B"],
    clip: Int64[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> Float[np.ndarray, "N 1 3"]:
    """The slow swaying of the whole body, in shoulder distances."""
    size = 0.015 * bell(keys, 3)
    share = counter_uniform(keys ^ np.uint64(1), 2)
    cycles = share[:, 0][clip] + frame * (0.01 + 0.02 * share[:, 1])[clip]
    return (size[clip] * np.sin(2 * np.pi * cycles)[:, None])[:, None]
