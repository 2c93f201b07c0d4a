import os

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.image import imread
from numpy.testing import assert_allclose

from slrctl.evaluation.bootstrap import evaluate_predictions
from slrctl.evaluation.predictions import Predictions
from slrctl.reports.figures import (
    draw_confusion,
    draw_curves,
    drawn_text,
    gloss_labels,
    shortened,
)

DEJAVU = ("DejaVu Sans",)


@pytest.mark.parametrize(
    ("gloss", "label"),
    [
        ("thank you", "thank you"),
        ("x" * 32, "x" * 32),
        ("two\nlines\tand  more", "two lines and more"),
        ("thank you very much indeed, you know who you are", "thank you very much i…ho you are"),
    ],
)
def test_a_gloss_is_put_on_one_line_of_bounded_length(gloss, label):
    assert shortened(gloss) == label
    assert len(label) <= 32


def test_a_gloss_no_font_can_draw_is_numbered_from_one():
    # No font has the private-use character, and DejaVu Sans has no Hangul.
    labels = gloss_labels(["no", "\ue123", "안녕", "شكرا", ""], DEJAVU)

    assert labels == ["no", "class 2", "class 3", "شكرا", "class 5"]


def test_a_character_that_no_font_has_is_an_empty_square():
    assert drawn_text("a \U000e0041b\n\uf8ffc", fonts=DEJAVU) == "a □b □c"


def answers(classes, pairs):
    """Make predictions from (truth, predicted) pairs, with probability 0.7 on the latter."""
    probabilities = np.full((len(pairs), len(classes)), 0.3 / max(len(classes) - 1, 1))
    for row, (_, predicted) in enumerate(pairs):
        probabilities[row, predicted] = 0.7
    return Predictions(
        clip_ids=tuple(map(str, range(len(pairs)))),
        classes=tuple(classes),
        log_probabilities=np.log(probabilities),
        target=np.array([truth for truth, _ in pairs]),
        signers=(None,) * len(pairs),
        sessions=(None,) * len(pairs),
    )


def draw(classes, pairs, folder):
    predictions = answers(classes, pairs)
    evaluation = evaluate_predictions(predictions, resamples=100, seed=0)
    draw_confusion(predictions, folder / "confusion.png", evaluation)


def tick_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_cells_show_shares_of_the_true_gloss_in_its_row_and_the_title_the_accuracy(
    figures, tmp_path
):
    draw(["yes", "no", "maybe"], [(0, 0), (0, 0), (0, 0), (0, 1), (2, 2)], tmp_path)

    axes = figures["confusion"].axes[0]
    shares = axes.images[0].get_array()
    assert shares[0].tolist() == [0.75, 0.25, 0.0]
    assert np.ma.getmaskarray(shares)[1].all()  # no clip shows it
    assert shares[2].tolist() == [0.0, 0.0, 1.0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "75",
        (1, 0): "25",  # x is the column: truth yes, predicted no
        (2, 2): "100",
    }
    facts = ("accuracy 80.0 %", "clips: 5", "classes: 3", "resampled by clip")
    assert [fact for fact in facts if fact not in axes.get_title()] == []


@pytest.mark.parametrize(
    ("classes", "fewest", "most", "numbers"),
    [(15, 15, 15, True), (16, 16, 16, False), (40, 40, 40, False), (101, 10, 25, False)],
)
def test_names_at_their_places_and_numbers_depend_on_how_many_classes_there_are(
    figures, tmp_path, classes, fewest, most, numbers
):
    draw([f"g{label}" for label in range(classes)], [(n, n) for n in range(classes)], tmp_path)

    axes = figures["confusion"].axes[0]
    assert tick_labels(axes) == [f"g{tick:.0f}" for tick in axes.get_yticks()]
    assert fewest <= len(tick_labels(axes)) <= most
    assert bool(axes.texts) == numbers


@pytest.mark.parametrize("gloss", [r"$\bad{$", "%_#&{}\\", "안녕하세요", "شكرا", "🤟"])
def test_any_gloss_can_be_drawn_without_a_warning(tmp_path, gloss):
    draw([gloss, "no"], [(0, 0), (1, 1)], tmp_path)

    assert imread(tmp_path / "confusion.png").shape[2] == 4


