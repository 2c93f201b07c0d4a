"""No command reaches for the network: names are not looked up, and no connection is opened."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.readers.parquet import write_parquet

# Every way out of Python passes one of these events, libraries' too; local sockets are no network.
WATCHED = """
import sys
EVENTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}
def watch(event, arguments):
    if event in EVENTS and not isinstance(arguments[-1], (str, bytes)):
        raise SystemExit(f"reached for the network: {event} {arguments}")
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        raise SystemExit(f"looked up a name: {event} {arguments}")
sys.addaudithook(watch)
"""
RUN = WATCHED + "from slrctl.cli import main; main()"
SMALL = [
    *("--epochs", "1", "--set", "model.embed_dim=16", "--set", "model.joint_dim=16"),
    *("--set", "evaluate.resamples=100"),
]

VARIANT = ["--variant", "soft:cmcl.preset=balanced"]


def run(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "reach",
    [
        "import socket; socket.create_connection(('192.0.2.1', 80), 0.1)",
        "import urllib.request; urllib.request.urlopen('http://example.org')",
        "import socket; socket.gethostbyname('example.org')",
    ],
)
def test_the_watch_sees_who_reaches_for_the_network(tmp_path: Path, reach: str):
    watched = run(WATCHED + reach, tmp_path)

    assert watched.returncode == 1
    assert "reached for the network" in watched.stderr or "looked up a name" in watched.stderr


@pytest.mark.slow
def test_no_command_reaches_for_the_network(tmp_path: Path, tiny_dataset: SignDataset):
    write_parquet(tiny_dataset, tmp_path / "clips.parquet")

    for arguments in (
        ["train", "--train", "clips.parquet", "--cmcl", "balanced", "--name", "one", *SMALL],
        ["evaluate", "runs/one"],
        ["inspect-attention", "runs/one", "--output", "look"],
        ["inspect-attention", "runs/one", "--summary"],
        ["data", "info", "clips.parquet", "--output", "pictures"],
        ["data", "audit", "clips.parquet"],
        ["ablate", "--train", "clips.parquet", "--quick", "--jobs", "1", *SMALL, *VARIANT],
    ):
        ended = run(RUN, tmp_path, *arguments)

        assert "network" not in ended.stderr, arguments
        assert "looked up" not in ended.stderr, arguments
        assert ended.returncode == 0, (arguments, ended.stderr)
