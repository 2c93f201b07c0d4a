"""Studies on a real Ray cluster of two nodes on loopback, one of which is killed."""

import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from slrctl.errors import SlrctlError
from slrctl.runs.folder import read_settings
from slrctl.settings import Settings
from slrctl.studies.ablation.on_ray import LOCAL, run_on_node
from slrctl.studies.ablation.running import run_trial, run_trials
from slrctl.studies.ablation.trials import Trial, code_digest, read_result

BIN = Path(sys.executable).parent
SECONDS = 300
"""Longest wait for anything: for a busy machine, and so that nothing waits for ever."""
# Two addresses of loopback: 127.0.0.1 itself is replaced by the machine's own in Ray.
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
OPTIONS = [
    "--seeds=2",
    "--variant=warm:cmcl.preset=balanced,cmcl.temperature=2",
    "--set=model.embed_dim=8",
    "--set=model.joint_dim=8",
    "--set=evaluate.resamples=100",
    "--set=train.batch_size=8",
    "--epochs=20",
]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or sys.platform != "linux",
    reason="needs Ray on Linux: pip install 'slrctl[ray]'",
)


@pytest.fixture
def environment() -> dict[str, str]:
    """Give a token to this test's cluster alone, in the environment of its processes."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


@pytest.fixture
def start(environment, tmp_path):
    """Start a program with its output in a file; what still runs at the end is killed."""
    started = []

    def call(name: str, *arguments: object):
        path = tmp_path / f"{name}.txt"
        with path.open("w") as output:
            process = subprocess.Popen(
                list(map(str, arguments)), cwd=tmp_path, env=environment,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        started.append(process)
        return process, path

    yield call
    for process in reversed(started):
        kill_tree(process)


def kill_tree(process: subprocess.Popen[bytes]) -> list[str]:
    """End a process and all that it started, by their ids; return their command lines."""
    if process.poll() is not None:
        return []
    killed = command_lines(process.pid, kill=True)
    process.wait(SECONDS)
    return killed


def command_lines(pid: int, *, kill: bool = False) -> list[str]:
    """Return the command lines of a process and of all that it started."""
    try:
        if kill:
            os.kill(pid, signal.SIGSTOP)  # so that it starts no other while its children are listed
        lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()]
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                lines += command_lines(int(child), kill=kill)
        if kill:
            os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return []
    return lines


def wait_until(is_so: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as one:
        one.bind((HEAD, 0))
        return one.getsockname()[1]


def statuses_of(folder: Path) -> list[str]:
    (path,) = folder.glob("studies/*/results.csv")
    return pd.read_csv(path)["status"].to_list()


@needs_ray
@pytest.mark.slow
def test_a_node_killed_in_the_middle_of_a_study_changes_no_digit_of_it(start, tiny_path, tmp_path):
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as ray_dir:
        address = f"{HEAD}:{free_port()}"
        node = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
        head, output = start(
            "head", BIN / "ray", "start", "--head", f"--node-ip-address={HEAD}",
            f"--port={address.partition(':')[2]}", f"--temp-dir={ray_dir}",
            "--include-dashboard=false", *node,
        )  # fmt: skip
        wait_until(lambda: "Ray runtime started" in output.read_text(), output)
        second, output = start(
            "second", BIN / "ray", "start", f"--address={address}",
            f"--node-ip-address={SECOND}", *node,
        )  # fmt: skip
        wait_until(lambda: "Ray runtime started" in output.read_text(), output)

        command = BIN / "slrctl", "ablate", "--train", tiny_path, *OPTIONS
        study, output = start("study", *command, f"--ray={address}")
        trials = tmp_path / "studies" / "trials"
        wait_until(
            lambda: (
                len(list(trials.glob("*/metrics.jsonl"))) >= 2
                and any("run_on_node" in line for line in command_lines(second.pid))
            ),
            output,
        )
        killed = kill_tree(second)
        done = len(list(trials.glob("*/summary.json")))
        assert study.wait(SECONDS) == 0, output.read_text()
        kill_tree(head)

    assert any("run_on_node" in line for line in killed)
    assert done < 4
    assert "4/4" in output.read_text()
    assert statuses_of(tmp_path) == ["done"] * 4
    keys = [path.parent.name for path in trials.glob("*/summary.json")]
    for key in keys:
        settings = Settings.model_validate(read_settings(trials / key))
        again = Trial("again", settings.seed, None, settings, key)
        assert run_trial(again, tmp_path / "local", threads=1) is None
    here, there = (
        {key: read_result(folder / key)._replace(seconds=0) for key in keys}
        for folder in (tmp_path / "local", trials)
    )
    assert len(here) == 4
    assert here == there


@needs_ray
@pytest.mark.slow
def test_without_an_address_a_cluster_is_started_and_ended(start, tiny_path, tmp_path):
    study, output = start(
        "study", BIN / "slrctl", "ablate", "--train", tiny_path, *OPTIONS, "--epochs=1",
        "--seeds=1", "--jobs=1", "--ray",
    )  # fmt: skip

    assert study.wait(SECONDS) == 0, output.read_text()
    assert statuses_of(tmp_path) == ["done"] * 2
    assert not re.findall("raylet|gcs_server", _commands_in(tmp_path))


def _commands_in(folder: Path) -> str:
    """Return the command lines of processes whose current folder is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder:
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return "\n".join(found)


@needs_ray
def test_an_address_without_a_cluster_is_reported_at_once(plan, tmp_path):
    address = f"{HEAD}:{free_port()}"

    with pytest.raises(SlrctlError, match="no Ray cluster can be reached there"):
        list(run_trials(plan(), tmp_path, jobs=1, threads=1, ray=address))


def test_a_missing_ray_names_the_extra(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(SlrctlError, match=r"pip install 'slrctl\[ray\]'"):
        list(run_trials(plan(), tmp_path, jobs=1, threads=1, ray=LOCAL))


@pytest.mark.parametrize(
    ("folder", "code", "message"),
    [
        (".", code_digest(), "finished in ."),
        ("absent", code_digest(), "absent: not there on node"),
        (".", "other code", "another version of slrctl"),
    ],
)
def test_a_node_without_the_folder_or_with_other_code_refuses_its_trials(
    plan, tmp_path, monkeypatch, folder, code, message
):
    monkeypatch.chdir(tmp_path)

    found = run_on_node(plan()[0], lambda _: f"finished in {folder}", Path(folder), code)

    assert found is not None
    assert message in found
