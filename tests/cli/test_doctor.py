import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from calls import call

from slrctl.training import self_test
from slrctl.training.self_test import Check


@pytest.mark.parametrize("are_ok", [(True, False), (True, True)])
def test_a_failed_check_is_named_and_ends_in_exit_code_1(monkeypatch, are_ok):
    checks = [Check(f"check {n}", is_ok, "seen", 0.0) for n, is_ok in enumerate(are_ok)]
    monkeypatch.setattr(self_test, "self_test", lambda device, folders: iter(checks))

    result = call("doctor", "--json")

    report = json.loads(result.stdout)
    assert result.exit_code == (0 if all(are_ok) else 1)
    assert ("1 of 2 checks failed: check 1" in result.stderr) != all(are_ok)
    assert report["is_ok"] == all(are_ok)
    assert report["checks"] == [check._asdict() for check in checks]
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
