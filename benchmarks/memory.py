"""Memory of a training by the number of its clips: a hundred times as many should need no more.

Runs `slrctl train` for one epoch of a small model on made-up sets, twice each: with an empty cache,
when the clips are read, and again. What counts is the process's own memory (`RssAnon`): pages of
the cache's files are the system's, which takes them back when it needs them. Linux only.

Usage: python benchmarks/memory.py [NUM_CLIPS ...]        1,000 10,000 100,000 unless said
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from slrctl.core import skeleton
from slrctl.core.clip import Clip
from slrctl.core.data.readers.parquet import write_parquet

NUM_FRAMES, NUM_GLOSSES, NUM_SIGNERS = 20, 50, 20
SMALL = (
    "model.ffn_dim=32",
    "model.num_encoder_layers=1",
    "model.num_decoder_layers=1",
    "train.batch_size=64",
    "evaluate.resamples=100",
)
SAMPLES_A_SECOND = 20


def made_up_clips(num_clips: int) -> Iterator[Clip]:
    """Points that wander, one clip at a time."""
    rng = np.random.default_rng(0)
    for number in range(num_clips):
        start = rng.random((1, skeleton.NUM_LANDMARKS, 2), np.float32)
        steps = rng.normal(0, 0.01, (NUM_FRAMES, skeleton.NUM_LANDMARKS, 2)).astype(np.float32)
        yield Clip(
            clip_id=f"clip{number}",
            gloss=f"gloss{number % NUM_GLOSSES}",
            landmarks=start + steps.cumsum(0),
            signer=f"signer{number % NUM_SIGNERS}",
            split="val" if number % NUM_SIGNERS == 0 else "train",
        )


def peak_of(command: list[str], folder: Path) -> tuple[int, float]:
    """Largest own memory of a command in bytes, and its seconds of the processor."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdout=output, stderr=output, env=environment, cwd=folder
        )
        status, peak = Path(f"/proc/{process.pid}/status"), 0
        while process.poll() is None:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            peak = max(peak, int(lines.get("RssAnon", "0 kB").split()[0]) * 1024)
            time.sleep(1 / SAMPLES_A_SECOND)
    if process.returncode:
        said = (folder / "output.txt").read_text(errors="replace")
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {said}")
    times = os.times()
    return peak, times.children_user + times.children_system


def main() -> None:
    sizes = [int(size.replace(",", "")) for size in sys.argv[1:]] or [1_000, 10_000, 100_000]
    print("| clips | landmarks | file is read | from the cache | seconds of the processor |")
    print("|---|---|---|---|---|")
    for num_clips in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_parquet(made_up_clips(num_clips), folder / "clips.parquet")
            command = [
                *(sys.executable, "-c", "from slrctl.cli import main; main()", "train", "--quiet"),
                *("--train", str(folder / "clips.parquet"), "--epochs", "1", "--force"),
                *(part for value in SMALL for part in ("--set", value)),
                *("--set", f"data.cache_dir={folder / 'cache'}"),
            ]
            before = os.times()
            first, _ = peak_of(command, folder)
            again, seconds = peak_of(command, folder)
            seconds -= before.children_user + before.children_system
        size = num_clips * NUM_FRAMES * skeleton.NUM_LANDMARKS * 8
        print(
            f"| {num_clips:,} | {size / 1e6:,.0f} MB | {first / 1e6:,.0f} MB "
            f"| {again / 1e6:,.0f} MB | {seconds:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
