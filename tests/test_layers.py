"""Settings are layered in one order, and every value knows where it came from."""

import pytest

from slrctl.errors import UsageError
from slrctl.layers import Layer, nested, read_config, read_overrides, resolve
from slrctl.settings import Settings, merge


def flag(name, key, value):
    return Layer(name, nested(key, value))


@pytest.mark.parametrize("layers", [[], [Layer("config", {"train": {}})]])
def test_without_values_the_defaults_hold(layers):
    resolved = resolve(layers)

    assert resolved.settings == Settings()
    assert set(resolved.origins.values()) == {"default"}


def test_a_higher_layer_wins_and_is_named_as_the_origin():
    resolved = resolve(
        [
            flag("config run.toml", "train.epochs", 7),
            *read_overrides(["train.epochs=8", "train.batch_size=3"]),
            flag("--epochs", "train.epochs", 9),
        ]
    )

    assert resolved.settings.train.epochs == 9
    assert resolved.origins["train.epochs"] == "--epochs"
    assert resolved.origins["train.batch_size"] == "--set train.batch_size"
    assert resolved.origins["train.learning_rate"] == "default"


@pytest.mark.parametrize(
    ("preset", "consistency", "alignment", "adaptive"),
    [
        ("off", 0.0, 0.0, False),
        ("conservative", 0.05, 0.03, False),
        ("balanced", 0.1, 0.05, False),
        ("aggressive", 0.2, 0.1, False),
        ("adaptive", 0.2, 0.1, True),
    ],
)
def test_presets_are_the_published_ones_whatever_was_set_below(
    preset, consistency, alignment, adaptive
):
    below = {"lambda_consistency": 0.9, "lambda_alignment": 0.9, "adaptive": not adaptive}
    layers = [Layer("config", {"cmcl": below}), flag(f"--cmcl {preset}", "cmcl.preset", preset)]
    cmcl = resolve(layers).settings.cmcl

    assert (cmcl.lambda_consistency, cmcl.lambda_alignment) == (consistency, alignment)
    assert cmcl.adaptive == adaptive
    assert cmcl.is_on == (preset != "off")


@pytest.mark.parametrize(
    ("layers", "lambdas"),
    [
        ([Layer("config", {"cmcl": {"preset": "balanced", "lambda_alignment": 0.5}})], (0.1, 0.5)),
        (
            [
                Layer("config", {"cmcl": {"lambda_consistency": 0.7, "lambda_alignment": 0.7}}),
                flag("--cmcl balanced", "cmcl.preset", "balanced"),
                *read_overrides(["cmcl.lambda_consistency=0.3"]),
            ],
            (0.3, 0.05),
        ),
    ],
)
def test_a_preset_lies_just_below_the_layer_that_names_it(layers, lambdas):
    cmcl = resolve(layers).settings.cmcl

    assert (cmcl.lambda_consistency, cmcl.lambda_alignment) == lambdas


def test_the_recipe_lies_under_the_config_file_wherever_it_was_named():
    resolved = resolve(
        [
            flag("config", "train.epochs", 12),
            *read_overrides(["recipe=siformer"]),
        ]
    )

    assert resolved.settings.train.epochs == 12
    assert resolved.settings.train.learning_rate == 1e-4
    assert resolved.settings.train.schedule == "multistep"
    assert resolved.origins["train.learning_rate"] == "recipe siformer"


def test_the_published_recipe_is_that_of_the_paper_whatever_the_defaults_are():
    settings = resolve(read_overrides(["recipe=siformer"])).settings

    assert settings.prepare.model_dump() == {
        **{"hand_box": 1.2, "edge_hands": "keep", "dominant_hand": "as_signed"},
        **{"letterbox": False, "trim_rest": False, "fill_gaps": 0, "num_frames": 0},
        **{"rectify": False, "rectify_alpha": 0.4},
    }
    augment = settings.augment.model_dump()
    assert {name: value for name, value in augment.items() if value not in (0, 1)} == {
        **{"geometric": 0.5, "rotation_degrees": 13, "shear": 0.1, "squeeze": 0.15},
        **{"arm_degrees": 4, "arm_probability": 0.3, "noise": 0.001},
    }
    assert [name for name, value in augment.items() if value == 1] == ["enabled", "speed"]
    train = {**settings.train.model_dump(), **settings.model.model_dump()}
    published = {
        **{"epochs": 100, "batch_size": 24, "learning_rate": 1e-4, "weight_decay": 1e-8},
        **{"schedule": "multistep", "warmup_epochs": 0, "clip_gradient": 0, "label_smoothing": 0},
        **{"name": "siformer", "attention": "full", "num_encoder_layers": 3, "ffn_dim": 2048},
        **{"num_decoder_layers": 2, "dropout": 0.1, "max_frames": 204, "cross_attention": True},
    }
    assert {name: train[name] for name in published} == published


