"""Mutated CSV files, led by coverage: neither a traceback, nor a hang, nor a gigabyte of memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from slrctl.core.data.dataset import load_dataset
from slrctl.errors import DataError

FOLDER = Path(__file__).parent
CORPUS = sorted((FOLDER / "corpus" / "csv").glob("*.csv"))
NUM_RUNS = 3_000


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_file_of_the_corpus_is_read_or_refused_with_its_place(path: Path):
    if path.stem == "odd_cells":
        with pytest.raises(DataError, match=r"row \d, column '\w+': found"):
            load_dataset(path)
    else:
        assert len(load_dataset(path)) >= 1


@pytest.mark.slow
def test_mutated_csv_files_give_clips_or_one_line(tmp_path: Path):
    pytest.importorskip("atheris", reason="atheris has no wheel for this system")
    # torch's libraries alone, once mapped, may take over a gigabyte.
    limits = [f"-runs={NUM_RUNS}", "-seed=1", "-timeout=60", "-rss_limit_mb=2500"]
    folders = [tmp_path / "found", FOLDER / "corpus" / "csv"]
    folders[0].mkdir()

    ended = subprocess.run(
        [sys.executable, FOLDER / "fuzz_csv.py", *folders, *limits],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr[-3_000:]
    assert f"Done {NUM_RUNS} runs" in ended.stderr
    assert list(tmp_path.glob("crash-*")) == []
