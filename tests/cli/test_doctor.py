import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slrctl.cli import app
from slrctl.training import self_test
from slrctl.training.self_test import Check


def checks_that(*are_ok: bool):
    return lambda device, folders: iter(
        [Check(f"check {n}", is_ok, "seen", 0.0) for n, is_ok in enumerate(are_ok)]
    )


def test_a_failed_check_is_named_and_ends_in_exit_code_1(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(self_test, "self_test", checks_that(True, False))

    result = CliRunner().invoke(app, ["doctor"])

    assert result.exit_code == 1
    assert "1 of 2 checks failed: check 1" in result.stdout


def test_json_is_one_object_and_says_what_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(self_test, "self_test", checks_that(False))

    result = CliRunner().invoke(app, ["doctor", "--json"])

    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not report["is_ok"]
    assert report["checks"][0] == {
        "name": "check 0",
        "is_ok": False,
        "detail": "seen",
        "seconds": 0.0,
    }
    assert report["versions"]["slrctl"]


@pytest.mark.slow
def test_this_installation_passes(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", "from slrctl.cli import main; main()", "doctor"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 10 checks passed" in result.stdout
    assert list(tmp_path.iterdir()) == []
