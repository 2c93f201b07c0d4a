"""Make the demo set: signers, their clips, and the truth about each of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64, UInt64

from slrctl.core.clip import Clip
from slrctl.core.data.dataset import SignDataset, ordered_classes
from slrctl.core.data.synthetic.body import draw_goals, perform
from slrctl.core.data.synthetic.detection import detect
from slrctl.core.data.synthetic.draws import bell, keys_for
from slrctl.core.data.synthetic.lexicon import Sign, lexicon
from slrctl.core.data.synthetic.parameters import SynthesisParameters
from slrctl.core.data.synthetic.signer import ASPECTS, Signer, draw_camera, draw_signer, project
from slrctl.core.data.synthetic.timing import draw_timing, strokes
from slrctl.core.seeding import counter_uniform

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
