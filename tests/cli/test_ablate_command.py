"""`slrctl ablate` as a user meets it."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from calls import call, plain

from slrctl.core.data.readers.parquet import write_parquet

SLRCTL = Path(sys.executable).with_name("slrctl")
TINY = [
    "--set=model.ffn_dim=8",
    "--set=model.num_encoder_layers=1",
    "--set=model.num_decoder_layers=1",
    "--set=evaluate.resamples=100",
    "--set=train.batch_size=8",
    "--epochs=1",
    "--jobs=1",
]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
TWO = ["--variant=warm:cmcl.preset=balanced,cmcl.temperature=2"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Call slrctl in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(call, "ablate")


@pytest.fixture
def folder(tmp_path):
    """The folder of the only study that was run there."""

    def found(above=tmp_path):
        (one,) = (path for path in (above / "studies").iterdir() if path.name != "trials")
        return one

    return found


@pytest.mark.slow
def test_a_study_says_what_it_will_do_and_writes_every_table_and_picture(
    run, folder, tiny_path, tmp_path
):
    result = run("--train", tiny_path, "--seeds=2", *TWO, *TINY)

    assert result.exit_code == 0, result.output
    output = plain(result)
    assert "2 variants x 2 seeds = 4 trials of 1 epoch, 0 done already" in output
    assert "4 that remain" in output
    assert "too few seeds for a verdict: 2 of the 6" in output
    assert {path.name for path in folder().iterdir()} == {
        "results.csv", "report.md", "report.html", "table.tex", "summary.json",
        "forest.png", "forest.svg", "learning_curves.png", "learning_curves.svg",
    }  # fmt: skip
    with (folder() / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["variant"], row["seed"]) for row in rows] == [
        ("CE", "379"), ("warm", "379"), ("CE", "380"), ("warm", "380"),
    ]  # fmt: skip
    assert len(list((tmp_path / "studies" / "trials").glob("*/best.safetensors"))) == 4


@pytest.mark.slow
def test_the_same_command_again_repeats_nothing_and_gives_the_same_files(run, folder, tiny_path):
    arguments = ["--train", tiny_path, "--seeds=1", *TWO, *TINY]
    run(*arguments)
    before = {path.name: path.read_bytes() for path in folder().iterdir()}

    again = run(*arguments)

    assert "2 done already" in plain(again)
    assert {path.name: path.read_bytes() for path in folder().iterdir()} == before


@pytest.mark.slow
def test_another_question_has_a_folder_of_its_own(run, tiny_path, tmp_path):
    arguments = ["--train", tiny_path, "--seeds=1", *TINY]
    for change in (
        TWO,
        ["--variant=warmer:cmcl.preset=balanced,cmcl.temperature=3"],
        [*TWO, "--set=train.learning_rate=0.002"],
        [*TWO, "--quick"],
    ):
        assert run(*arguments, *change).exit_code == 0

    assert len(list((tmp_path / "studies").glob("cmcl-tiny*"))) == 4


@pytest.mark.slow
def test_a_report_says_what_was_set_and_what_each_variant_changes(run, folder, tiny_path):
    run("--train", tiny_path, "--seeds=1", *TWO, *TINY, "--set=augment.mirror=0.5")

    for name in ("report.md", "report.html"):
        text = (folder() / name).read_text()
        assert "augment.mirror=0.5" in text
        assert "warm: cmcl.preset=balanced, cmcl.temperature=2" in text
        assert "CE: cmcl.preset=off" in text
        assert "train 8 clips of train1, train2; validation 4 clips of val1; test 4" in text
        assert "test accuracy (95 % interval)" in text


@pytest.mark.slow
def test_a_report_names_the_trials_that_failed(run, folder, tiny_path):
    bad = "--variant=wild:train.learning_rate=1e30"

    result = run("--train", tiny_path, "--seeds=2", bad, *TINY, "--epochs=2")

    assert result.exit_code == 0
    for name in ("report.md", "report.html", "table.tex"):
        text = (folder() / name).read_text()
        assert "wild: 2 failed; epoch 1, " in text
        assert "all 2 failed" in text
    with (folder() / "results.csv").open() as file:
        failures = [row["failure"] for row in csv.DictReader(file) if row["variant"] == "wild"]
    assert all("which must be finite" in failure for failure in failures)


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
        (damaged_metrics, 3, "cannot be read as a finished trial; remove it"),
        (blocked_report, 1, "the report cannot be written (Is a directory)"),
        (linked_lock, 0, "cannot be written or locked (Too many levels of symbolic links)"),
    ],
)
def test_a_study_whose_folder_was_damaged_says_so(run, tiny_path, tmp_path, damage, code, message):
    asked = ["--train", tiny_path, "--seeds=1", *TWO, *TINY, "--output=study"]
    run(*asked)
    (tmp_path / "precious").write_text("a thesis")
    damage(tmp_path / "study")

    result = run(*asked)

    assert result.exit_code == code
    assert message in " ".join(plain(result).split())
    assert (tmp_path / "precious").read_text() == "a thesis"


@pytest.mark.slow
def test_what_people_are_called_is_no_html_in_a_report(run, tiny_path, tiny_dataset, tmp_path):
    clips = [replace(clip, signer=f"<img src={clip.signer}>") for clip in tiny_dataset]
    write_parquet(clips, tiny_path)

    run("--train", tiny_path, "--seeds=1", *TWO, *TINY, "--output=study")

    for name in ("report.md", "report.html"):
        text = (tmp_path / "study" / name).read_text()
        assert "&lt;img src=train1" in text
        assert "<img src=train1" not in text


@pytest.mark.slow
def test_json_is_one_object_with_the_promised_keys(run, tiny_path):
    result = run("--train", tiny_path, "--seeds=2", *TWO, *TINY, "--json")

    report = json.loads(result.stdout)
    assert {"study", "baseline", "primary", "seeds", "variants"} <= set(report)
    assert report["seeds"] == [379, 380]
    assert set(report["variants"]["warm"]) >= {
        "n", "mean", "sd", "ci95", "difference", "difference_ci95", "p", "p_holm",
        "probability_of_improvement", "seeds_needed", "verdict",
    }  # fmt: skip


@pytest.mark.slow
def test_each_signer_tests_once_when_folds_are_asked_for(run, folder, tiny_path):
    result = run("--train", tiny_path, "--seeds=1", *TWO, *TINY, "--folds=signer")

    assert result.exit_code == 0, result.output
    with (folder() / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["fold"] for row in rows}) == 4
    assert {row["part"] for row in rows} == {"test"}
    assert {row["clips"] for row in rows} == {"4"}


@pytest.mark.slow
def test_chosen_people_train_and_the_others_test(run, folder, tiny_path, tiny_dataset):
    first, second, *others = sorted({clip.signer for clip in tiny_dataset})

    result = run(
        "--train", tiny_path, "--seeds=1", *TWO, *TINY, "--train-signers", f"{first},{second}"
    )

    assert result.exit_code == 0, result.output
    with (folder() / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(others) == 2
    assert {row["clips"] for row in rows} == {"8"}


@pytest.mark.slow
def test_a_pilot_says_how_many_seeds_would_show_a_difference(run, tiny_path):
    arguments = ["--train", tiny_path, "--seeds=2", *TWO, *TINY, "--plan=0.02"]

    result = run(*arguments, "--json")

    # Two seeds of these few clips may well give equal differences, from which no plan follows.
    for plan in json.loads(result.stdout)["plan"].values():
        assert plan["difference"] == 0.02
        assert plan["floor"] == 6
        assert plan["seeds"] is None or plan["seeds"] >= 6
    assert "to see 2 points in warm" in plain(run(*arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--study=cmlc"], "not one of cmcl"),
        (["--variant=x"], "expected NAME:section.key=value"),
        (["--grid=cmcl.temperature=1,2", "--variant=a:seed=1"], "give one of them"),
        (["--folds=session"], "expected signer"),
        (["--plan=0"], "--plan 0: expected a difference in accuracy above 0 and below 1"),
        (["--plan=nan"], "--plan nan: expected"),
        (["--plan=2"], "--plan 2: expected"),
        (["--set=cmcl.preset=balanced", "--dry-run"], "cmcl.preset is what the variants"),
        (["--set=cmcl.preset=balanced", "--dry-run"], "the baseline 'CE' too"),
    ],
)
def test_a_wrong_study_exits_2_on_one_line(run, tiny_path, arguments, message):
    result = run("--train", tiny_path, *TINY, *arguments)

    assert result.exit_code == 2
    assert message in result.output
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "workers"),
    [
        (["--ray", "--dry-run"], "3 at a time on Ray, local"),
        (["--dry-run", "--ray"], "3 at a time on Ray, local"),
        (["--ray", "node:6379", "--dry-run"], "3 at a time on Ray, node:6379"),
        (["--ray=node:6379", "--dry-run"], "3 at a time on Ray, node:6379"),
    ],
)
def test_ray_goes_with_an_address_or_without(run, tiny_path, arguments, workers):
    result = run("--train", tiny_path, "--seeds=1", *TWO, *TINY, "--jobs=3", *arguments)

    assert result.exit_code == 0, result.output
    assert workers in plain(result)


@pytest.mark.slow
def test_a_variant_that_diverges_at_once_is_told_of_and_the_study_goes_on(run, tiny_path, tmp_path):
    ill = "--variant=ill:cmcl.preset=balanced,train.learning_rate=1e30,train.warmup_epochs=0"

    result = run("--train", tiny_path, "--seeds=1", ill, *TINY)

    assert result.exit_code == 0, result.output
    assert "failed: ill, seed 379: epoch 1" in plain(result)
    assert len(list((tmp_path / "studies" / "trials").glob("*/summary.json"))) == 1


@pytest.fixture
def start(still_path, commands):
    """Start a study of one process for each of two trials, too long to end by itself."""

    def start(folder: str) -> int:
        arguments = ["--train", still_path, "--seeds=1", *TWO, *TINY, "--jobs=2", "--epochs=5000"]
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


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_are_still_importing_leave_with_their_study(start, commands, number):
    study = start(f"importing-{number}")
    wait_until(lambda: len(workers_of(study)) == 2)
    started = list(children_of(study))  # the process that cleans up for multiprocessing is one
    time.sleep(0.3)

    os.kill(study, number)
    commands.wait()

    assert len(started) == 3
    wait_until(lambda: not any(map(is_alive, started)), seconds=60)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_at_work_and_waiting_leave_with_their_study(start, commands, number):
    folder = f"working-{number}"
    study = start(folder)
    wait_until(lambda: len(list((commands.folder / folder).glob("trials/*/metrics.jsonl"))) == 2)
    started = list(children_of(study))

    os.kill(study, number)
    commands.wait()

    assert len(started) == 3
    wait_until(lambda: not any(map(is_alive, started)), seconds=60)


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_study_that_is_told_to_end_says_what_is_finished_on_one_line(start, commands, number):
    folder = f"told-{number}"
    study = start(folder)
    wait_until(lambda: len(list((commands.folder / folder).glob("trials/*/metrics.jsonl"))) == 2)

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
        ("trials.plan_trials", ""),
        ("running.estimate_seconds", ": 0 of 2 trials are finished; the same command goes on"),
        ("report.report_study", ": 2 of 2 trials are finished; the same command goes on"),
    ],
)
def test_a_study_told_to_end_at_any_moment_says_so(run, tiny_path, monkeypatch, moment, told):
    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(f"slrctl.studies.ablation.{moment}", stop)

    result = run("--train", tiny_path, "--seeds=1", *TWO, *TINY)

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
def test_a_study_killed_at_any_moment_goes_on_and_reports_the_same(folder, tmp_path, tiny_path):
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
    tables = []
    for name in ("whole", "cut"):
        with (folder(tmp_path / name) / "results.csv").open() as file:
            rows = list(csv.DictReader(file))
        tables.append([{k: v for k, v in row.items() if k != "train_seconds"} for row in rows])
    assert tables[0] == tables[1]
