"""A run of hundreds of epochs needs no more memory at its end than near its beginning."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import num_epochs

from slrctl.core.data.readers.parquet import write_parquet

EPOCHS = 500
TINY = [
    "--set=model.embed_dim=8",
    "--set=model.joint_dim=8",
    "--set=prepare.num_frames=8",
    "--set=evaluate.resamples=100",
    "--batch-size=8",
    "--cmcl=balanced",
    f"--epochs={EPOCHS}",
]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what memory a process has")
def test_memory_stays_as_it_is_for_hundreds_of_epochs(tmp_path, tiny_dataset):
    write_parquet(tiny_dataset, tmp_path / "tiny.parquet")
    command = [sys.executable, "-c", "from slrctl.cli import main; main()", "train"]
    process = subprocess.Popen(
        [*command, "--train", "tiny.parquet", "--run-dir", "run", "--quiet", *TINY],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    samples: list[tuple[int, int]] = []
    while process.poll() is None:
        epochs = num_epochs(tmp_path / "run")
        if 0 < epochs < EPOCHS:  # the evaluation at the end is another thing
            samples.append((epochs, resident_bytes(process.pid)))
        time.sleep(0.2)

    assert process.returncode == 0
    early = max(size for epochs, size in samples if 100 <= epochs < 200)
    late = max(size for epochs, size in samples if epochs >= EPOCHS - 50)
    # About 20 kB an epoch.
    assert late <= 1.02 * early, f"{early / 1e6:.1f} MB early, {late / 1e6:.1f} MB at the end"
    assert num_epochs(tmp_path / "run") == EPOCHS


def resident_bytes(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return 1024 * int(sizes[0]) if sizes else 0
