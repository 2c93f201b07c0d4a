"""Work in other processes, which may die."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slrctl.pool import Crashed, in_processes


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


def fail(number: int) -> int:
    raise ArithmeticError(f"cannot do {number}")


@pytest.mark.parametrize("num_processes", [1, 3])
def test_a_process_that_dies_loses_only_its_own_item(num_processes, capfd):
    results = dict(in_processes(square_or_die, range(6), num_processes))

    assert results == {
        0: 0,
        1: 1,
        2: Crashed(-signal.SIGSEGV),
        3: 9,
        4: Crashed(7),
        5: 25,
    }
    assert capfd.readouterr() == ("", "")


def test_processes_are_used_again():
    results = dict(in_processes(process_of, range(5), 1))

    assert len(set(results.values())) == 1
    assert os.getpid() not in results.values()


def test_a_bug_is_not_hidden():
    with pytest.raises(RuntimeError, match="cannot do 3"):
        list(in_processes(fail, [3], 1))


def test_nothing_to_do_starts_nothing():
    assert list(in_processes(fail, [], 2)) == []


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from test_pool import process_of\n"
        "from slrctl.pool import in_processes\n"
        "if __name__ == '__main__':\n"
        "    for _, process in in_processes(process_of, [1, 2], 1):\n"
        "        print(process, flush=True)\n"
        "        time.sleep(60)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])
    }
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())

    parent.kill()
    parent.wait()
    parent.stdout.close()

    for _ in range(200):
        if is_dead(worker):
            return
        time.sleep(0.05)
    pytest.fail(f"worker {worker} lives on")


def is_dead(process: int) -> bool:
    """A process that ended but that nobody has asked about yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True
