"""The training step, evaluation and single predictions, beside what the processor can do at most.

Every figure stands beside the rate of a large matrix product measured next to it, so that a busy
machine slows both: *of peak* is the share of that rate, *of published* the multiple of the
published code's 12.6 clips a second, which it reaches where `torch.mm` does 183 GFLOP/s, scaled to
the rate found here. Sizes are the published ones: batch 24, 204 frames, 100 classes.

Threads wait for one another as in the command `slrctl`, without spinning.

Usage: python benchmarks/training.py [ROUNDS]         two threads; OMP_NUM_THREADS changes that
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported

import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from slrctl.core.clip import ClipBatch, collate
from slrctl.core.data.batches import (
    MicroBatch,
    evaluation_batches,
    num_micro_batches,
    prepare_clips,
)
from slrctl.core.data.prepare import prepare_clip
from slrctl.core.data.splits import load_splits
from slrctl.core.data.synthetic import synthesise
from slrctl.core.devices import keep_freed_memory, map_on, one_thread
from slrctl.core.skeleton import BODY_WIDTH, HAND_WIDTH
from slrctl.evaluation.predictions import predict
from slrctl.layers import read_overrides, resolve
from slrctl.settings import Settings
from slrctl.training.loop import EpochReport, TrainingData, train_epochs
from slrctl.training.state import TrainingState

BATCH, NUM_FRAMES, NUM_CLASSES = 24, 204, 100
PUBLISHED_CLIPS, PUBLISHED_PEAK = 12.6, 183e9
SIDE = 2048
CPU = torch.device("cpu")
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


class Figure(NamedTuple):
    """Medians over rounds: seconds of the work, FLOP/s of `torch.mm` beside it."""

    seconds: float
    peak: float


def mm_rate(dtype: torch.dtype) -> float:
    """FLOP/s of a product of 2048 x 2048 matrices."""
    left = torch.ones(SIDE, SIDE, dtype=dtype)
    torch.mm(left, left)
    started = time.perf_counter()
    for _ in range(3):
        torch.mm(left, left)
    return 3 * 2 * SIDE**3 / (time.perf_counter() - started)


def beside_peak(
    works: Sequence[Callable[[], object]], dtypes: Sequence[torch.dtype], rounds: int
) -> list[Figure]:
    """Time several pieces of work in turn, each beside a matrix product of its type."""
    for work in works:
        for _ in range(2):
            work()
    seconds: list[list[float]] = [[] for _ in works]
    peaks: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for number, (work, dtype) in enumerate(zip(works, dtypes, strict=True)):
            peak = mm_rate(dtype)
            started = time.perf_counter()
            work()
            seconds[number].append(time.perf_counter() - started)
            peaks[number].append((peak + mm_rate(dtype)) / 2)
    return [
        Figure(statistics.median(s), statistics.median(p))
        for s, p in zip(seconds, peaks, strict=True)
    ]


def random_batch(num_clips: int, num_frames: int, seed: int = 0, missing: float = 0.2) -> ClipBatch:
    """Features of the size that landmarks have, each hand missing in a share of the frames."""
    draws = torch.Generator().manual_seed(seed)
    is_there = torch.rand(num_clips, num_frames, 2, generator=draws) > missing
    hands = torch.randn(num_clips, num_frames, 2, HAND_WIDTH, generator=draws).mul_(0.2)
    left, right = (hands * is_there[..., None]).unbind(2)
    return ClipBatch(
        left_hand=left,
        right_hand=right,
        body=torch.randn(num_clips, num_frames, BODY_WIDTH, generator=draws).mul_(0.2),
        is_valid=torch.ones(num_clips, num_frames, dtype=torch.bool),
        left_is_present=is_there[..., 0],
        right_is_present=is_there[..., 1],
        target=torch.randint(NUM_CLASSES, (num_clips,), generator=draws),
        clip_ids=tuple(map(str, range(num_clips))),
    )


def random_micro_batches(
    num_clips: int, num_frames: int, seed: int = 0, missing: float = 0.2
) -> list[MicroBatch]:
    """A random batch, cut as a training on a CPU cuts it."""
    count = num_micro_batches(num_clips * num_frames, 1, CPU)
    sizes = [len(range(index, num_clips, count)) for index in range(count)]
    return [
        MicroBatch(index, random_batch(size, num_frames, 1000 * seed + index, missing))
        for index, size in enumerate(sizes)
    ]


def settings_with(*changes: str) -> Settings:
    return resolve(read_overrides([*changes, "train.diagnostics_every=1000000"])).settings


def steps_of(
    settings: Settings, num_frames: int = NUM_FRAMES, missing: float = 0.2
) -> Callable[[], object]:
    """A training that goes one step further with every call."""
    batches = [random_micro_batches(BATCH, num_frames, seed, missing) for seed in range(4)]
    num_batches = 10**6
    state = TrainingState.initial(settings, tuple(map(str, range(NUM_CLASSES))), CPU)
    data = TrainingData(
        lambda epoch, start: (batches[n % 4] for n in range(num_batches)),
        num_batches,
        lambda: iter(()),
    )
    reports = train_epochs(state, data)
    return lambda: next(reports)


def flop_of_step(settings: Settings) -> int:
    """Multiplications and additions of a step's matrix products."""
    step = steps_of(settings)
    step()  # the first one also measures the terms' gradients
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the counter sees one thread
    with FlopCounterMode(display=False) as counter:
        step()
    torch.set_num_threads(num_threads)
    return counter.get_total_flops()