def test_the_saved_tree_resolves_to_itself():
    first = resolve(read_overrides(["recipe=siformer", "cmcl.preset=adaptive", "seed=3"])).settings

    again = resolve([Layer("run", first.model_dump(exclude_none=True))]).settings

    assert again == first


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("seed=5", 5),
        ("train.learning_rate=3e-4", 3e-4),
        ("model.cross_attention=false", False),
        ("data.frame_size=[640, 480]", (640, 480)),
        ('model.name="spoter"', "spoter"),
        ("model.name=spoter", "spoter"),
    ],
)
def test_set_reads_toml_values_and_plain_text(assignment, value):
    settings = resolve(read_overrides([assignment])).settings

    for name in assignment.partition("=")[0].split("."):
        settings = getattr(settings, name)
    assert settings == value


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("train.lr=1", "train.learning_rate"),
        ("train.epoch=1", "train.epochs"),
        ("sede=1", "seed"),
        ("cmcl.lambda_consistancy=1", "cmcl.lambda_consistency"),
        ("models.dropout=0.5", "model.dropout"),
    ],
)
def test_a_typo_suggests_the_nearest_key(assignment, nearest):
    key = assignment.partition("=")[0]

    with pytest.raises(UsageError, match=f"no setting '{key}'; the nearest is '{nearest}'"):
        resolve(read_overrides([assignment]))


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.epochs=0", r"train\.epochs: .*greater than or equal to 1, not 0"),
        ("train.epochs=many", r"train\.epochs: .*integer.*not 'many' \(from --set"),
        ("train.learning_rate=inf", r"train\.learning_rate: .*finite"),
        ("cmcl.lambda_consistency=-1", r"cmcl\.lambda_consistency: .*greater than or equal to 0"),
        (
            "model.name=resnet",
            r"model\.name: .*'streamformer', 'siformer', 'spoter', 'gru' or 'conv'",
        ),
        ("train=3", r"train is a section"),
        ("train.epochs", r"expected section\.key=value"),
        ("=3", r"expected section\.key=value"),
        ("recipe=mine", r"'mine' is not one of slrctl, siformer"),
        ("recipe=[1]", r"recipe: \[1\] is not one of slrctl, siformer"),
        ("cmcl.preset=max", r"cmcl\.preset: .*'off', 'conservative'"),
        ("train.epochs=true", r"train\.epochs: .*integer"),
        (
            "model.hand_heads=5",
            r"model\.hand_heads is 5, which must divide .* 42; take one of 1, 2",
        ),
        ("model.fusion_heads=4", r"must divide the stream's width 42; take one of 1, 2, 3, 6"),
        ("prepare.num_frames=205", r"num_frames \(205\) must not exceed .*max_frames \(204\)"),
        ("model.embed_dim=100", r"model\.embed_dim \(100\) .* multiples of .* \(8\)"),
        ("model.joint_dim=100", r"model\.joint_dim \(100\) .* multiples of .* \(8\)"),
        ("model.kernel_size=4", r"model\.kernel_size \(4\) must be odd"),
        ("modle={}", r"no setting 'modle'"),
        ("cmcl.temperature=1e-38", r"cmcl\.temperature: .*greater than or equal to 0\.001"),
        ("seed=-1", r"seed: .*greater than or equal to 0"),
        ("model.ffn_dim=9223372036854775807", r"model\.ffn_dim: .*1000000"),
        ("model.num_encoder_layers=1000000000", r"model\.num_encoder_layers: .*1000"),
        (f"train.epochs={'9' * 5000}", r"train\.epochs: "),
        (".".join(["a"] * 20_000) + "=1", r"--set a\.a\..*deep"),
        ('data.cache_dir="a\\u0000b"', r"data\.cache_dir: .*NUL"),
        ('data.train_signers=["ann", "b\\u0000b"]', r"data\.train_signers: .*NUL"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(assignment, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(read_overrides([assignment]))

    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "advice"),
    [
        (["cmcl.preset=balanced", "model.cross_attention=false"], "pass --cross-attention"),
        (["cmcl.preset=balanced", "model.name=spoter"], "set model.name to 'streamformer' or "),
        (["cmcl.adaptive=true"], "pass --cmcl adaptive"),
    ],
)
def test_cmcl_says_what_it_needs(assignments, advice):
    with pytest.raises(UsageError, match=advice):
        resolve(read_overrides(assignments))


def test_a_config_file_is_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("seed = 4\n[cmcl]\npreset = 'aggressive'\n")

    settings = resolve([read_config(path)]).settings

    assert (settings.seed, settings.cmcl.lambda_alignment) == (4, 0.1)


@pytest.mark.parametrize("content", [b"seed: 4", b"\xff\xfe", b"[train\n", b"a = " + b"[" * 99_999])
def test_a_config_file_that_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "run.toml"
    path.write_bytes(content)

    with pytest.raises(UsageError, match="not a TOML file"):
        read_config(path)


def test_merging_changes_neither_tree():
    below, above = {"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}}

    assert merge(below, above) == {"a": {"x": 1, "y": 5}, "b": 3}
    assert below == {"a": {"x": 1, "y": 2}, "b": 3}
    assert above == {"a": {"y": 5}}


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().train.epochs = 3  # type: ignore[misc]
