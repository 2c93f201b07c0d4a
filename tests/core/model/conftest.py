"""The models of these tests are tiny; still they are to take the path of large batches."""

import pytest

from slrctl.core.model import fast


@pytest.fixture(autouse=True)
def _few_frames(monkeypatch):
    monkeypatch.setattr(fast, "FEW_FRAMES", 0)
