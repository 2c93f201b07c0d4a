"""`slrctl train` and `slrctl evaluate` as a user meets them."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from calls import plain

from slrctl.core.data.readers.parquet import write_parquet
from slrctl.runs import folder as run_folder

TINY = [
    "--set=model.ffn_dim=16",
    "--set=model.num_encoder_layers=1",
    "--set=evaluate.resamples=100",
    "--epochs=2",
    "--batch-size=4",
]


@pytest.fixture
def trained(run, tiny_path):
    result = run("train", "--train", tiny_path, "--cmcl", "balanced", "--name", "one", *TINY)
    assert result.exit_code == 0, result.output
    return Path("runs/one")


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


def test_json_is_one_object_on_standard_output_and_nothing_else(run, tiny_path):
    result = run("train", "--train", tiny_path, "--json", *TINY)

    summary = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert {"run_dir", "epochs", "best_epoch", "validation", "test", "seconds"} == set(summary)
    assert {"accuracy", "accuracy_ci95", "macro_f1", "nll", "ece", "ci_unit", "chance"} <= set(
        summary["validation"]
    )
    assert "epoch 1/2" in result.stderr


def test_a_pipe_gets_one_plain_line_an_epoch(run, tiny_path):
    result = run("train", "--train", tiny_path, "--cmcl", "balanced", *TINY)

    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch ")]
    assert len(lines) == 2
    assert all(
        word in lines[0] for word in ("CE", "consistency", "alignment", "accuracy", "validation")
    )
    assert "\x1b" not in result.stdout


def test_quiet_prints_nothing(run, tiny_path):
    assert run("train", "--train", tiny_path, "--quiet", *TINY).output == ""


def test_the_header_says_what_is_trained_on_what(run, tiny_path):
    result = run("train", "--train", tiny_path, "--cmcl", "adaptive", "--dry-run", *TINY)

    output = plain(result)
    assert "8 train, 4 val, 4 test clips, 4 glosses, 4 signers" in output
    assert "0.2 consistency (kl, temperature 1) + 0.1 alignment, adaptive lambdas" in output
    assert "missing in" in output


def test_a_dry_run_writes_nothing(run, tiny_path):
    result = run("train", "--train", tiny_path, "--dry-run", "--name", "one", *TINY)

    assert result.exit_code == 0
    assert "No run was saved." in plain(result)
    assert not Path("runs").exists()


def test_the_same_seed_gives_the_same_weights_and_another_does_not(run, tiny_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("train", "--train", tiny_path, "--name", name, "--seed", seed, *TINY)

    weights = [Path(f"runs/{name}/last.safetensors").read_bytes() for name in "abc"]
    # The header of the file holds the times of the run; the tensors lie behind it.
    tensors = [content[8 + int.from_bytes(content[:8], "little") :] for content in weights]
    assert tensors[0] == tensors[1]
    assert tensors[0] != tensors[2]


def test_a_run_is_not_overwritten_without_force(run, trained, tiny_path):
    before = (trained / "best.safetensors").stat().st_mtime_ns

    refused = run("train", "--train", tiny_path, "--name", "one", *TINY)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (trained / "best.safetensors").stat().st_mtime_ns == before

    assert run("train", "--train", tiny_path, "--name", "one", "--force", *TINY).exit_code == 0


def test_runs_without_a_name_are_numbered(run, tiny_path):
    for _ in range(2):
        run("train", "--train", tiny_path, *TINY)

    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "tiny-ce-seed379",
        "tiny-ce-seed379-2",
    ]


def test_show_settings_names_the_origin_of_every_value(run):
    result = run("train", "--show-settings", "--cmcl", "balanced", "--epochs", 3, "--set", "seed=4")

    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["train.epochs"].split() == ["train.epochs", "3", "--epochs"]
    assert lines["seed"].split() == ["seed", "4", "--set", "seed"]
    assert "--cmcl balanced (preset balanced)" in lines["cmcl.lambda_consistency"]
    assert lines["model.dropout"].endswith("default")


def test_show_settings_can_be_json(run):
    shown = json.loads(run("train", "--show-settings", "--json", "--seed", 5).stdout)

    assert shown["seed"] == {"value": 5, "origin": "--seed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.lr=1"], "the nearest is 'train.learning_rate'"),
        (["--epochs", "0"], "train.epochs: Input should be greater than or equal to 1"),
        (["--cmcl", "balanced", "--no-cross-attention"], "pass --cross-attention"),
        (["--adaptive-cmcl"], "nothing to schedule"),
        (["--device", "tpu9"], "device 'tpu9' cannot be used here"),
        (["--name", "../up"], "a name is one folder"),
        (["--name", "a", "--run-dir", "b"], "both name the folder"),
        (["--val", "clips.csv"], "given without training clips"),
        (["--config", "none.toml"], "none.toml: cannot be read"),
    ],
)
def test_a_wrong_option_exits_2_and_is_named_on_one_line(run, arguments, message):
    result = run("train", *arguments, *(TINY if "--epochs" not in arguments else []))

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == "" or "--val" in arguments


@pytest.mark.parametrize(
    "arguments", [["--cmcl", "maximal"], ["--epochs", "many"], ["--precision", "int4"], ["--no"]]
)
def test_a_value_no_option_takes_exits_2(run, arguments):
    assert run("train", *arguments).exit_code == 2


def test_bad_data_exits_3_on_one_line(run, tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("no,clips\n1,2\n")

    result = run("train", "--train", path, *TINY)

    assert result.exit_code == 3
    assert "clips.csv" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_training_that_diverges_exits_4_and_says_what_to_do(run, tiny_path):
    result = run(
        "train", "--train", tiny_path, *TINY,
        "--set", "train.clip_gradient=0", "--learning-rate", "1e38",
    )  # fmt: skip

    assert result.exit_code == 4
    assert "epoch 1" in result.stderr
    assert "--learning-rate" in result.stderr
    assert result.stderr.count("\n") == 1


def test_evaluate_gives_again_what_training_reported(run, trained):
    summary = json.loads((trained / "summary.json").read_text())

    result = run("evaluate", trained, "--json")
    evaluated = json.loads(result.stdout)

    same = {key: value for key, value in evaluated.items() if key in summary["test"]}
    assert same == summary["test"]
    assert evaluated["data"] == "test"


def test_evaluate_takes_the_newest_run_and_writes_its_tables(run, trained):
    result = run("evaluate", "--split", "val")

    folder = trained / "evaluation-val"
    assert {path.name for path in folder.iterdir()} == {
        "metrics.json",
        "predictions.parquet",
        "per_class.csv",
        "confusion.png",
    }
    output = plain(result)
    assert "95 % interval, by clip" in output
    assert "fewer than 10" in output


def test_evaluate_reads_other_clips_and_other_folders(run, trained, tiny_path, tmp_path):
    result = run(
        "evaluate", trained, "--data", tiny_path, "--split", "train", "--output", "out", "--json"
    )

    assert json.loads(result.stdout)["clips"] == 8
    assert len(pd.read_parquet("out/predictions.parquet")) == 8


def test_an_evaluation_is_written_over_by_itself_and_by_another_only_with_force(run, trained):
    asked = ["evaluate", trained, "--output", "out"]
    run(*asked)
    before = Path("out/predictions.parquet").read_bytes()

    again, other = run(*asked), run(*asked, "--split", "val")

    assert again.exit_code == 0
    assert other.exit_code == 2
    assert "of another model or of other clips" in other.stderr
    assert Path("out/predictions.parquet").read_bytes() == before
    assert run(*asked, "--split", "val", "--force").exit_code == 0
    assert Path("out/predictions.parquet").read_bytes() != before


def test_another_checkpoint_of_the_run_is_another_model(run, trained):
    run("evaluate", trained)

    result = run("evaluate", trained / "last.safetensors")

    assert result.exit_code == 2


def test_a_file_of_a_strangers_stays(run, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.parquet").write_text("a thesis")

    result = run("evaluate", trained, "--output", "out")

    assert result.exit_code == 2
    assert "holds the predictions.parquet" in result.stderr
    assert (tmp_path / "out" / "predictions.parquet").read_text() == "a thesis"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "not a run"),
        (["runs/one", "--split", "holdout"], 2, "the splits train, val, test"),
        (["runs/one", "--data", "tiny.parquet", "--split", "x"], 2, "has test, train, val"),
        (["runs/one", "--set", "model.max_frames=300"], 2, "settled by the run"),
        (["runs/one", "--set", "prepare.hand_box=3"], 2, "settled by the run"),
        (["runs/one", "--data", "none.csv"], 3, "none.csv"),
    ],
)
def test_evaluate_says_what_is_wrong(run, trained, arguments, code, message):
    result = run("evaluate", *arguments)

    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_another_seed_evaluates_the_same_clips_to_the_same_numbers(run, tiny_path, tiny_dataset):
    from dataclasses import replace

    write_parquet([replace(clip, split=None, signer=None) for clip in tiny_dataset], tiny_path)
    run("train", "--train", tiny_path, "--name", "one", *TINY)

    first, second = (
        json.loads(run("evaluate", "--json", "--set", f"seed={seed}").stdout) for seed in (379, 5)
    )

    assert first["fingerprint"] == second["fingerprint"]
    assert first["accuracy"] == second["accuracy"]


def test_another_seed_looks_into_the_same_clips(run, tiny_path, tiny_dataset):
    from dataclasses import replace

    write_parquet([replace(clip, split=None, signer=None) for clip in tiny_dataset], tiny_path)
    run("train", "--train", tiny_path, "--name", "one", *TINY)

    result = run("inspect-attention", "--summary", "--json", "--set", "seed=5")

    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("kept", [3, 4])
def test_data_that_changed_after_the_training_is_refused(
    run, trained, tiny_path, tiny_dataset, kept
):
    glosses = tiny_dataset.classes[:kept]
    clips = [clip for clip in tiny_dataset if clip.gloss in glosses][kept == 4 :]
    changed = [clip for clip in clips if clip.split != "test"] + [
        clip for clip in clips if clip.split == "test"
    ][1:]
    write_parquet(changed, tiny_path)

    result = run("evaluate", trained)

    assert result.exit_code == 3
    assert "not those the run was made with" in result.stderr


def test_a_split_is_recognised_however_it_is_spelled(run, trained, tiny_path, tiny_dataset):
    from dataclasses import replace

    spelled = {"train": "Training", "val": "dev", "test": "TEST "}
    write_parquet([replace(c, split=spelled[c.split or ""]) for c in tiny_dataset], tiny_path)

    result = run("evaluate", trained, "--data", tiny_path, "--json")

    assert json.loads(result.stdout)["clips"] == 4


def test_a_run_finds_its_data_from_another_folder(run, tmp_path, tiny_path, monkeypatch):
    (tmp_path / "run.toml").write_text('[data]\ntrain = "tiny.parquet"\n')
    run("train", "--config", "run.toml", "--name", "one", *TINY)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert run("evaluate", "../runs/one").exit_code == 0


def test_force_removes_the_evaluations_of_the_old_model(run, trained, tiny_path):
    run("evaluate", trained)
    assert (trained / "evaluation-test").is_dir()

    run("train", "--train", tiny_path, "--name", "one", "--force", *TINY)

    assert not (trained / "evaluation-test").exists()


def test_a_model_that_breaks_in_an_epochs_last_step_exits_4(run, tiny_path):
    result = run(
        "train", "--train", tiny_path, *TINY, "--batch-size", "64", "--epochs", "1",
        "--set=train.warmup_epochs=0", "--learning-rate", "1e38", "--cmcl", "balanced",
    )  # fmt: skip

    assert result.exit_code == 4
    assert "validation loss" in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_gloss_alone_is_refused(run, tmp_path, tiny_dataset):
    path = tmp_path / "single.parquet"
    write_parquet([c for c in tiny_dataset if c.gloss == tiny_dataset.classes[0]], path)

    result = run("train", "--train", path, *TINY)

    assert result.exit_code == 3
    assert "at least two glosses" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--cmcl", "balanced"], "CMCL balanced"),
        (["--lambda-alignment", "0.1"], "CMCL own lambdas"),
        (["--cmcl", "balanced", "--lambda-consistency", "0.7"], "CMCL own lambdas"),
        ([], "CMCL off"),
    ],
)
def test_the_header_names_a_preset_only_where_it_is_in_force(run, tiny_path, arguments, name):
    result = run("train", "--train", tiny_path, "--dry-run", *arguments, *TINY)

    assert f"({name})" in plain(result)


@pytest.mark.parametrize(
    ("arguments", "streams"),
    [
        ([], "cross-attention on"),
        (["--no-cross-attention"], "cross-attention off"),
        (["--set", "model.name=spoter"], "one stream"),
    ],
)
def test_the_header_says_how_the_streams_meet(run, tiny_path, arguments, streams):
    result = run("train", "--train", tiny_path, "--dry-run", *arguments, *TINY)

    assert f"full attention, {streams}\n" in plain(result)


def test_evaluate_without_any_run_says_how_to_make_one(run):
    result = run("evaluate")

    assert result.exit_code == 1
    assert "train one with slrctl train" in result.stderr


def test_a_gloss_that_is_markup_is_shown_as_text(run, tiny_dataset, tmp_path):
    from dataclasses import replace

    names = dict(
        zip(tiny_dataset.classes, ("[red]x[/red]", "$a_b$", "=1+1", "<script>"), strict=True)
    )
    clips = [replace(clip, gloss=names[clip.gloss]) for clip in tiny_dataset]
    path = tmp_path / "odd.parquet"
    write_parquet(clips, path)
    run("train", "--train", path, "--name", "odd", *TINY)

    result = run("evaluate", "runs/odd", "--split", "train")

    assert result.exit_code == 0
    assert "[red]x[/red]" in plain(result)


def test_the_package_can_be_run_where_its_command_is_not_on_the_path():
    ran = subprocess.run(
        [sys.executable, "-m", "slrctl", "evaluate", "--nope"], capture_output=True, text=True
    )

    assert ran.returncode == 2
    assert ran.stderr.startswith("Usage: python -m slrctl evaluate")


def test_every_public_name_can_be_imported():
    import slrctl

    assert all(getattr(slrctl, name) is not None for name in slrctl.__all__)


def test_diagnostics_show_what_the_terms_do_after_every_epoch(run, tiny_path):
    arguments = ["train", "--train", tiny_path, "--cmcl", "balanced", *TINY]

    without = plain(run(*arguments))
    shown = plain(run(*arguments, "--diagnostics"))

    assert "gradient over that of CE" not in without
    assert shown.count("gradient over that of CE: consistency ") == 2
    assert shown.count("entropy over uniform: left to right ") == 2
    assert shown.count("clips that contribute to consistency: ") == 2


def test_a_term_that_does_nothing_is_warned_of_once(run, tiny_path):
    result = run(
        "train", "--train", tiny_path, "--lambda-consistency=1e-9", *TINY, "--epochs=5"
    )  # fmt: skip

    lines = [line for line in plain(result).splitlines() if "consistency is inert" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: epoch 3: ")


def test_find_lambdas_writes_nothing_and_reports_both_terms(run, tiny_path, tmp_path):
    arguments = ["train", "--train", tiny_path, "--find-lambdas", *TINY, "--epochs=8"]

    result = run(*arguments, "--json")
    shown = plain(run(*arguments))

    report = json.loads(result.stdout)
    assert set(report) == {"steps", "measured", "consistency", "alignment"}
    lambdas = report["consistency"]["lambdas"]
    assert lambdas["0.1"] == pytest.approx(10 * lambdas["0.01"])
    assert "10 % of CE's" in shown
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["--no-cross-attention", "--set=model.name=spoter"])
def test_find_lambdas_of_a_model_without_maps_exits_2_on_one_line(run, tiny_path, option):
    result = run("train", "--train", tiny_path, "--find-lambdas", *TINY, option)

    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "--find-lambdas trains with both terms of CMCL" in result.stderr


def test_the_header_names_the_forms_of_cmcl(run, tiny_path):
    forms = ["cmcl.consistency=cycle", "cmcl.alignment=contrastive", "cmcl.multi_scale=true"]
    result = run(
        "train", "--train", tiny_path, "--cmcl", "balanced", "--dry-run", *TINY,
        *(f"--set={form}" for form in forms),
    )  # fmt: skip

    assert "0.1 consistency (cycle) + 0.05 alignment (contrastive, every layer)" in plain(result)
