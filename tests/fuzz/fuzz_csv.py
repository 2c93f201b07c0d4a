"""Feed the CSV reader mutated files, led by which of its lines they reach (atheris, libFuzzer).

Whatever a file holds, reading it ends in clips or in a `DataError` of one printable line.

Usage: python tests/fuzz/fuzz_csv.py FOLDER... [-runs=N] [-timeout=5] [-rss_limit_mb=1000]

New files that reach something new are kept in the first folder. `tests/fuzz/corpus` holds small
files in the variants of the format, and those that once found a fault.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
    include=["slrctl.core.data"]
):
    from slrctl.core.data.dataset import SignDataset, load_dataset

from slrctl.errors import DataError
from slrctl.settings import DataSettings

PATH = Path(tempfile.mkdtemp()) / "signs.csv"


def read_one(content: bytes) -> None:
    """Read a file strictly and leniently; anything but clips and DataError is a fault."""
    PATH.write_bytes(content)
    strict, lenient = outcome(skip=False), outcome(skip=True)
    if isinstance(strict, SignDataset):
        assert isinstance(lenient, SignDataset), lenient
        assert strict.fingerprint() == lenient.fingerprint()


def outcome(*, skip: bool) -> SignDataset | str:
    try:
        dataset = load_dataset(PATH, DataSettings(skip_bad_clips=skip))
    except DataError as error:
        message = str(error)
        assert message.isprintable(), message
        assert len(message) < 1_500, message
        return message
    assert all(clip.landmarks.shape == (clip.num_frames, 54, 2) for clip in dataset)
    return dataset


def main() -> None:
    atheris.Setup(sys.argv, read_one)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
