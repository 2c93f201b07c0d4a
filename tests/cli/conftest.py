"""Fixtures of the tests of commands."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calls import TINY, call
from commands import Commands, command_server
from typer.testing import Result

from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.readers.parquet import write_parquet

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call slrctl in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return call


@pytest.fixture
def tiny_path(tmp_path: Path, tiny_dataset: SignDataset) -> Path:
    """The tiny set as a file."""
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    return path


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tiny_dataset: SignDataset
) -> tuple[Path, Result]:
    """A folder with a run `runs/one` of the tiny set, and what its training printed."""
    folder = tmp_path_factory.mktemp("finished")
    write_parquet(tiny_dataset, folder / "tiny.parquet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = call(
            *("train", "--train=tiny.parquet", "--cmcl=balanced", "--name=one", "--json", *TINY)
        )
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture
def trained(run: Run, finished: tuple[Path, Result]) -> Path:
    """A copy of the finished run in the test's own folder."""
    shutil.copytree(finished[0] / "runs", "runs")
    return Path("runs/one")


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    with command_server() as ready:
        yield ready


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, server: subprocess.Popen[str]) -> Commands:
    """Starts slrctl in processes of its own, for the tests of a file in one folder."""
    return Commands(server, tmp_path_factory.mktemp("commands"))


@pytest.fixture
def still_path(tiny_path: Path, commands: Commands) -> Path:
    """The tiny set as a file that lies still from test to test, so that runs of it can go on."""
    clips = commands.folder / "tiny.parquet"
    if not clips.exists():
        clips.write_bytes(tiny_path.read_bytes())
    return clips
