"""`slrctl train` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from calls import TINY, plain

from slrctl.cli.progress import describe_loss
from slrctl.layers import Layer, nested, resolve
from slrctl.runs import folder as run_folder


def test_a_run_holds_everything_it_promises(trained):
    assert {path.name for path in trained.iterdir()} == set(run_folder.FILES)
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    predictions = pd.read_parquet(trained / "predictions.parquet")
    assert set(predictions["split"]) == {"val", "test"}
    assert {"clip_id", "gloss", "predicted", "probability", "rank"} <= set(predictions.columns)
    environment = json.loads((trained / "environment.json").read_text())
    assert set(environment["data"]) == {"train", "val", "test"}
    assert environment["classes"] == sorted(environment["classes"])


def test_json_is_one_object_on_standard_output_and_nothing_else(finished):
    folder, result = finished

    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert set(summary) == {"run_dir", "epochs", "best_epoch", "validation", "test", "seconds"}
    assert set(summary["validation"]) >= {
        *("accuracy", "accuracy_ci95", "macro_f1", "nll", "ece", "ci_unit", "chance"),
    }
    assert summary == json.loads((folder / "runs/one/summary.json").read_text())


def test_a_pipe_gets_one_plain_line_an_epoch(finished):
    _, result = finished

    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert all(word in lines[0] for word in ("CE", "consistency", "alignment", "validation"))
    assert "\x1b" not in result.stderr


def test_quiet_prints_nothing_and_a_run_without_a_name_gets_one_that_is_free(run, tiny_path):
    Path("runs/tiny-ce-seed379").mkdir(parents=True)

    result = run("train", "--train", tiny_path, "--quiet", *TINY)

    assert result.output == ""
    assert Path("runs/tiny-ce-seed379-2/summary.json").is_file()


def test_a_dry_run_describes_the_training_and_writes_nothing(run, tiny_path):
    result = run("train", "--train", tiny_path, "--dry-run", "--name=one", "--json", *TINY)

    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (facts["clips_in_batch"], facts["batches_per_epoch"]) == (4, 2)
    assert "8 train, 4 val, 4 test clips, 4 glosses, 4 signers" in result.stderr
    assert not Path("runs").exists()


def test_a_run_is_overwritten_with_force_only_and_its_evaluations_go(run, trained, tiny_path):
    (trained / "evaluation-test").mkdir()
    (trained / "evaluation-test" / "metrics.json").write_text("{}")
    before = (trained / "best.safetensors").stat().st_mtime_ns
    arguments = ["train", "--train", tiny_path, "--name", "one", *TINY]

    refused = run(*arguments)

    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (trained / "best.safetensors").stat().st_mtime_ns == before
    assert run(*arguments, "--force").exit_code == 0
    assert (trained / "best.safetensors").stat().st_mtime_ns > before
    assert not (trained / "evaluation-test").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set=train.clip_gradient=0"],
        # It breaks in the last step of an epoch, so that validation finds it.
        ["--batch-size=64", "--epochs=1", "--set=train.warmup_epochs=0", "--cmcl=balanced"],
    ],
)
def test_a_training_that_diverges_exits_4_and_says_where(run, tiny_path, arguments):
    result = run("train", "--train", tiny_path, *TINY, "--learning-rate", "1e38", *arguments)

    assert result.exit_code == 4
    assert "epoch 1" in result.stderr
    assert "--learning-rate" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["cross-entropy", "CMCL off"]),
        ({"cmcl.preset": "balanced"}, ["0.1 consistency (kl", "0.05 alignment", "CMCL balanced"]),
        ({"cmcl.preset": "adaptive"}, ["0.2 consistency", "adaptive lambdas", "CMCL adaptive"]),
        ({"cmcl.lambda_alignment": 0.1}, ["CMCL own lambdas"]),
        ({"cmcl.preset": "balanced", "cmcl.lambda_consistency": 0.7}, ["CMCL own lambdas"]),
        (
            {
                "cmcl.preset": "balanced",
                "cmcl.consistency": "cycle",
                "cmcl.alignment": "contrastive",
                "cmcl.multi_scale": True,
            },
            ["consistency (cycle)", "alignment (contrastive, every layer)"],
        ),
    ],
)
def test_the_header_names_the_loss_and_a_preset_only_where_it_is_in_force(values, words):
    settings = resolve([Layer("test", nested(key, value)) for key, value in values.items()])

    described = describe_loss(settings.settings)

    assert all(word in described for word in words)


def test_diagnostics_and_warnings_come_below_their_epoch(run, tiny_path):
    result = run(
        *("train", "--train", tiny_path, "--lambda-consistency=1e-9", *TINY, "--epochs=5"),
        "--set=train.diagnostics=true",
    )

    lines = plain(result).splitlines()
    starts = [line.strip().split(":")[0] for line in lines]
    assert starts.count("gradient over that of CE") == 5
    assert starts.count("entropy over uniform") == 5
    (warning,) = [place for place, line in enumerate(lines) if line.startswith("warning: ")]
    assert [line for line in lines[:warning] if line.startswith("epoch ")][-1].startswith(
        "epoch 3/5"
    )


def test_find_lambdas_writes_nothing_and_reports_both_terms(run, tiny_path, tmp_path):
    result = run("train", "--train", tiny_path, "--find-lambdas", *TINY, "--epochs=8", "--json")

    report = json.loads(result.stdout)
    assert set(report) == {"steps", "measured", "consistency", "alignment"}
    lambdas = report["consistency"]["lambdas"]
    assert lambdas["0.1"] == pytest.approx(10 * lambdas["0.01"])
    assert "10 % of CE's" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_package_can_be_run_where_its_command_is_not_on_the_path():
    ran = subprocess.run(
        [sys.executable, "-m", "slrctl", "evaluate", "--nope"], capture_output=True, text=True
    )

    assert ran.returncode == 2
    assert ran.stderr.startswith("Usage: python -m slrctl evaluate")


def test_every_public_name_can_be_imported():
    import slrctl

    assert all(getattr(slrctl, name) is not None for name in slrctl.__all__)
