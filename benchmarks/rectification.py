"""Rectify hands of many frames at once, against a plain loop over frames, hands and joints.

Usage: python benchmarks/rectification.py [CLIPS]
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from slrctl.core.clip import concatenate_frames
from slrctl.core.data.dataset import load_dataset
from slrctl.core.data.rectify import rectify
from slrctl.core.data.synthetic import synthesise

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from plain_rectification import plain_rectify

ROUNDS = 5
PLAIN_FRAMES = 300


def frames_per_second(work: Callable[[], object], num_frames: int, rounds: int) -> float:
    """By the best of some rounds, in seconds of the processor."""
    best = np.inf
    for _ in range(rounds):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return num_frames / best


def main() -> None:
    dataset = load_dataset(sys.argv[1]) if len(sys.argv) > 1 else synthesise().dataset
    frames, aspect = concatenate_frames(dataset.clips)
    whole = frames[~np.isnan(frames).any(axis=(1, 2))]
    some = frames[:: max(1, len(frames) // PLAIN_FRAMES)]
    plain = frames_per_second(lambda: plain_rectify(some, 1.0, 0.4), len(some), 1)
    print(f"plain loop              {plain:10,.0f} frames a second")
    for name, part in (("as recorded", frames), ("frames without a gap", whole)):
        if len(part):
            fast = frames_per_second(
                lambda part=part: rectify(part, aspect[: len(part)], 0.4), len(part), ROUNDS
            )
            print(f"{name:<22}  {fast:10,.0f} frames a second  {fast / plain:6,.0f} x")


if __name__ == "__main__":
    main()
