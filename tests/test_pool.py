"""Work in other processes, which may die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slrctl.pool import Crashed, ProcessPool


def square_or_die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 4:
        os._exit(7)
    os.write(1, b"noise")
    os.write(2, b"more noise")
    return number * number


def process_of(number: int) -> int:
    return os.getpid()


def sleep_in(file: str) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(300)


def blocked_signals(_: int) -> set[int]:
    return set(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))


def fail(number: int) -> int:
    raise ArithmeticError(f"cannot do {number}")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_a_process_that_dies_loses_only_its_own_item(num_processes, capfd):
    with ProcessPool(square_or_die, num_processes) as pool:
        results = dict(pool.map(range(6)))

    assert results == {
        0: 0,
        1: 1,
        2: Crashed(f"exit code -{int(signal.SIGSEGV)}"),
        3: 9,
        4: Crashed("exit code 7"),
        5: 25,
    }
    assert capfd.readouterr() == ("", "")


def test_a_process_is_used_again_until_it_dies_even_while_it_is_idle():
    with ProcessPool(process_of, 1) as pool:
        results = dict(pool.map(range(5)))
        (process,) = set(results.values())
        assert isinstance(process, int)
        os.kill(process, signal.SIGKILL)
        wait_until_dead(process)
        after = [result for _, result in (*pool.map([5]), *pool.map([6]))]

    assert process != os.getpid()
    assert after[0] == Crashed(f"exit code -{int(signal.SIGKILL)}")
    assert after[1] not in (process, os.getpid())


def test_a_bug_is_not_hidden():
    with ProcessPool(fail, 1) as pool, pytest.raises(RuntimeError, match="cannot do 3"):
        list(pool.map([3]))


def test_nothing_to_do_starts_nothing():
    with ProcessPool(fail, 2) as pool:
        assert list(pool.map([])) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no masks of signals")
def test_interruptions_reach_the_parent_alone():
    with ProcessPool(blocked_signals, 1) as pool:
        ((_, blocked),) = pool.map([0])

    assert blocked == {signal.SIGINT, signal.SIGHUP}
    assert not blocked_signals(0)


def test_a_process_at_work_ends_with_the_block(tmp_path):
    file = tmp_path / "process"
    with ProcessPool(sleep_in, 1) as pool:
        pool.submit(str(file))
        process = started_in(file)

    assert is_dead(process)


def test_a_process_at_work_ends_with_a_parent_that_is_killed(tmp_path):
    script, file = tmp_path / "parent.py", tmp_path / "process"
    script.write_text(
        "from test_pool import sleep_in\n"
        "from slrctl.pool import ProcessPool\n"
        "if __name__ == '__main__':\n"
        f"    list(ProcessPool(sleep_in, 1).map([{str(file)!r}]))\n"
    )
    search = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen([sys.executable, script], env=os.environ | {"PYTHONPATH": search})
    process = started_in(file)

    parent.kill()
    parent.wait()

    wait_until_dead(process)


def started_in(file: Path) -> int:
    """The process that has written its number to the file."""
    for _ in range(1200):
        if file.is_file() and (text := file.read_text()):
            return int(text)
        time.sleep(0.05)
    pytest.fail("no process started")


def wait_until_dead(process: int) -> None:
    for _ in range(200):
        if is_dead(process):
            return
        time.sleep(0.05)
    pytest.fail(f"process {process} lives on")


def is_dead(process: int) -> bool:
    """True also of a process that ended but that nobody has asked about yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True
