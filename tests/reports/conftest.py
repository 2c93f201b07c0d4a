"""Figures that tests look into."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that were drawn, by the names of their files, which stay empty."""
    drawn: dict[str, Figure] = {}

    def savefig(figure, path, **_):
        path = Path(path)
        drawn[path.name.split(".")[1]] = figure  # .NAME.RANDOM.SUFFIX, until it is renamed
        path.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    return drawn
