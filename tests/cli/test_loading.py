"""Commands are loaded when they are used, and torch only when there is something to compute."""

import os
import subprocess
import sys

import pytest
from calls import call

from slrctl.cli import COMMANDS

HEAVY = {"torch", "pandas", "numpy", "pyarrow", "sklearn", "matplotlib"}
NAMES = list(COMMANDS)


def loaded_by(calls, shown="output"):
    """Return the heavy packages that these calls load, and their output or their exit codes."""
    code = (
        "import sys\nfrom slrctl.cli import main\n"
        f"for arguments in {calls!r}:\n"
        "    sys.argv = ['slrctl', *arguments]\n"
        "    try: main()\n"
        f"    except SystemExit as ended: {'print(ended.code)' if shown != 'output' else 'pass'}\n"
        f"print('loaded:', *({HEAVY!r} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    output, _, loaded = ended.stdout.rpartition("loaded:")
    return set(loaded.split()), output


def test_no_help_loads_torch():
    calls = [[], ["--help"], ["--version"], ["data"], *([*n.split(), "--help"] for n in NAMES)]

    loaded, output = loaded_by(calls)

    assert loaded == set()
    assert output.count("Usage: slrctl") == len(calls) - 1


def test_no_wrong_setting_loads_torch():
    calls = [
        ["train", "--set=train.lr=1"],
        ["train", "--precision=bf16"],
        ["train", "--resume", "--epochs=3"],
        ["evaluate", "--set=model.ffn_dim=3"],
        ["evaluate", "--set=evaluate.resamples=1"],
        ["inspect-attention", "--set=data.nothing=1"],
        ["ablate", "--epochs=0"],
        ["ablate", "--study=nothing"],
        ["data", "info", "x.csv", "--set=model.ffn_dim=3"],
        ["data", "convert", "x.csv", "y.parquet", "--frame-size=6"],
        ["data", "split", "x.csv", "--by=random", "--set=seed=3"],
        ["data", "show", "x.csv", "--set=data.nothing=1"],
        ["data", "audit", "x.csv", "--allow=gloss"],
        ["data", "cache", "--set=data.nothing=1"],
    ]

    loaded, output = loaded_by(calls, "exit codes")

    assert loaded == set()
    assert output.split() == ["2"] * len(calls)


@pytest.mark.parametrize(
    ("line", "completed"), [("slrctl tr", "train"), ("slrctl train --ep", "--epochs")]
)
def test_completion_loads_no_torch(line, completed):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}

    code = "import sys; sys.argv = ['slrctl']; from slrctl.cli import app\n"
    code += f"import atexit; atexit.register(lambda: print(*({HEAVY!r} & set(sys.modules))))\n"
    code += "app(prog_name='slrctl')"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | words | {"_SLRCTL_COMPLETE": "complete_bash"},
    )

    assert ended.stdout.split() == [completed]


@pytest.mark.parametrize(("name", "summary"), COMMANDS.items())
def test_a_command_is_listed_and_says_of_itself_what_the_list_says(name, summary):
    *group, last = name.split()

    listed, own = call(*group, "--help"), call(*group, last, "--help")

    assert f"│ {last} " in listed.output
    assert summary in " ".join(own.output.split())


def test_a_command_that_is_mistyped_is_guessed():
    result = call("data", "shw")

    assert result.exit_code == 2
    assert "'show'" in result.stderr
