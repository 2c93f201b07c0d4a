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

DROP = """
import numpy as np
from slrctl.core.model.fast.kernels.hidden_units import let_through
gradient = np.array([[1, 2, 3]], np.int32)
let_through(gradient, np.array([[0, 1, 0]], np.int32), np.int32(2**31 - 1))
print(gradient.sum(), len(let_through.stats.cache_hits))
"""
# Every kernel, for clips of several lengths, some with a row whose scores are large.
RUN_ALL = """
import hashlib
import numpy as np
import torch
from slrctl.core.model.fast.kernels import attention, divergence, gate, hidden_units, residual
from slrctl.core.model.fast.random_words import draw_masks, draw_masks_of_weights
from slrctl.core.seeding import scoped_seed

draws = np.random.default_rng(0)
digest = hashlib.sha256()

def normal(*shape):
    return draws.standard_normal(shape).astype(np.float32)

def run(function, *arguments):
    function(*arguments)
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            digest.update(np.ascontiguousarray(argument).tobytes())

with scoped_seed(1, torch.device("cpu")):
    for num_queries, num_keys in ((60, 60), (36, 51), (5, 7)):
        query, key_value = normal(3, num_queries, 42), normal(3, num_keys, 84)
        query[:, 0] *= 30
        options = (0, 0, 0), (3, 14), draws.random((3, num_keys)) > 0.1, True
        masks = tuple(draw_masks_of_weights(9, num_queries, num_keys, 0.1))
        heads, maps = np.empty_like(query), normal(3, 3, num_queries, num_keys)
        offsets = np.empty((3, 3, num_queries), np.float32)
        run(attention.attend, query, key_value, *options, masks, heads, offsets, maps)
        for of_maps in (maps, maps[:, :1].copy(), np.empty((0, 0, 0, 0), np.float32)):
            gradients = normal(3, num_queries, 42), of_maps
            written = np.empty_like(query), np.empty_like(key_value)
            run(attention.attend_back, query, key_value, *options, masks, offsets, *gradients,
                *written)
    for width in (42, 24):
        rows, weight = normal(100, width), normal(width)
        masks = tuple(draw_masks(100, width, 0.1))
        written = np.empty_like(rows), np.empty(100, np.float32), np.empty_like(rows)
        run(residual.add_and_normalise, rows, normal(100, width), weight, weight, 1e-5, True, masks,
            *written)
        run(residual.add_and_normalise_back, rows, *written[:2], weight, True, masks,
            np.zeros_like(rows), np.zeros_like(rows), *np.zeros((2, width)))
        own, projected, received = (normal(100, n * width) for n in (1, 3, 2))
        written = np.empty_like(own), np.empty(100, np.float32), np.empty_like(own)
        run(gate.gate_and_normalise, own, projected, width, received, weight, weight, 1e-5,
            *written)
        run(gate.gate_and_normalise_back, normal(100, width), received, width, *written[:2],
            weight, np.zeros_like(own), np.zeros_like(projected), np.zeros_like(received),
            *np.zeros((2, width)))
    maps = draws.random((2, 3, 2, 50, 50)).astype(np.float32)
    present, gradients = draws.random((3, 50)) > 0.2, np.zeros((2, 3, 50, 50), np.float32)
    for exponent in (1.0, 0.5, 5.0):
        run(divergence.compare_rows, *maps, present, 1e-9, exponent, np.empty((3, 50), np.float32),
            *gradients)
    units = normal(100, 200)
    masks = tuple(draw_masks(100, 200, 0.1))
    run(hidden_units.rectify, units.view(np.int32), np.int32(-8388608), 0, masks)
    run(hidden_units.let_through, normal(100, 200).view(np.int32), units.view(np.int32),
        np.int32(2**31 - 1))
print(digest.hexdigest(), len(attention.attend_back.stats.cache_hits))
"""


@pytest.fixture
def _forgetful():
    compiling._folder.cache_clear()
    yield
    compiling._folder.cache_clear()


def said_by_a_process(folder: Path, script: str = DROP) -> list[str]:
    """What a kernel has computed, and how many versions of it were found compiled."""
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"NUMBA_CACHE_DIR": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    assert [said_by_a_process(tmp_path) for _ in range(2)] == [["2", "0"], ["2", "1"]]
    assert len(list(tmp_path.rglob("*.nbc"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
def test_what_cannot_be_read_again_is_compiled_again(tmp_path, kind):
    said_by_a_process(tmp_path)
    for path in tmp_path.rglob(kind):
        path.write_bytes(path.read_bytes()[:20])

    assert said_by_a_process(tmp_path) == ["2", "0"]


@pytest.mark.slow
def test_a_process_that_compiles_the_kernels_computes_the_bits_of_one_that_reads_them(tmp_path):
    (compiled, no_hits), (read, hits) = (said_by_a_process(tmp_path, RUN_ALL) for _ in range(2))

    assert (no_hits, hits) == ("0", "1")
    assert compiled == read


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