def test_a_gloss_is_not_read_as_a_formula(figures, tmp_path):
    draw(["$x^2$", "no"], [(0, 0), (1, 1)], tmp_path)

    axes = figures["confusion"].axes[0]
    labels = (*axes.get_xticklabels(), *axes.get_yticklabels())
    assert [label.get_parse_math() for label in labels] == [False] * 4


@pytest.mark.parametrize(("classes", "clips"), [(1, 1), (1, 5), (2, 1)])
def test_the_smallest_sets_can_be_drawn(tmp_path, classes, clips):
    draw([f"g{n}" for n in range(classes)], [(0, 0)] * clips, tmp_path)

    assert os.listdir(tmp_path) == ["confusion.png"]


def history(epochs, **changes):
    return [
        {
            "epoch": epoch,
            "train_loss": 2.0 / epoch,
            "val_loss": 2.5 / epoch,
            "train_accuracy": 1 - 0.9 / epoch,
            "val_accuracy": 1 - 0.95 / epoch,
            "train_classification": 2.0 / epoch,
            "train_consistency": None,
            "train_alignment": None,
            "lambda_consistency": 0.0,
            "lambda_alignment": 0.0,
            "learning_rate": 1e-3 / epoch,
            "is_best": epoch in (1, 3),
        }
        | changes
        for epoch in range(1, epochs + 1)
    ]


@pytest.fixture
def panels(figures, tmp_path):
    """Draw a history, and return its plots by title."""

    def drawn(rows) -> dict[str, Axes]:
        draw_curves(rows, tmp_path / "curves.png")
        return {axes.get_title(): axes for axes in figures["curves"].axes if axes.axison}

    return drawn


def curve(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def legend(axes):
    return set(axes.get_legend_handles_labels()[1])


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"train_alignment": -0.5, "lambda_alignment": 0.1}, ["alignment", "weights in force"]),
        ({"train_consistency": 0.1, "train_alignment": -0.5, "lambda_consistency": 0.1},
         ["consistency", "alignment", "weights in force"]),
    ],
)  # fmt: skip
def test_each_term_of_cmcl_that_is_on_has_a_panel(panels, changes, names):
    drawn = panels(history(5, **changes))

    assert list(drawn) == [
        *("accuracy", "loss", "learning rate"), *(f"CMCL: {name}" for name in names),
    ]  # fmt: skip
    # A weight that is 0 throughout has no curve.
    weights = {name.removeprefix("lambda_") for name in changes if name.startswith("lambda_")}
    assert not names or legend(drawn["CMCL: weights in force"]) == weights


def test_curves_have_the_values_of_the_history_and_mark_the_last_kept_checkpoint(panels):
    axes = panels(history(4))["accuracy"]

    line, mark = curve(axes, "validation"), curve(axes, "best: epoch 3, 68.3 %")
    expected = [1 - 0.95 / epoch for epoch in (1, 2, 3, 4)]
    assert_allclose(np.asarray(line.get_xdata()), [1, 2, 3, 4])
    assert_allclose(np.asarray(line.get_ydata()), expected)
    assert_allclose(np.asarray(mark.get_xdata()), [3])
    assert_allclose(np.asarray(mark.get_ydata()), expected[2:3])


@pytest.mark.parametrize(
    ("changes", "extra"), [({}, set()), ({"train_loss": 3.0}, {"training, with CMCL"})]
)
def test_the_total_loss_is_drawn_only_where_it_differs_from_the_cross_entropy(
    panels, changes, extra
):
    drawn = panels(history(5, **changes))

    assert legend(drawn["loss"]) == {"training", "validation"} | extra


@pytest.mark.parametrize(("epochs", "marker"), [(1, "o"), (40, "")])
def test_few_epochs_show_points_and_many_only_lines(panels, epochs, marker):
    assert curve(panels(history(epochs))["accuracy"], "validation").get_marker() == marker


def test_epochs_without_a_measurement_leave_a_gap(panels):
    rows = history(4)
    rows[1]["val_accuracy"] = None
    del rows[2]["val_loss"]

    drawn = panels(rows)

    gaps = [np.isnan(curve(drawn[name], "validation").get_ydata()) for name in ("accuracy", "loss")]
    assert [gap.tolist() for gap in gaps] == [
        [False, True, False, False], [False, False, True, False],
    ]  # fmt: skip


def test_a_history_with_nothing_but_epochs_can_be_drawn(tmp_path):
    draw_curves([{"epoch": 1}, {"epoch": 2}], tmp_path / "curves.png")

    assert imread(tmp_path / "curves.png").size
