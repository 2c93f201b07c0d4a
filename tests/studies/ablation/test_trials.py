"""Trials: found again by the content of what they compute."""

import json
from dataclasses import replace

import pytest

from slrctl.core import devices
from slrctl.core.data.readers.parquet import write_parquet
from slrctl.errors import DataError, UsageError
from slrctl.layers import Layer
from slrctl.studies.ablation.study import BUILT_IN, Study
from slrctl.studies.ablation.trials import plan_whole_study, standing

NARROW, WIDE = {"model": {"ffn_dim": 8}}, {"model": {"ffn_dim": 16}}
STUDY = Study("s", {"narrow": NARROW, "wide": WIDE}, "wide")


def test_a_trials_key_is_its_content_and_not_its_name_or_place(plan, tiny_dataset, tmp_path):
    elsewhere = tmp_path / "moved.parquet"
    write_parquet(tiny_dataset, elsewhere)
    moved = Layer("moved", {"data": {"train": str(elsewhere)}})

    here = plan(seeds=[1, 2])
    there = plan(Study("other", {"n": NARROW, "w": WIDE}, "w"), seeds=[1, 2], below=[moved])

    assert [trial.key for trial in here] == [trial.key for trial in there]
    assert len({trial.key for trial in here}) == 4


@pytest.mark.parametrize(
    ("change", "is_same"),
    # A seed in a layer is overruled by the study's own.
    [
        ({"seed": 9}, True),
        ({"train": {"epochs": 3}}, False),
        ({"augment": {"mirror": 0.5}}, False),
    ],
)
def test_another_setting_or_another_clip_is_another_trial(
    plan, tiny_dataset, tiny_path, change, is_same
):
    one, other = plan(), plan(below=[Layer("change", change)])

    assert [a.key == b.key for a, b in zip(one, other, strict=True)] == [is_same] * 2
    write_parquet(tiny_dataset[:-1], tiny_path)
    assert one[0].key != plan()[0].key


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_trials_that_may_run_anywhere_name_the_precision_chosen_here(plan, monkeypatch, precision):
    monkeypatch.setattr(
        devices, "choose_precision", lambda name, _: precision if name == "auto" else name
    )
    auto, named = (
        plan(below=[Layer("p", {"train": {"precision": value}})]) for value in ("auto", precision)
    )

    assert auto == named
    assert auto[0].settings.train.precision == precision


def test_trials_of_a_named_precision_are_planned_where_their_device_is_not(plan):
    elsewhere = Layer("other machine", {"train": {"device": "cuda:99", "precision": "bf16"}})

    trials = plan(below=[elsewhere])

    assert {trial.settings.train.device for trial in trials} == {"cuda:99"}


def test_variants_that_come_out_the_same_are_refused(plan):
    with pytest.raises(UsageError, match="'narrow' and 'twin' come out the same"):
        plan(Study("s", {"narrow": NARROW, "twin": NARROW}, None))


@pytest.mark.parametrize(
    ("study", "values"),
    [
        (Study("s", {"narrow": NARROW, "wide": WIDE}, None), {"model": {"ffn_dim": 4}}),
        (BUILT_IN["cmcl"], {"cmcl": {"preset": "balanced"}}),
        (BUILT_IN["cmcl"], {"cmcl": {"lambda_consistency": 0.3}}),
        (Study("l", {"CE": {}, "kl": {"cmcl": {"lambda_consistency": 0.1}}}, "kl"),
         {"cmcl": {"preset": "off"}}),
    ],
)  # fmt: skip
def test_a_set_over_what_variants_differ_in_would_treat_the_control_and_is_refused(
    plan, study, values
):
    with pytest.raises(UsageError, match="is what the variants of study"):
        plan(study, above=[Layer("--set", values)])


def test_a_damaged_trial_is_named(plan, tmp_path):
    trial = plan()[0]
    run_dir = tmp_path / "trials" / trial.key
    run_dir.mkdir(parents=True)
    (run_dir / "summary.json").write_text(json.dumps({"test": {}}))

    with pytest.raises(DataError, match=trial.key):
        standing([trial], tmp_path / "trials")


@pytest.fixture
def whole_plan(tiny_settings, tiny_path, tmp_path):
    """Plan a whole study on the tiny clips."""
    values = tiny_settings.model_dump(include={"prepare", "augment", "model", "evaluate"})
    below = [Layer("schedule", {"train": {"epochs": 1}}), Layer("tiny", values)]

    def planned(study=STUDY, *above, **options):
        above = [Layer("flag", {"data": {"train": str(tiny_path)}}), *above]
        options = {"by_signer": False, "studies_dir": tmp_path / "studies"} | options
        return plan_whole_study(study, 2, below, above, **options)

    return planned


def test_a_study_has_a_trial_for_each_variant_and_seed_in_a_folder_that_was_asked_for(
    whole_plan, tmp_path
):
    plan = whole_plan(STUDY, Layer("--set", {"seed": 5}), output=tmp_path / "mine")

    assert [(trial.variant, trial.seed) for trial in plan.trials] == [
        *(("narrow", 5), ("wide", 5), ("narrow", 6), ("wide", 6)),
    ]
    assert plan.given["seed"] == 5
    assert "data" not in plan.given
    assert (plan.report_dir, plan.trials_dir) == (tmp_path / "mine", tmp_path / "mine" / "trials")


def test_another_question_has_another_folder_and_the_same_trials_folder(whole_plan, tmp_path):
    others = [
        whole_plan(),
        whole_plan(replace(STUDY, variants={"narrow": NARROW, "wide": {"model": {"ffn_dim": 32}}})),
        whole_plan(STUDY, Layer("--set", {"train": {"learning_rate": 0.002}})),
        whole_plan(STUDY, name_ending="-quick"),
    ]

    assert len({plan.report_dir for plan in others}) == 4
    assert all(plan.report_dir.name.startswith("s-tiny") for plan in others)
    assert {plan.trials_dir for plan in others} == {tmp_path / "studies" / "trials"}
    assert whole_plan().report_dir == others[0].report_dir


def test_by_signer_each_of_several_signers_tests_once_in_every_seed(
    whole_plan, tiny_dataset, tiny_path
):
    plan = whole_plan(STUDY, by_signer=True)

    signers = sorted({clip.signer for clip in tiny_dataset})
    assert [trial.fold for trial in plan.trials[::2]] == signers * 2
    assert plan.trials[0].settings.data.test_signers == (signers[0],)
    write_parquet([replace(clip, signer="ann") for clip in tiny_dataset], tiny_path)

    with pytest.raises(DataError, match="1 signers known"):
        whole_plan(STUDY, by_signer=True)
