"""`slrctl ablate` as a user meets it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from calls import call, plain

from slrctl.core.data.readers.parquet import write_parquet

SLRCTL = Path(sys.executable).with_name("slrctl")
TINY = [
    "--set=model.embed_dim=8",
    "--set=model.joint_dim=8",
    "--set=evaluate.resamples=100",
    "--set=train.batch_size=8",
    "--epochs=1",
    "--jobs=1",
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
TWO = ["--variant=warm:cmcl.preset=balanced,cmcl.temperature=2"]
SMALL = ["--seeds=1", *TWO, *TINY]
STUDY = ["--train=tiny.parquet", "--seeds=2", *TWO, *TINY, "--plan=0.02"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_dataset):
    """A folder in which a study was run to its end, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    write_parquet(tiny_dataset, folder / "tiny.parquet")
    before = Path.cwd()
    os.chdir(folder)
    try:
        result = call("ablate", *STUDY, "--output=study", "--json")
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    return folder, result


@pytest.fixture
def again(run, whole, tmp_path):
    """Repeat that study in a copy of its folder."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    return partial(run, "ablate", *STUDY, "--output=study")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_study_writes_every_table_and_picture_and_a_row_a_trial(whole):
    folder = whole[0] / "study"

    assert {path.name for path in folder.iterdir()} == {
        *("results.csv", "report.md", "report.html", "table.tex", "summary.json", "trials"),
        *("forest.png", "forest.svg", "learning_curves.png", "learning_curves.svg"),
    }
    assert [(row["variant"], row["seed"]) for row in rows_of(folder)] == [
        *(("CE", "379"), ("warm", "379"), ("CE", "380"), ("warm", "380")),
    ]
    assert len(list(folder.glob("trials/*/best.safetensors"))) == 4
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "warm: cmcl.preset=balanced, cmcl.temperature=2" in text
        assert "train 8 clips of train1, train2; validation 4 clips of val1; test 4" in text


@pytest.mark.slow
def test_json_is_one_object_with_the_promised_keys(whole):
    report = json.loads(whole[1].stdout)

    assert set(report) >= {"study", "baseline", "primary", "seeds", "variants", "plan"}
    assert report["seeds"] == [379, 380]
    assert set(report["variants"]["warm"]) >= {
        *("n", "mean", "sd", "ci95", "difference", "difference_ci95", "p", "p_holm"),
        *("probability_of_improvement", "seeds_needed", "verdict"),
    }
    assert report["variants"]["warm"]["verdict"] == "too few seeds"
    # Two seeds of these few clips may well give equal differences, from which no plan follows.
    assert set(report["plan"]) <= {"warm"}
    assert "to see 2 points in warm" in whole[1].stderr


@pytest.mark.slow
def test_the_same_command_again_repeats_nothing_and_gives_the_same_files(again, tmp_path):
    def files():
        folder = tmp_path / "study"
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    before = files()

    result = again("--json")

    assert json.loads(result.stdout)["seeds"] == [379, 380]
    assert "4 done already" in result.stderr
    assert files() == before


def damaged_metrics(folder):
    next(folder.glob("trials/*/metrics.jsonl")).write_text("")


def blocked_report(folder):
    (folder / "report.md").unlink()
    (folder / "report.md").mkdir()


def linked_lock(folder):
    summary = next(folder.glob("trials/*/summary.json"))
    lock = summary.parent.with_name(f"{summary.parent.name}.lock")
    summary.unlink()
    lock.unlink()
    lock.symlink_to("../../precious")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (damaged_metrics, 3, "cannot be read as a finished trial"),
        (blocked_report, 1, "Is a directory"),
        (linked_lock, 0, "Too many levels of symbolic links"),
    ],
)
def test_a_study_whose_folder_was_damaged_says_so(again, tmp_path, damage, code, message):
    (tmp_path / "precious").write_text("a thesis")
    damage(tmp_path / "study")

    result = again()

    assert result.exit_code == code
    assert message in " ".join(plain(result).split())
    assert (tmp_path / "precious").read_text() == "a thesis"


@pytest.mark.slow
def test_a_variant_that_diverges_is_reported_and_the_study_goes_on(run, tiny_path, tmp_path):
    ill = "--variant=ill:cmcl.preset=balanced,train.learning_rate=1e30,train.warmup_epochs=0"

    result = run("ablate", "--train", tiny_path, "--seeds=2", ill, *TINY, "--output=study")

    assert result.exit_code == 0, result.output
    assert "failed: ill, seed 379: epoch 1" in plain(result)
    for name in ("report.md", "report.html", "table.tex"):
        assert "all 2 failed" in (tmp_path / "study" / name).read_text()
    failures = [row["failure"] for row in rows_of(tmp_path / "study") if row["variant"] == "ill"]
    assert len(failures) == 2
    assert all("finite" in failure for failure in failures)


@pytest.mark.slow
def test_each_signer_tests_once_when_folds_are_asked_for(run, tiny_path, tmp_path):
    result = run(
        "ablate", "--train", tiny_path, "--seeds=1", *TWO, *TINY, "--folds=signer", "--output=study"
    )

    assert result.exit_code == 0, result.output
    rows = rows_of(tmp_path / "study")
    assert len({row["fold"] for row in rows}) == 4
    assert {(row["part"], row["clips"]) for row in rows} == {("test", "4")}


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["--ray", "--dry-run"], "local"),
        (["--dry-run", "--ray"], "local"),
        (["--ray", "node:6379", "--dry-run"], "node:6379"),
        (["--ray=node:6379", "--dry-run"], "node:6379"),
    ],
)
def test_a_dry_run_says_what_would_run_on_a_cluster_with_or_without_an_address(
    run, tiny_path, tmp_path, arguments, address
):
    result = run(
        "ablate", "--train", tiny_path, "--seeds=1", *TWO, *TINY, "--jobs=3", "--json", *arguments
    )

    assert json.loads(result.stdout) == {"trials": 2, "remaining": 2}
    assert f"3 at a time on Ray, {address}" in " ".join(result.stderr.split())
    assert not (tmp_path / "studies").exists()


@pytest.fixture
def start(still_path, commands):
    """Start a study of one process for each of two trials, too long to end by itself."""

    def start(folder: str) -> int:
        arguments = ["--train", still_path, *SMALL, "--jobs=2", "--epochs=5000"]
        return commands.start("ablate", *arguments, f"--output={folder}")

    return start


def children_of(process: int) -> dict[int, str]:
    """Command lines of the processes that this one started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {
        int(child): Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for child in children
    }


