"""Weak scaling: clips a second of two processes, a thread each, beside those of one.

Each process has the same number of clips in a step, so that twice the processes take twice the
clips. On a machine that is busy otherwise two processes get less than twice the cores; the same
two processes without a word to each other show what was to be had.

Usage: python benchmarks/scaling.py [ROUNDS]                           needs the extra `distributed`
"""

import os
import socket
import statistics
import subprocess
import sys
import time

import torch
from training import CLASSES, clips_of, settings_with

from slrctl.core.data.batches import MicroBatch, clip_batch
from slrctl.settings import Settings
from slrctl.training.loop import TrainingData, train_epochs
from slrctl.training.processes import joined_group
from slrctl.training.state import TrainingState

CLIPS, STEPS = 12, 10
CPU = torch.device("cpu")


def main() -> None:
    if sys.argv[1:2] == ["--rank"]:
        print(rate())
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    measured = [(together(1), together(2), apart(2)) for _ in range(rounds)]
    print(f"{CLIPS} clips a process and step, CMCL, fp32, a thread each\n")
    print("| round | one, clips/s | two together | over one | two that do not know each other |")
    print("|---|---|---|---|---|")
    for number, (one, two, strangers) in enumerate(measured, start=1):
        print(f"| {number} | {one:.1f} | {two:.1f} | {two / one:.2f} | {strangers / one:.2f} |")
    print(f"\nmedian: {statistics.median(two / one for one, two, _ in measured):.2f}")


def rate() -> float:
    """Clips a second of all processes, after two steps to warm up."""
    settings: Settings = settings_with("cmcl.preset=balanced")
    torch.set_num_threads(1)
    with joined_group("cpu") as group:
        clips = clips_of(CLIPS)[:]
        batch = clip_batch(clips, CLASSES, settings, epoch=group.rank)
        micro_batches = [MicroBatch(group.rank, batch)]
        state = TrainingState.initial(settings, CLASSES, CPU)
        data = TrainingData(
            lambda epoch, start: (micro_batches for _ in range(STEPS + 2)),
            STEPS + 2,
            lambda: iter(()),
        )
        reports = train_epochs(state, data, group)
        next(reports)
        next(reports)
        started = time.perf_counter()
        for _ in range(STEPS):
            next(reports)
        return group.size * CLIPS * STEPS / (time.perf_counter() - started)


def together(count: int) -> float:
    """The rate of so many processes that train one model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [
        {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
        for rank in range(count)
    ]
    return min(_rates(places))


def apart(count: int) -> float:
    """The rates of so many processes at the same time, each alone with its model, added up."""
    return sum(_rates([{} for _ in range(count)]))


def _rates(places: list[dict[str, int]]) -> list[float]:
    shared = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(  # noqa: S603
            [sys.executable, __file__, "--rank"],
            stdout=subprocess.PIPE,
            text=True,
            env=shared | {name: str(value) for name, value in place.items()},
        )
        for place in places
    ]
    return [float(process.communicate()[0]) for process in started]


if __name__ == "__main__":
    main()
