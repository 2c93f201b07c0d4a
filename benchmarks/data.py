"""From a file to a batch: reading, the cache, preparation, augmentation, and the loader's share.

Beside each stands the same work in plain Python, as the published loader does it: a list of numbers
is parsed with `ast.literal_eval`, and every point is moved by itself. Both are measured in one run,
in seconds of the processor, so ratios hold on a busy machine where absolute numbers do not.

Usage: python benchmarks/data.py
"""

import ast
import csv
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.batches import (
    MicroBatch,
    training_micro_batches,
)
from slrctl.core.data.cache import ClipCache
from slrctl.core.data.dataset import SignDataset, load_dataset
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.core.data.synthetic import SynthesisParameters, synthesise
from slrctl.core.devices import keep_freed_memory
from slrctl.settings import Settings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.state import TrainingState

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from spoter_files import write_csv

NUM_CLIPS, NUM_FRAMES = 1442, 204  # WLASL100's training part, as it is published
NUM_DISTINCT, ROUNDS, PLAIN_CLIPS = 96, 5, 2
Points = list[list[tuple[float, float] | None]]


def clips_of_full_length() -> list[Clip]:
    """As many clips as WLASL100 trains on; a few made ones, repeated under names of their own."""
    parameters = SynthesisParameters(
        num_train_signers=1,
        num_val_signers=0,
        num_test_signers=0,
        repetitions=NUM_DISTINCT // 24,
        min_frames=NUM_FRAMES - 8,
        max_frames=NUM_FRAMES,
    )
    made = [
        replace(clip, landmarks=np.resize(clip.landmarks, (NUM_FRAMES, *clip.landmarks.shape[1:])))
        for clip in synthesise(parameters).dataset
    ]
    return [
        replace(made[number % len(made)], clip_id=f"{number}", split="train", signer=None)
        for number in range(NUM_CLIPS)
    ]


def seconds_of(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median seconds of the processor, over all threads."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def plain_read(path: Path) -> list[Points]:
    """Parse every cell of a CSV with `ast.literal_eval`, and gather the points of each frame."""
    csv.field_size_limit(sys.maxsize)
    clips = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            columns = [ast.literal_eval(row[name]) for name in row if name[-2:] in ("_X", "_Y")]
            pairs = list(zip(columns[::2], columns[1::2], strict=True))
            clips.append(
                [
                    [(x[t], y[t]) if (x[t], y[t]) != (0, 0) else None for x, y in pairs]
                    for t in range(len(columns[0]))
                ]
            )
    return clips


def plain_prepare(frames: Points, hand_box: float) -> Points:
    """Move every point into its box by itself: the body's by shoulders, a hand's by its extent."""
    prepared = []
    for points in frames:
        body, neck = points[: skeleton.NUM_BODY], points[skeleton.NECK]
        left, right = points[skeleton.LEFT_SHOULDER], points[skeleton.RIGHT_SHOULDER]
        moved: list[tuple[float, float] | None] = []
        if neck and left and right:
            unit = ((left[0] - right[0]) ** 2 + (left[1] - right[1]) ** 2) ** 0.5
            eyes = [p[1] for p in (points[skeleton.LEFT_EYE], points[skeleton.RIGHT_EYE]) if p]
            top = sum(eyes) / len(eyes) if eyes else neck[1] - 1.3 * unit
            centre = neck[0], top + 2.5 * unit
            moved += [
                p and ((p[0] - centre[0]) / (6 * unit), (p[1] - centre[1]) / (6 * unit))
                for p in body
            ]
        else:
            moved += [None] * len(body)
        for part in (skeleton.LEFT_HAND, skeleton.RIGHT_HAND):
            known = [p for p in points[part] if p]
            if not known:
                moved += [None] * skeleton.NUM_HAND
                continue
            low = min(x for x, _ in known), min(y for _, y in known)
            high = max(x for x, _ in known), max(y for _, y in known)
            side = hand_box * max(high[0] - low[0], high[1] - low[1]) or 1.0
            middle = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
            moved += [
                p and ((p[0] - middle[0]) / side, (p[1] - middle[1]) / side) for p in points[part]
            ]
        prepared.append(moved)
    return prepared


def csv_rows(folder: Path, clips: Sequence[Clip]) -> Iterator[str]:
    # With all their digits, as published files have them.
    tracks = [clip.landmarks.astype(np.float64) for clip in clips[:NUM_DISTINCT]]
    path = write_csv(folder / "clips.csv", tracks)
    small = write_csv(folder / "small.csv", tracks[:PLAIN_CLIPS])
    ours = 1e3 * seconds_of(lambda: load_dataset(path)) / (path.stat().st_size / 1e6)
    plain = 1e3 * seconds_of(lambda: plain_read(small), 1) / (small.stat().st_size / 1e6)
    yield row("CSV, read for the first time", ours, plain, "ms/MB", "at most 8, 9 x", ours / plain)


def cache_rows(folder: Path, clips: Sequence[Clip], settings: Settings) -> Iterator[str]:
    path, cache = folder / "clips.parquet", ClipCache(folder / "cache")
    write_parquet(clips, path)
    # A file as old as most: the state of one that was just written is not relied upon.
    a_minute_ago = time.time() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))

    def ready(cache: ClipCache | None) -> None:
        dataset = load_dataset(path, prepare=settings.prepare, cache=cache)
        sum(float(clip.landmarks[0, 0, 0]) for clip in dataset)

    ready(cache)
    first, later = seconds_of(lambda: ready(None), 1), seconds_of(lambda: ready(cache))
    name = f"{NUM_CLIPS:,} clips x {NUM_FRAMES} frames, ready"
    yield row(f"{name} from the cache", later, first, "s", "at most 0.5", later / first)