def workers_of(process: int) -> list[int]:
    return [child for child, line in children_of(process).items() if "spawn_main" in line]


def epochs_in(folder: Path) -> list[Path]:
    """Files of the trials that have ended an epoch."""
    return list(folder.glob("trials/*/metrics.jsonl"))


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("state", ["importing", "working"])
def test_workers_leave_with_their_study(start, commands, state, number):
    folder = f"{state}-{number}"
    study = start(folder)
    if state == "importing":
        wait_until(lambda: len(workers_of(study)) == 2)
        time.sleep(0.3)
    else:
        wait_until(lambda: len(epochs_in(commands.folder / folder)) == 2)
    started = list(children_of(study))  # the process that cleans up for multiprocessing is one

    os.kill(study, number)
    commands.wait()

    assert len(started) == 3
    wait_until(lambda: not any(map(is_alive, started)))


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_study_that_is_told_to_end_says_what_is_finished_on_one_line(start, commands, number):
    folder = f"told-{number}"
    study = start(folder)
    wait_until(lambda: len(epochs_in(commands.folder / folder)) == 2)

    # As a terminal does it: all processes of the study hear of it, the workers first.
    for process in [*(workers_of(study) if number != signal.SIGTERM else []), study]:
        os.kill(process, number)
    ended = commands.wait()

    assert ended.code == 130
    assert ended.stderr == ("interrupted: 0 of 2 trials are finished; the same command goes on\n")


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize(
    ("moment", "told"),
    [
        ("plan_whole_study", ""),
        ("estimate_seconds", ": 0 of 2 trials are finished; the same command goes on"),
        ("report_study", ": 2 of 2 trials are finished; the same command goes on"),
    ],
)
def test_a_study_told_to_end_at_any_moment_says_so(run, tiny_path, monkeypatch, moment, told):
    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(f"slrctl.cli.ablate_view.{moment}", stop)

    result = run("ablate", "--train", tiny_path, *SMALL)

    assert result.exit_code == 130
    assert result.stderr == f"interrupted{told}\n"


@pytest.mark.slow
def test_ablate_alone_announces_the_default_study_on_the_demo_set(commands):
    study = commands.start("ablate")
    output = commands.folder / "out"
    # Until it has begun, the file holds what the command before it said.
    wait_until(lambda: "for the 72 that remain" in output.read_text())
    os.kill(study, signal.SIGINT)

    ended = commands.wait()

    assert ended.code == 130
    assert "8 variants x 9 seeds = 72 trials of 8 epochs, 0 done already" in ended.stdout
    assert ended.stderr.startswith("interrupted: 0 of 72 trials are finished")


@pytest.mark.slow
def test_a_study_killed_at_any_moment_goes_on_and_reports_the_same(tmp_path, tiny_path):
    arguments = ["ablate", "--train", str(tiny_path), "--seeds=3", *TWO, *TINY, "--epochs=2"]

    def start(place: Path) -> subprocess.Popen[bytes]:
        place.mkdir(exist_ok=True)
        with (place / "output.txt").open("w") as output:
            return subprocess.Popen(
                [str(SLRCTL), *arguments], cwd=place, start_new_session=True,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def finish(place: Path) -> str:
        code = start(place).wait(600)
        output = (place / "output.txt").read_text()
        assert code == 0, output
        return output

    finish(tmp_path / "whole")
    trials = tmp_path / "cut" / "studies" / "trials"
    for finished in (0, 2, 4):
        cut = start(tmp_path / "cut")
        deadline = time.monotonic() + 300
        while len(list(trials.glob("*/summary.json"))) <= finished:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(cut.pid, signal.SIGKILL)
        cut.wait()
    output = finish(tmp_path / "cut")

    assert int(output.split(" done already")[0].rpartition(" ")[2]) >= 5
    whole, cut = (
        [
            {name: value for name, value in row.items() if name != "train_seconds"}
            for row in rows_of(next((tmp_path / name / "studies").glob("cmcl-*")))
        ]
        for name in ("whole", "cut")
    )
    assert whole == cut
