"""Studies: built-in variants, and those a user writes."""

import pytest

from slrctl.errors import UsageError
from slrctl.layers import Layer, resolve
from slrctl.settings import Settings
from slrctl.studies.ablation.study import (
    BUILT_IN,
    Study,
    built_in,
    grid_axes,
    read_study,
    with_grid,
    with_variants,
)

CE = Study("own", {"CE": {"cmcl": {"preset": "off"}}, "full": {}}, "full")


def settings_of(study: Study, name: str) -> Settings:
    return resolve([Layer(name, study.variants[name])]).settings


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_variant_is_valid_and_unlike_the_others(name):
    study = built_in(name)

    resolved = [settings_of(study, variant).model_dump_json() for variant in study.variants]

    assert len(set(resolved)) == len(study.variants)
    assert study.primary in study.others


def test_the_cmcl_study_treats_no_control():
    study = built_in("cmcl")
    found = {name: settings_of(study, name) for name in study.variants}

    assert {
        name: (one.cmcl.lambda_consistency, one.cmcl.lambda_alignment, one.cmcl.adaptive,
               one.model.cross_attention)
        for name, one in found.items()
    } == {
        "CE": (0.0, 0.0, False, True),
        "consistency only": (0.1, 0.0, False, True),
        "alignment only": (0.0, 0.05, False, True),
        "full": (0.1, 0.05, False, True),
        "conservative": (0.05, 0.03, False, True),
        "aggressive": (0.2, 0.1, False, True),
        "adaptive": (0.2, 0.1, True, True),
        "no cross-attention": (0.0, 0.0, False, False),
    }  # fmt: skip


def test_variants_are_written_on_one_line_each():
    study = with_variants(
        CE, ["soft: cmcl.preset=balanced, cmcl.temperature=2", "size:data.frame_size=[640,480]"]
    )

    assert list(study.variants) == ["CE", "soft", "size"]
    assert study.primary == "soft"
    assert study.variants["soft"] == {"cmcl": {"preset": "balanced", "temperature": 2}}
    assert study.variants["size"] == {"data": {"frame_size": [640, 480]}}


def test_a_grid_has_every_combination_and_no_primary_contrast():
    # A comma too many adds nothing.
    study = with_grid(
        CE, ["cmcl.lambda_consistency=0.1,0.2,", "cmcl.lambda_alignment=0.01,0.02,0.03"]
    )

    assert len(study.others) == 6
    assert study.primary is None
    assert study.variants["lambda_consistency=0.2 lambda_alignment=0.03"] == {
        "cmcl": {"lambda_consistency": 0.2, "lambda_alignment": 0.03}
    }


def test_values_of_a_grid_may_be_lists():
    assert grid_axes(["data.frame_size=[640,480],[320,240]"]) == {
        "data.frame_size": ["[640,480]", "[320,240]"]
    }


@pytest.mark.parametrize("baseline", [{"preset": "off"}, {"lambda_alignment": 0.0}])
def test_a_cell_that_sets_what_the_baseline_sets_is_left_out(baseline):
    study = Study("own", {"CE": {"cmcl": {"lambda_consistency": 0, **baseline}}, "full": {}}, None)

    found = with_grid(study, ["cmcl.lambda_consistency=0,0.1", "cmcl.lambda_alignment=0,0.1"])

    assert found.others == (
        "lambda_consistency=0 lambda_alignment=0.1",
        "lambda_consistency=0.1 lambda_alignment=0",
        "lambda_consistency=0.1 lambda_alignment=0.1",
    )
    # A config could set the other lambda, and tell this cell from the baseline.
    other = with_grid(CE, ["cmcl.lambda_consistency=0,0.1"])
    assert other.others == ("lambda_consistency=0", "lambda_consistency=0.1")


def test_a_study_is_read_from_a_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'primary = "wide"\n[variants.narrow.model]\nffn_dim = 16\n'
        "[variants.wide.model]\nffn_dim = 64\n"
    )

    study = read_study(path)

    assert (study.name, study.baseline, study.primary) == ("mine", "narrow", "wide")
    assert settings_of(study, "wide").model.ffn_dim == 64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: built_in("cmlc"), "not one of cmcl"),
        (lambda: with_variants(CE, ["nothing"]), "expected NAME:section.key=value"),
        (lambda: with_variants(CE, ["CE:seed=1"]), "already"),
        (lambda: with_variants(CE, ["../up:seed=1"]), "letters, digits"),
        (lambda: with_grid(CE, ["cmcl.temperature="]), "expected section.key=value"),
        (
            lambda: with_grid(CE, ["cmcl.temperature=1", " cmcl.temperature =2,3"]),
            "already; give all values in one, --grid cmcl.temperature=1,2,3",
        ),
        (
            lambda: with_grid(CE, ["cmcl.lambda_alignment=0", "cmcl.lambda_consistency=0"]),
            "only what the baseline 'CE' sets",
        ),
        (lambda: Study("s", CE.variants, "CE"), "not one of the variants full"),
    ],
)
def test_what_is_no_study_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not toml", "not a TOML file"),
        ('primry = "x"\n', "found 'primry'"),
        ("[variants.a]\n", "at least one variant"),
        ('primary = "c"\n[variants.a]\n[variants.b]\nseed = 2\n', "'c' is not one of the variants"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tmp_path, text, message):
    path = tmp_path / "study.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=message):
        read_study(path)
