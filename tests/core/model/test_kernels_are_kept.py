"""Machine code is compiled once and kept for later processes, apart from that of other sources."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from slrctl.core.model.fast.kernels import compiling
from slrctl.core.model.fast.kernels.compiling import kernel

SUM_UP = """
import numpy as np
from slrctl.core.model.fast.kernels.products import padded
print(padded(17, 16), len(padded.stats.cache_hits))
"""


@pytest.fixture
def _forgetful():
    compiling._folder.cache_clear()
    yield
    compiling._folder.cache_clear()


def said_by_a_process(folder: Path) -> list[str]:
    """What a padded length is, and how many functions were found compiled."""
    return subprocess.run(
        [sys.executable, "-c", SUM_UP],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    assert [said_by_a_process(tmp_path) for _ in range(2)] == [["32", "0"], ["32", "1"]]
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_what_cannot_be_read_again_is_compiled_again(tmp_path, kind):
    said_by_a_process(tmp_path)
    for path in tmp_path.rglob(kind):
        path.write_bytes(path.read_bytes()[:20])

    assert said_by_a_process(tmp_path) == ["32", "0"]


def test_a_full_disk_stops_no_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling._config, "CACHE_DIR", str(tmp_path))

    @kernel
    def triple(number):
        return 3 * number

    def fill_disk(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_save_data", fill_disk)

    assert triple(2) == 6


@pytest.mark.usefixtures("_forgetful")
def test_code_of_other_sources_is_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling._config, "CACHE_DIR", "")
    sources, folders = Path(compiling.__file__).parent, []
    for text in ("one", "one", "another"):
        shutil.rmtree(tmp_path / "kernels", ignore_errors=True)
        shutil.copytree(sources, tmp_path / "kernels")
        (tmp_path / "kernels" / "masks.py").write_text(text)
        monkeypatch.setattr(compiling, "__file__", str(tmp_path / "kernels" / "compiling.py"))
        compiling._folder.cache_clear()
        folders.append(compiling._folder())

    assert folders[0] == folders[1] != folders[2]
    assert folders[0].parent == tmp_path / "kernels" / "__pycache__"


@pytest.mark.usefixtures("_forgetful")
def test_where_the_sources_cannot_be_written_to_the_users_cache_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling._config, "CACHE_DIR", "")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert compiling._folder().parent == tmp_path / "slrctl"


def test_where_nothing_can_be_kept_a_kernel_works_all_the_same(monkeypatch):
    compiled = numba.njit

    def refuse_to_keep(*functions, cache=False, **options):
        if cache:
            return lambda function: (_ for _ in ()).throw(RuntimeError("cannot cache function"))
        return compiled(*functions, **options)

    monkeypatch.setattr(numba, "njit", refuse_to_keep)

    @kernel
    def double(numbers):
        for i in range(len(numbers)):
            numbers[i] *= 2

    numbers = np.ones(3, np.float32)
    double(numbers)

    assert numbers.tolist() == [2, 2, 2]


def test_numbas_own_choice_of_a_folder_is_as_before_after_a_kernel_was_made(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling._config, "CACHE_DIR", str(tmp_path))

    @kernel
    def nothing(number):
        return number

    assert nothing(1) == 1
    assert str(tmp_path) == compiling._config.CACHE_DIR
