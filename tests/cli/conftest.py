"""What tests of commands share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from slrctl.cli import app
from slrctl.core.data.dataset import SignDataset
from slrctl.core.data.formats.parquet import write_parquet

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call slrctl in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def tiny_path(tmp_path: Path, tiny_dataset: SignDataset) -> Path:
    """The tiny set as a file."""
    path = tmp_path / "tiny.parquet"
    write_parquet(tiny_dataset, path)
    return path