def preparation_rows(clips: Sequence[Clip], settings: Settings) -> Iterator[str]:
    still = settings.model_copy(
        update={"augment": settings.augment.model_copy(update={"enabled": False})}
    )
    dataset = SignDataset(tuple(clips), tuple(sorted({clip.gloss for clip in clips})), "clips")
    num_frames = NUM_CLIPS * NUM_FRAMES
    points = [
        [tuple(p) if not np.isnan(p[0]) else None for p in frame]
        for clip in clips[:PLAIN_CLIPS]
        for frame in clip.landmarks.tolist()
    ]
    plain = len(points) / seconds_of(lambda: plain_prepare(points, settings.prepare.hand_box), 1)
    for name, least, chosen in (
        ("preparation, batches of 24", 400_000, still),
        ("augmentation and preparation", 200_000, settings),
    ):
        ours = num_frames / seconds_of(
            lambda chosen=chosen: [
                None for _ in training_micro_batches(dataset, chosen, 0, device=torch.device("cpu"))
            ],
            3,
        )
        yield row(name, ours, plain, "frames/s", f"at least {least:,}", plain / ours)


def loader_share(settings: Settings, num_frames: int, num_clips: int) -> float:
    """Seconds spent on batches, as a share of a training's, loader and step in one process."""
    parameters = SynthesisParameters(
        num_train_signers=1,
        num_val_signers=0,
        num_test_signers=0,
        repetitions=-(-num_clips // 24),
        min_frames=num_frames - 4,
        max_frames=num_frames,
        max_lag=4,
    )
    dataset = synthesise(parameters).dataset
    spent = 0.0

    def training(epoch: int, start: int) -> Iterator[list[MicroBatch]]:
        nonlocal spent
        batches = training_micro_batches(
            dataset, settings, epoch, device=torch.device("cpu"), start=start
        )
        while True:
            started = time.process_time()
            batch = next(batches, None)
            spent += time.process_time() - started
            if batch is None:
                return
            yield batch

    state = TrainingState.initial(settings, dataset.classes, torch.device("cpu"))
    data = TrainingData(training, -(-len(dataset) // settings.train.batch_size), lambda: iter(()))
    started = time.process_time()
    for number, report in enumerate(train_epochs(state, data), 1):
        if number == data.num_batches:
            break
        del report
    return spent / (time.process_time() - started)


def row(name: str, ours: float, plain: float, unit: str, aim: str, ratio: float) -> str:
    cells = f"{_number(ours)} {unit} | {_number(plain)} {unit} | {1 / ratio:,.1f} x | {aim}"
    return f"| {name} | {cells} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def main() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    settings = Settings()
    clips = clips_of_full_length()
    print("| what | ours | plain Python, or without the cache | faster | aim |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for line in csv_rows(Path(folder), clips):
            print(line, flush=True)
        for line in cache_rows(Path(folder), clips, settings):
            print(line, flush=True)
    for line in preparation_rows(clips, settings):
        print(line, flush=True)
    print("\n| a training step's time spent on its batch | share | aim |\n|---|---|---|")
    for precision in ("fp32", "bf16"):
        train = settings.train.model_copy(update={"precision": precision, "epochs": 1})
        chosen = settings.model_copy(update={"train": train})
        for num_frames, num_clips in ((30, 480), (204, 120)):
            share = loader_share(chosen, num_frames, num_clips)
            print(
                f"| {precision}, {num_frames} frames | {share:.1%} | under 3 % |",
                flush=True,
            )


if __name__ == "__main__":
    main()
