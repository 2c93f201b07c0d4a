import os

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.testing import assert_allclose

from slrctl.evaluation.bootstrap import evaluate_predictions
from slrctl.evaluation.predictions import Predictions
from slrctl.reports.figures import draw_confusion, draw_curves


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, to look at what is in them."""
    saved = []
    real_savefig = Figure.savefig

    def savefig(figure, *args, **options):
        saved.append(figure)
        real_savefig(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


def answers(classes, pairs):
    """Predictions from (truth, predicted) pairs, with probability 0.7 on the predicted label."""
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


def draw(predictions, path):
    draw_confusion(predictions, path, evaluate_predictions(predictions, resamples=100, seed=0))


def tick_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_cells_show_shares_of_the_true_gloss_in_its_row(figures, tmp_path):
    pairs = [(0, 0), (0, 0), (0, 0), (0, 1), (2, 2)]
    draw(answers(["yes", "no", "maybe"], pairs), tmp_path / "confusion.png")

    axes = figures[0].axes[0]
    shares = axes.images[0].get_array()
    assert shares[0].tolist() == [0.75, 0.25, 0.0]
    assert shares[2].tolist() == [0.0, 0.0, 1.0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (0, 0): "75",
        (1, 0): "25",  # x is the column: truth yes, predicted no
        (2, 2): "100",
    }


def test_a_class_without_clips_has_an_empty_row(figures, tmp_path):
    draw(answers(["yes", "no", "maybe"], [(0, 1), (2, 2)]), tmp_path / "confusion.png")

    is_empty = np.ma.getmaskarray(figures[0].axes[0].images[0].get_array())
    assert is_empty.all(axis=1).tolist() == [False, True, False]
    assert is_empty.any(axis=1).tolist() == [False, True, False]


def test_the_title_gives_accuracy_and_interval(figures, tmp_path):
    draw(answers(["yes", "no"], [(0, 0), (1, 0), (1, 1), (1, 1)]), tmp_path / "confusion.png")

    title = figures[0].axes[0].get_title()
    assert title.startswith("accuracy 75.0 %, 95 % interval ")
    assert title.endswith("clips: 4, classes: 2, resampled by clip")


@pytest.mark.parametrize(
    ("classes", "names", "numbers"), [(15, 15, True), (16, 16, False), (40, 40, False)]
)
def test_names_and_numbers_depend_on_how_many_classes_there_are(
    figures, tmp_path, classes, names, numbers
):
    glosses = [f"g{label}" for label in range(classes)]
    draw(answers(glosses, [(n, n) for n in range(classes)]), tmp_path / "confusion.png")

    axes = figures[0].axes[0]
    assert tick_labels(axes) == glosses[:names]
    assert bool(axes.texts) == numbers


def test_beyond_forty_classes_every_nth_name_stays_at_its_place(figures, tmp_path):
    glosses = [f"g{label}" for label in range(101)]
    draw(answers(glosses, [(n, n) for n in range(101)]), tmp_path / "confusion.png")

    axes = figures[0].axes[0]
    assert tick_labels(axes) == [f"g{tick:.0f}" for tick in axes.get_yticks()]
    assert 10 <= len(tick_labels(axes)) <= 25


@pytest.mark.parametrize(
    "gloss", ["$5", "$x^2$", r"$\bad{$", "%_#&{}\\", "안녕하세요", "شكرا", "🤟"]
)
def test_any_gloss_can_be_drawn_without_a_warning(tmp_path, gloss):
    draw(answers([gloss, "no"], [(0, 0), (1, 1)]), tmp_path / "confusion.png")

    assert imread(tmp_path / "confusion.png").shape[2] == 4


def test_a_gloss_is_not_read_as_a_formula(figures, tmp_path):
    draw(answers(["$x^2$", "no"], [(0, 0), (1, 1)]), tmp_path / "confusion.png")

    axes = figures[0].axes[0]
    assert not any(
        label.get_parse_math() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
    )


@pytest.mark.parametrize(("classes", "clips"), [(1, 1), (1, 5), (2, 1)])
def test_the_smallest_sets_can_be_drawn(tmp_path, classes, clips):
    draw(answers([f"g{n}" for n in range(classes)], [(0, 0)] * clips), tmp_path / "confusion.png")

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


def panels(figure) -> dict[str, Axes]:
    return {axes.get_title(): axes for axes in figure.axes if axes.axison}


def curve(axes, label):
    (line,) = [line for line in axes.lines if line.get_label() == label]
    return line


def test_without_cmcl_there_are_three_panels(figures, tmp_path):
    draw_curves(history(5), tmp_path / "curves.png")

    assert list(panels(figures[0])) == ["accuracy", "loss", "learning rate"]
    assert os.listdir(tmp_path) == ["curves.png"]


def test_with_cmcl_its_terms_and_weights_have_panels(figures, tmp_path):
    rows = history(5, train_consistency=0.1, train_alignment=-0.5, lambda_consistency=0.1)
    draw_curves(rows, tmp_path / "curves.png")

    drawn = panels(figures[0])
    assert list(drawn)[3:] == ["CMCL: consistency", "CMCL: alignment", "CMCL: weights in force"]
    # The alignment's weight is 0 throughout, so it has no curve.
    weights = drawn["CMCL: weights in force"].get_legend_handles_labels()[1]
    assert weights == ["consistency"]


def test_a_term_that_is_off_has_no_panel(figures, tmp_path):
    draw_curves(history(5, train_alignment=-0.5, lambda_alignment=0.1), tmp_path / "curves.png")

    assert "CMCL: consistency" not in panels(figures[0])
    assert "CMCL: alignment" in panels(figures[0])


def test_curves_have_the_values_of_the_history(figures, tmp_path):
    draw_curves(history(4), tmp_path / "curves.png")

    line = curve(panels(figures[0])["accuracy"], "validation")
    assert_allclose(np.asarray(line.get_xdata()), [1, 2, 3, 4])
    assert_allclose(np.asarray(line.get_ydata()), [1 - 0.95 / epoch for epoch in (1, 2, 3, 4)])


def test_the_last_kept_checkpoint_is_marked_as_the_best(figures, tmp_path):
    draw_curves(history(5), tmp_path / "curves.png")

    mark = curve(panels(figures[0])["accuracy"], "best: epoch 3, 68.3 %")
    assert_allclose(np.asarray(mark.get_xdata()), [3])
    assert_allclose(np.asarray(mark.get_ydata()), [1 - 0.95 / 3])


def test_the_total_loss_is_drawn_only_where_it_differs_from_the_cross_entropy(figures, tmp_path):
    draw_curves(history(5), tmp_path / "curves.png")
    draw_curves(history(5, train_loss=3.0), tmp_path / "curves.png")

    plain, with_cmcl = (panels(figure)["loss"].get_legend_handles_labels()[1] for figure in figures)
    assert plain == ["training", "validation"]
    assert with_cmcl == ["training", "validation", "training, with CMCL"]


def test_a_single_epoch_shows_points(figures, tmp_path):
    draw_curves(history(1), tmp_path / "curves.png")

    line = curve(panels(figures[0])["accuracy"], "validation")
    assert line.get_marker() == "o"


def test_a_long_run_shows_lines_without_points(figures, tmp_path):
    draw_curves(history(40), tmp_path / "curves.png")

    line = curve(panels(figures[0])["accuracy"], "validation")
    assert line.get_marker() == ""


def test_epochs_without_a_measurement_leave_a_gap(figures, tmp_path):
    rows = history(4)
    rows[1]["val_accuracy"] = None
    del rows[2]["val_loss"]
    draw_curves(rows, tmp_path / "curves.png")

    accuracy = curve(panels(figures[0])["accuracy"], "validation").get_ydata()
    loss = curve(panels(figures[0])["loss"], "validation").get_ydata()
    assert np.isnan(accuracy).tolist() == [False, True, False, False]
    assert np.isnan(loss).tolist() == [False, False, True, False]


def test_a_history_with_nothing_but_epochs_can_be_drawn(tmp_path):
    draw_curves([{"epoch": 1}, {"epoch": 2}], tmp_path / "curves.png")

    assert imread(tmp_path / "curves.png").size


def test_no_epochs_are_an_error_that_says_so(tmp_path):
    with pytest.raises(ValueError, match="no epochs to draw"):
        draw_curves([], tmp_path / "curves.png")
