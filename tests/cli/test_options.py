"""Flags of commands, and the settings they set."""

import json

import pytest
from calls import call, plain

FLAGS = {
    "--train": ("data.train", "a.csv", "/a.csv"),
    "--val": ("data.val", "b.csv", "/b.csv"),
    "--test": ("data.test", "c.csv", "/c.csv"),
    "--skip-bad-clips": ("data.skip_bad_clips", None, True),
    "--cross-attention": ("model.cross_attention", None, True),
    "--cmcl": ("cmcl.preset", "aggressive", "aggressive"),
    "--lambda-consistency": ("cmcl.lambda_consistency", "0.25", 0.25),
    "--lambda-alignment": ("cmcl.lambda_alignment", "0.75", 0.75),
    "--cmcl-temperature": ("cmcl.temperature", "3", 3.0),
    "--adaptive-cmcl": ("cmcl.adaptive", None, True),
    "--epochs": ("train.epochs", "7", 7),
    "--batch-size": ("train.batch_size", "11", 11),
    "--learning-rate": ("train.learning_rate", "0.5", 0.5),
    "--seed": ("seed", "13", 13),
    "--device": ("train.device", "cpu", "cpu"),
}


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_of_train_sets_its_setting(flag):
    key, text, value = FLAGS[flag]
    given = [flag] if text is None else [flag, text]
    # A schedule needs a lambda, and clips to validate on need clips to train on.
    needed = ["--set=cmcl.lambda_alignment=0.5"] * (flag == "--adaptive-cmcl")
    needed += ["--set=data.train=x.csv"] * (flag in ("--val", "--test"))

    result = call("train", "--show-settings", "--json", *given, *needed)

    shown = json.loads(result.stdout)[key]
    if key.startswith("data.") and text is not None:
        assert shown["value"].endswith(text)
    else:
        assert shown["value"] == value
    assert shown["origin"].split()[0] == flag


@pytest.mark.parametrize(
    ("flag", "key"),
    [("--no-cross-attention", "model.cross_attention"), ("--no-adaptive-cmcl", "cmcl.adaptive")],
)
def test_a_switch_can_be_turned_off(flag, key):
    result = call("train", "--show-settings", "--json", "--set", f"{key}=true", flag)

    assert json.loads(result.stdout)[key]["value"] is False


def test_layers_lie_over_one_another_in_the_published_order(tmp_path):
    config = tmp_path / "own.toml"
    config.write_text(
        'seed = 1\n[cmcl]\npreset = "aggressive"\ntemperature = 2\n[train]\nepochs = 2\n'
    )
    arguments = [
        *("--epochs=4", "--set=train.epochs=3", "--set=cmcl.lambda_alignment=0.5"),
        *("--cmcl=conservative", f"--config={config}"),
    ]

    shown = json.loads(call("train", "--show-settings", "--json", *arguments).stdout)

    values = {key: entry["value"] for key, entry in shown.items()}
    assert (values["seed"], values["train.epochs"], values["cmcl.temperature"]) == (1, 4, 2.0)
    assert values["cmcl.lambda_consistency"] == 0.05
    assert values["cmcl.lambda_alignment"] == 0.5
    assert shown["seed"]["origin"] == f"config {config}"
    assert shown["cmcl.lambda_alignment"]["origin"] == "--set cmcl.lambda_alignment"
    assert shown["model.dropout"]["origin"] == "default"


def test_settings_are_shown_a_line_each_with_their_origin():
    lines = call("train", "--show-settings", "--epochs", 3, "--set", "seed=4").stdout.splitlines()

    shown = {line.split()[0]: line.split()[1:] for line in lines}
    assert shown["train.epochs"] == ["3", "--epochs"]
    assert shown["seed"] == ["4", "--set", "seed"]
    assert shown["model.dropout"] == ["0.2", "default"]


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["train", "--precision", "bf16"], "--set train.precision=bf16"),
        (["train", "--precision=bf16"], "--set train.precision=bf16"),
        (["train", "--diagnostics", "--epochs", "3"], "--set train.diagnostics=true"),
        (["ablate", "--dropout", "0.2"], "--set model.dropout=0.2"),
    ],
)
def test_a_setting_that_is_no_flag_is_named(arguments, advice):
    result = call(*arguments)

    assert result.exit_code == 2
    assert advice in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--cmcl", "maximal"], ["--epochs", "many"], ["--no"], ["--batch-siz", "3"]]
)
def test_what_no_option_takes_exits_2(arguments):
    assert call("train", *arguments).exit_code == 2


def test_the_help_of_train_names_every_flag_its_panel_and_its_default():
    shown = plain(call("train", "--help"))

    panels = [line.split()[1] for line in shown.splitlines() if line.startswith("╭─")]
    assert panels == [
        *("Arguments", "Options", "Data", "Model", "CMCL", "Training", "Output", "Instead"),
    ]
    names = {word for word in shown.split() if word.startswith("--")}
    assert names >= {*FLAGS, "--no-cross-attention", "--name", "--resume", "--set", "--config"}
    words = " ".join(shown.replace("│", " ").split())
    assert "[default: 60]" in words
    assert "[default: on]" in words
    assert "slrctl train --cmcl balanced" in words


@pytest.mark.parametrize("size", ["640x480", "[640, 480]"])
def test_the_size_of_an_image_is_read_from_a_flag_as_from_a_file(size):
    result = call("train", "--show-settings", "--json", "--set", f"data.frame_size={size}")

    assert json.loads(result.stdout)["data.frame_size"]["value"] == [640, 480]