def training_steps(rounds: int) -> float:
    """The table of training steps; returns the published rate, scaled to this processor."""
    kinds = {
        "full attention, fusion, CMCL": (0.2, "cmcl.preset=balanced"),
        "CE": (0.2,),
        "CE, no fusion": (0.2, "model.cross_attention=false"),
        "CE, hands missing in half of the frames": (0.5,),
    }
    variants = {
        (name, precision): (settings_with(*changes, f"train.precision={precision}"), missing)
        for name, (missing, *changes) in kinds.items()
        for precision in ("fp32", "bf16")
    }
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    names = list(variants)
    figures = dict(
        zip(
            names,
            beside_peak(
                [steps_of(settings, missing=missing) for settings, missing in variants.values()],
                [types[precision] for _, precision in names],
                rounds,
            ),
            strict=True,
        )
    )
    fp32_peak = statistics.median(
        figure.peak for (_, precision), figure in figures.items() if precision == "fp32"
    )
    flop = flop_of_step(variants[names[0]][0])
    print(f"`torch.mm`: fp32 {fp32_peak / 1e9:.0f} GFLOP/s, ", end="")
    print(f"bf16 {figures[names[1]].peak / 1e9:.0f}; a step is {flop / 1e9:.0f} GFLOP\n")
    print("| training step, 24 clips of 204 frames | clips/s | of published | of peak |")
    print("|---|---|---|---|")
    for (name, precision), (seconds, peak) in figures.items():
        published = PUBLISHED_CLIPS * fp32_peak / PUBLISHED_PEAK
        share = f"{flop / seconds / peak:.0%}" if name == names[0][0] else ""
        print(
            f"| {precision}: {name} | {BATCH / seconds:.1f} "
            f"| {BATCH / seconds / published:.2f} x | {share} |"
        )
    for precision in types:
        cmcl, ce, alone, half = (figures[name, precision].seconds for name in kinds)
        print(
            f"\n{precision}: CMCL costs {cmcl / ce - 1:+.1%} over CE, fusion {ce / alone - 1:+.1%} "
            f"over none, {half / alone - 1:+.1%} where half of the hands are missing"
        )
    return PUBLISHED_CLIPS * fp32_peak / PUBLISHED_PEAK


def evaluation(rounds: int) -> None:
    """Clips a second through the model, batched."""
    print("\n| evaluation, batches of 64 | clips/s |\n|---|---|")
    for num_frames in (NUM_FRAMES, 20):
        state = TrainingState.initial(settings_with(), tuple(map(str, range(NUM_CLASSES))), CPU)
        model = state.model.eval()
        batches = [random_batch(64, num_frames, seed) for seed in range(4)]

        @torch.no_grad()
        def logits(batch: ClipBatch, model: Any = model):
            return model(batch).logits.softmax(-1)

        work = partial(_all, logits, batches)
        (figure,) = beside_peak([work], [torch.float32], rounds)
        print(f"| {num_frames} frames | {len(batches) * 64 / figure.seconds:,.0f} |", flush=True)


def _all(predict: Callable[[ClipBatch], object], batches: Sequence[ClipBatch]) -> None:
    """Predict all batches, as `slrctl evaluate` does."""
    for _ in map_on(CPU, predict, batches):
        pass


