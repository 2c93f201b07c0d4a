"""The training step, single predictions and evaluation, for the default and the published recipe.

Clips are synthetic, of 60 frames, and go the whole way from landmarks in memory. The recipes are
timed in turn, so that a busy machine slows both; read the ratios. Threads wait for one another as
in the command `slrctl`, without spinning.

Usage: python benchmarks/training.py [ROUNDS]         two threads; OMP_NUM_THREADS changes that
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

import torch

from slrctl.core.clip import Clip
from slrctl.core.data.batches import clip_batch, evaluation_batches, training_micro_batches
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.prepare import resample_frames
from slrctl.core.data.synthetic import synthesise
from slrctl.core.devices import keep_freed_memory, one_thread
from slrctl.evaluation.predictions import predict
from slrctl.layers import read_overrides, resolve
from slrctl.settings import Settings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.state import TrainingState

BATCH, NUM_FRAMES, NUM_CLASSES = 32, 60, 100
STEPS = 10
EVALUATED = 10_000
CPU = torch.device("cpu")
CLASSES = tuple(f"gloss {label}" for label in range(NUM_CLASSES))
CHANGES = {
    "default": (),
    "default, CMCL balanced": ("cmcl.preset=balanced",),
    "default, no fusion": ("model.cross_attention=false",),
    "gru": ("model.name=gru",),
    "conv": ("model.name=conv",),
    "published": ("recipe=siformer",),
}


def settings_with(*changes: str) -> Settings:
    fixed = (f"train.batch_size={BATCH}", "train.diagnostics_every=1000000")
    return resolve(read_overrides([*changes, *fixed])).settings


def clips_of(num_clips: int) -> SignDataset:
    """Synthetic clips, stretched or thinned to 60 frames, under 100 glosses."""
    made = list(synthesise().dataset)
    clips = (
        replace(
            made[number % len(made)],
            clip_id=str(number),
            gloss=CLASSES[number % NUM_CLASSES],
            landmarks=resample_frames(made[number % len(made)].landmarks, NUM_FRAMES),
        )
        for number in range(num_clips)
    )
    return SignDataset(tuple(clips), CLASSES, "60 frames")


def steps_of(settings: Settings, dataset: SignDataset) -> Callable[[], object]:
    """A training that goes some steps further with every call."""
    state = TrainingState.initial(settings, CLASSES, CPU)
    data = TrainingData(
        lambda epoch, start: (
            batch
            for number in count()
            for batch in training_micro_batches(dataset, settings, number, device=CPU)
        ),
        10**6,
        lambda: iter(()),
    )
    reports = train_epochs(state, data)
    return lambda: [next(reports) for _ in range(STEPS)]


def prediction_of(settings: Settings, clip: Clip) -> Callable[[], object]:
    """One clip from its landmarks to a label."""
    model = TrainingState.initial(settings, CLASSES, CPU).model.eval()

    @torch.no_grad()
    def label() -> int:
        return int(model(clip_batch([clip], None, settings)).logits.argmax())

    return label


def evaluation_of(settings: Settings, dataset: SignDataset) -> Callable[[], object]:
    """All clips from their landmarks to probabilities, as `slrctl evaluate` does it."""
    model = TrainingState.initial(settings, CLASSES, CPU).model
    return lambda: predict(model, dataset, evaluation_batches(dataset, settings), CPU)


def in_turn(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each piece of work, timed in turn."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(of_one) for name, of_one in seconds.items()}


def main(rounds: int) -> None:
    keep_freed_memory()
    settings = {name: settings_with(*changes) for name, changes in CHANGES.items()}
    dataset = clips_of(20 * BATCH)
    found = in_turn({name: steps_of(one, dataset) for name, one in settings.items()}, rounds)
    print(f"| training step, {BATCH} clips of {NUM_FRAMES} frames | ms | clips/s | of published |")
    print("|---|---|---|---|")
    for name, seconds in found.items():
        step = seconds / STEPS
        ratio = found["published"] / seconds
        print(f"| {name} | {1e3 * step:.0f} | {BATCH / step:.0f} | {ratio:.1f} x |", flush=True)

    both = {name: settings[name] for name in ("default", "published")}
    (clip,) = clips_of(1)
    with one_thread():
        found = in_turn({name: prediction_of(one, clip) for name, one in both.items()}, 20 * rounds)
    print("\n| one clip, landmarks to label, one thread | ms |\n|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | {1e3 * seconds:.1f} |", flush=True)

    many = clips_of(EVALUATED)
    found = in_turn({"default": evaluation_of(both["default"], many)}, rounds)
    print(f"\nEvaluation of {EVALUATED:,} clips: {found['default']:.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
