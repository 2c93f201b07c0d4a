"""The demo set: synthetic signing, with its truth, for use where no data is given.

A jointed body makes signs of five components (handshape, place, movement, orientation, kind), in
minimal pairs; signers differ in body, handedness, tempo and camera; a detector jitters and loses
landmarks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt64

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, ordered_classes
from slrctl.core.data.synthetic.body import (
    Signer,
    bell,
    draw_goals,
    draw_signer,
    draw_timing,
    film,
    keys_of,
    perform,
)
from slrctl.core.data.synthetic.lexicon import MAX_GLOSSES, Sign, lexicon
from slrctl.core.seeding import counter_uniform
from slrctl.errors import UsageError

# Least and greatest value of every number.
_LIMITS: dict[str, tuple[float, float]] = {
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
_ASPECTS = (4 / 3, 16 / 9)
# A hand that hangs or is on its way up is not detected; no symmetric clock stops exactly here.
_DETECTED_FROM = 0.4
_LONGEST_GAP = 6

Side = Literal["left", "right"]


@dataclass(frozen=True)
class SynthesisParameters:
    """Numbers of the demo set; the defaults make the one used where no data is given."""

    num_glosses: int = 24
    num_train_signers: int = 5
    num_val_signers: int = 1
    num_test_signers: int = 2
    """In each split every second signer is left-handed, beginning with the second."""
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
        for name, (least, greatest) in _LIMITS.items():
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


@dataclass(frozen=True)
class ClipTruth:
    """Facts of a synthetic clip that nobody could know of a recorded one."""

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


def _detect(
    points: Float[np.ndarray, "N 54 2"],
    raised: Float[np.ndarray, "N 2"],
    frame: Int64[np.ndarray, " N"],
    keys: UInt64[np.ndarray, " N"],
    parameters: SynthesisParameters,
    jitter: Float[np.ndarray, " 2"],
) -> Float[np.ndarray, "N 54 2"]:
    """Jitter the landmarks of frames of many clips, and set the missing ones to NaN.

    `raised` is the height of the left and the right hand, `frame` the number of each frame in its
    clip, `jitter` the standard deviation in x and in y. Every frame has a key of its own.
    """
    noise = bell(keys, 2 * skeleton.NUM_LANDMARKS).reshape(points.shape)
    share = counter_uniform(keys ^ np.uint64(1), 4 + skeleton.NUM_BODY)
    detected = points + jitter * noise
    is_outside = np.any((points < 0) | (points > 1), axis=-1)

    is_lost = is_outside.copy()
    is_lost[:, skeleton.BODY] |= share[:, 4:] < parameters.landmark_dropout
    for side, hand in enumerate((skeleton.LEFT_HAND, skeleton.RIGHT_HAND)):
        # Detectors find a hand as a whole: all of its points, or none.
        is_gap = _gaps(share[:, side] < parameters.hand_dropout, share[:, 2 + side], frame)
        is_hidden = (raised[:, side] < _DETECTED_FROM) | is_gap | is_outside[:, hand.start]
        is_lost[:, hand] = is_hidden[:, None]
    detected[is_lost] = np.nan
    return detected


def _gaps(
    starts: Bool[np.ndarray, " N"],
    share: Float[np.ndarray, " N"],
    frame: Int64[np.ndarray, " N"],
) -> Bool[np.ndarray, " N"]:
    """Lengthen each start to a gap of 1 to _LONGEST_GAP frames that stays in its clip."""
    length = np.where(starts, 1 + np.floor(share * _LONGEST_GAP), 0)
    is_gap = np.zeros_like(starts)
    for age in range(_LONGEST_GAP):
        is_gap |= (np.roll(length, age) > age) & (frame >= age)
    return is_gap


def _record(
    parameters: SynthesisParameters,
    seed: int,
    split: str,
    signer: Signer,
    aspect: float,
    session: int,
    signs: tuple[Sign, ...],
) -> list[tuple[Clip, ClipTruth]]:
    """Synthesise all clips of one session of a signer."""
    numbers = range(session, parameters.repetitions, parameters.num_sessions)
    shown = [sign for sign in signs for _ in numbers]
    clip_ids = [f"{signer.name}-{sign.gloss}-{number + 1}" for sign in signs for number in numbers]
    timing_keys, goal_keys, sway_keys, frame_keys = (
        keys_of((seed, purpose, clip_id) for clip_id in clip_ids)
        for purpose in ("timing", "goals", "sway", "frames")
    )
    timing = draw_timing(
        timing_keys,
        shown,
        signer.tempo,
        (parameters.min_frames, parameters.max_frames),
        parameters.max_lag,
        is_left_handed=signer.is_left_handed,
    )
    clip = np.repeat(np.arange(len(shown)), timing.num_frames)
    starts = np.cumsum(timing.num_frames) - timing.num_frames
    frame = np.arange(len(clip)) - starts[clip]

    body, raised = perform(signer, shown, draw_goals(signer, shown, goal_keys), timing, clip, frame)
    # The whole body sways slowly, in shoulder distances.
    sway, pace = 0.015 * bell(sway_keys, 3), counter_uniform(sway_keys ^ np.uint64(1), 2)
    cycles = pace[:, 0][clip] + frame * (0.01 + 0.02 * pace[:, 1])[clip]
    body = body + (sway[clip] * np.sin(2 * np.pi * cycles)[:, None])[:, None]
    session_name = f"{signer.name}-{chr(ord('a') + session)}"
    points, scale = film(body, seed, signer.name, session_name, aspect)
    drawn = counter_uniform(frame_keys, int(timing.num_frames.max()))[clip, frame]
    detected = _detect(
        points,
        raised,
        frame,
        (drawn * 2.0**53).astype(np.uint64),
        parameters,
        parameters.jitter * scale / np.array([aspect, 1.0]),
    )
    # Rounded so that the last bit of a machine's sine never reaches a clip's fingerprint.
    landmarks = np.split(np.round(detected, 5).astype(np.float32), starts[1:])
    strokes = timing.strokes.tolist()
    dominant: Side = "left" if signer.is_left_handed else "right"
    recorded = []
    for row, (clip_id, sign) in enumerate(zip(clip_ids, shown, strict=True)):
        lag = int(timing.lag[row])
        leading: Side = dominant if lag == 0 else "left" if lag > 0 else "right"
        truth = ClipTruth(
            dominant_hand=dominant,
            leading_hand=leading,
            lag=lag if sign.both_move else None,
            kind=sign.kind,
            is_two_handed=sign.is_two_handed,
            stroke=(strokes[row][0], strokes[row][1]),
        )
        names = (signer.name, session_name, split)
        frames = landmarks[row]
        recorded.append((Clip(clip_id, sign.gloss, frames, *names, signer.fps, aspect), truth))
    return recorded


def synthesise(
    parameters: SynthesisParameters | None = None, seed: int = 0, *, name: str = "demo"
) -> SyntheticSet:
    """Synthesise a set of clips, the same on every machine for the same arguments.

    Every clip follows from the seed, its signer, gloss and number alone: with more signers, glosses
    or repetitions the other clips stay as they are.
    """
    parameters = parameters or SynthesisParameters()
    signs = lexicon(parameters.num_glosses)
    recorded: list[tuple[Clip, ClipTruth]] = []
    for split in ("train", "val", "test"):
        for number in range(getattr(parameters, f"num_{split}_signers")):
            # Handedness and aspect take turns, so that both occur in small splits too, in train in
            # all combinations.
            signer = draw_signer(seed, f"{split}{number + 1}", is_left_handed=number % 2 == 1)
            aspect = _ASPECTS[(number // 2 if split == "train" else number) % 2]
            for session in range(min(parameters.num_sessions, parameters.repetitions)):
                recorded += _record(parameters, seed, split, signer, aspect, session, signs)
    dataset = SignDataset(
        clips=tuple(clip for clip, _ in recorded),
        classes=ordered_classes(sign.gloss for sign in signs),
        name=name,
    )
    return SyntheticSet(dataset, {clip.clip_id: truth for clip, truth in recorded}, signs)
