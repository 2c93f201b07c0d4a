"""Modules of slrctl that take part between `load_dataset(csv)` and the first `optimizer.step()`.

Runs `slrctl train` with default settings on a small SPOTER CSV, and counts each module of slrctl of
which a line inside a function is executed in between, on any thread: what a stranger has to read to
follow a row of the file to its gradient step.

Usage: python benchmarks/modules_of_a_step.py
"""

import os
import sys
import tempfile
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import FrameType

import slrctl
from slrctl.cli import main as run_slrctl

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from spoter_files import person, write_csv

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = str(Path(slrctl.__file__).parent) + os.sep


class FirstStep(BaseException):
    """Raised when the optimizer is about to take its first step."""


class Recorder:
    """Notes the files whose functions are called, from `load_dataset` on."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.is_on = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event != "call":
            return
        if code.co_qualname == "load_dataset":
            self.is_on = True
        if self.is_on and code.co_qualname in ("AdamW.step", "Adam.step"):
            sys.setprofile(None)
            threading.setprofile(None)
            raise FirstStep
        # Bodies of modules and classes are not optimised as functions are.
        if self.is_on and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(PACKAGE):
            self.files.add(code.co_filename)


def modules_of_a_step(csv_path: Path) -> list[str]:
    """Train until the first step, in the current folder."""
    recorder = Recorder()
    sys.argv = ["slrctl", "train", "--train", str(csv_path), "--set", "data.cache_dir=cache"]
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        run_slrctl()
    except FirstStep:
        pass
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    names = (Path(file).relative_to(PACKAGE).with_suffix("") for file in recorder.files)
    return sorted(".".join(name.parts) for name in names)


def main() -> None:
    clips = [person(12 + seed % 3, seed) for seed in range(24)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        path = write_csv(Path("signs.csv"), clips, [seed % 4 for seed in range(24)])
        modules = modules_of_a_step(path)
        os.chdir(ROOT)
    print("\n".join(modules))
    num_cli = sum(name.startswith("cli") for name in modules)
    print(f"{len(modules)} modules, {num_cli} of them in cli")


if __name__ == "__main__":
    main()