def real_lengths(published: float) -> None:
    """An epoch of real clips, and their evaluation, where the files lie beside the project."""
    print("\n| real clips | epoch, clips/s | of published, padded to 204 | padding |", end="")
    print(" evaluation, clips/s |\n|---|---|---|---|---|")
    for name in ("ksl13", "asl14"):
        path = REAL / f"{name}.parquet"
        if not path.exists():
            print(f"| {name} | not there | | | |")
            continue
        settings = settings_with(f"data.train={path}", "cmcl.preset=balanced")
        splits = load_splits(settings)
        data = TrainingData.of_splits(splits, settings, CPU)
        state = TrainingState.initial(settings, splits.train.classes, CPU)
        reports = train_epochs(state, data)
        report = next(report for report in reports if isinstance(report, EpochReport))
        rate = report.metrics["clips_per_second"]
        masks = [one.clips.is_valid for batch in data.training(0, 0) for one in batch]
        frames = [(mask.sum().item(), mask.numel()) for mask in masks]
        real, padded = map(sum, zip(*frames, strict=True))
        prepared = prepare_clips(splits.test or splits.val, settings)
        started = time.perf_counter()
        predict(state.model, splits.test or splits.val, evaluation_batches(prepared, 64), CPU)
        evaluated = len(prepared) / (time.perf_counter() - started)
        print(
            f"| {name} | {rate:.0f} | {rate / published:.1f} x | {1 - real / padded:.1%} "
            f"| {evaluated:,.0f} |",
            flush=True,
        )


def one_clip(rounds: int) -> None:
    """From cleaned landmarks to a label, batch of one; prints the median in milliseconds."""
    settings = settings_with()
    state = TrainingState.initial(settings, tuple(map(str, range(NUM_CLASSES))), CPU)
    model = state.model.eval()
    clip = next(clip for clip in synthesise().dataset if clip.num_frames >= 40)
    landmarks = clip.landmarks[:40]

    @torch.inference_mode()
    def label() -> int:
        prepared = prepare_clip(landmarks, settings.prepare, aspect=clip.aspect)
        batch = collate([type(clip)(clip.clip_id, clip.gloss, prepared)])
        return int(model(batch).logits.argmax())

    seconds = []
    with one_thread():  # as in `slrctl evaluate`
        for _ in range(5):
            label()
        for _ in range(20 * rounds):
            started = time.perf_counter()
            label()
            seconds.append(time.perf_counter() - started)
    print(f"{1e3 * statistics.median(seconds):.1f}")


def one_clip_apart(rounds: int) -> None:
    """Print what a fresh process takes, as one that only predicts is."""
    milliseconds = said_by_a_process("--clip", str(rounds))
    print(f"\none clip of 40 frames, landmarks to label: {milliseconds} ms")


def growth(rounds: int) -> None:
    """Time a clip by its frames, training in fp32 with CMCL."""
    lengths = (51, 102, NUM_FRAMES)
    settings = settings_with("cmcl.preset=balanced")
    figures = beside_peak(
        [steps_of(settings, length) for length in lengths], [torch.float32] * 3, rounds
    )
    base = figures[0].seconds / lengths[0]
    print("\n| frames | time a frame, over that at 51 |\n|---|---|")
    for length, figure in zip(lengths, figures, strict=True):
        print(f"| {length} | {figure.seconds / length / base:.2f} |")


def peak_memory() -> None:
    """The largest resident size of a fresh process that takes three steps."""
    print("\n| peak memory of a training process, 204 frames | GB |\n|---|---|")
    for precision in ("fp32", "bf16"):
        kilobytes = int(said_by_a_process("--steps", precision))
        print(f"| {precision} | {kilobytes * 1024 / 1e9:.2f} |", flush=True)


def said_by_a_process(*arguments: str) -> str:
    """Run this script in a fresh process and return its output."""
    command = [sys.executable, __file__, *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return said.stdout.strip()


def take_steps(precision: str) -> None:
    """Take three steps and print the largest resident size, in KiB."""
    step = steps_of(settings_with("cmcl.preset=balanced", f"train.precision={precision}"))
    for _ in range(3):
        step()
    # Not `ru_maxrss`, which begins with what the process had that started this one.
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    print(line)


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if sys.argv[1:2] == ["--steps"]:
        return take_steps(sys.argv[2])
    if sys.argv[1:2] == ["--clip"]:
        return one_clip(int(sys.argv[2]))
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    published = training_steps(rounds)
    evaluation(rounds)
    real_lengths(published)
    one_clip_apart(rounds)
    growth(rounds)
    return peak_memory()


if __name__ == "__main__":
    main()
