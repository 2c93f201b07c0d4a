import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle
from numpy.testing import assert_allclose

from slrctl.reports.study_figures import (
    draw_forest,
    draw_learning_curves,
    draw_surface,
    line_look,
)
from slrctl.studies.ablation.report import report_study
from slrctl.studies.ablation.study import Study, grid_axes, with_grid

CE = Study("own", {"CE": {"cmcl": {"preset": "off"}}, "full": {}}, "full")
GRID = ["cmcl.lambda_consistency=0,0.1,1,", "cmcl.lambda_alignment=0,0.1"]


@pytest.fixture
def draw(figures, tmp_path):
    """Draw one of a study's pictures."""

    def drawn(name, study, table):
        report, path = report_study(study, table), tmp_path / f"{name}.svg"
        if name == "forest":
            draw_forest(report, path)
        elif name == "curves":
            draw_learning_curves(report, table, path)
        else:
            draw_surface(report, grid_axes(GRID), path)
        return figures[name]

    return drawn


def with_others(count, primary=None):
    return Study("own", {name: {} for name in ["CE", *map(str, range(count))]}, primary)


def table_of(study, num_seeds, *, epochs=1, folds=("",), shifts=None, without=()):
    """List trials, finished but for `without`: (variant, seed), at 0.5 and the shift."""
    rows = []
    for seed, fold, name in itertools.product(range(num_seeds), folds, study.variants):
        # Powers of two are exact, and no two variants have the same spread.
        spread = (seed % 2) * list(study.variants).index(name) / 2**10
        accuracy = 0.5 + (shifts or {}).get(name, 0.0) + spread
        status = "failed" if (name, seed) in without else "done"
        curve = " ".join([f"{accuracy:.6f}"] * epochs)
        rows.append((name, seed, fold, status, "test", "", accuracy, 10.0, curve))
    columns = "variant seed fold status part failure accuracy train_seconds val_accuracy_by_epoch"
    return pd.DataFrame(rows, columns=columns.split())


def title_of(figure):
    return figure.axes[0].get_title()


def texts(axes):
    return {text.get_position(): text.get_text() for text in axes.texts}


@pytest.mark.parametrize("epochs", [1, 3])
def test_few_epochs_have_marks_and_whole_ticks_and_a_single_one_has_variants_side_by_side(
    draw, epochs
):
    study = with_others(8)
    axes = draw("curves", study, table_of(study, 1, epochs=epochs)).axes[0]

    assert {line.get_marker() for line in axes.lines}.isdisjoint({"", "None"})
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == list(range(1, epochs + 1))
    places = [line.get_xdata()[0] for line in axes.lines]
    assert len(set(places)) == (9 if epochs == 1 else 1)
    assert_allclose(np.mean(places), 1.0)


@pytest.mark.parametrize("other", ["linestyle", "marker"])
def test_forty_lines_beside_the_black_baseline_all_look_different(other):
    baseline, *looks = (line_look(number) for number in range(41))

    assert len({(look["color"], look[other]) for look in looks}) == 40
    assert baseline["color"] == "black"
    assert "black" not in {look["color"] for look in looks}


@pytest.mark.parametrize("count", [1, 10, 40])
def test_the_legend_lies_beside_the_axes(draw, count):
    study = with_others(count)
    figure = draw("curves", study, table_of(study, 1, epochs=3))

    figure.draw_without_rendering()

    (legend,) = figure.legends
    assert len(legend.get_texts()) == count + 1
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_tightbbox())
    assert legend.get_window_extent().width < figure.bbox.width


@pytest.mark.parametrize(
    ("num_seeds", "epochs", "seeds", "interval"),
    [(1, 3, "1 seed", None), (4, 3, "mean over 4 seeds", "shaded"), (4, 1, "4 seeds", "bar")],
)
def test_the_curves_promise_the_interval_that_is_drawn(draw, num_seeds, epochs, seeds, interval):
    figure = draw("curves", CE, table_of(CE, num_seeds, epochs=epochs))

    assert seeds in title_of(figure)
    assert ("95 % interval of CE" in title_of(figure)) == (interval is not None)
    assert (interval or "") in title_of(figure)
    assert len(figure.axes[0].collections) == (interval is not None)


def test_a_seed_of_the_curves_is_the_mean_over_its_folds_once_all_finished(draw):
    table = table_of(CE, 3, folds=("anna", "ben"))
    table.loc[table["fold"] == "ben", "val_accuracy_by_epoch"] = "0.9"
    is_open = (table["seed"] == 1) & (table["fold"] == "ben") & (table["variant"] == "CE")
    table.loc[is_open, "status"] = "open"

    figure = draw("curves", CE, table)

    assert "mean over 2 to 3 seeds" in title_of(figure)
    assert_allclose(figure.axes[0].lines[0].get_ydata(), [100 * (0.5 + 0.9) / 2])


@pytest.mark.parametrize(
    ("num_seeds", "primary", "promises"),
    [
        (1, None, {"1 paired seed"}),
        (2, "0", {"2 paired seeds", "95 % intervals", "bold"}),
        (9, None, {"9 paired seeds", "95 % intervals", "filled"}),
        (9, "0", {"9 paired seeds", "95 % intervals", "filled", "bold"}),
    ],
)
def test_the_forest_promises_what_it_shows(draw, num_seeds, primary, promises):
    study = with_others(1, primary)

    figure = draw("forest", study, table_of(study, num_seeds, shifts={"0": 0.1}))

    title, (label,) = title_of(figure), figure.axes[0].get_yticklabels()
    assert promises == {
        *(f"{num_seeds} paired seed{'s' * (num_seeds > 1)}",),
        *(word for word in ("95 % intervals", "filled", "bold") if word in title),
    }
    assert label.get_text() == "0"
    assert (label.get_fontweight() == "bold") == (primary == "0")
    mark = figure.axes[0].lines[-1]
    assert_allclose(mark.get_xdata(), [10.0], atol=0.1)
    assert (mark.get_markerfacecolor() != "white") == ("filled" in promises)


@pytest.mark.parametrize("name", ["forest", "curves", "surface"])
def test_a_study_without_a_finished_trial_is_drawn_empty(draw, name):
    study = with_grid(CE, GRID)

    figure = draw(name, study, table_of(study, 2).assign(status="failed"))

    assert set(texts(figure.axes[0]).values()) == (
        {"= CE", "no pair"} if name == "surface" else set()
    )
    assert "own-grid: 0" in title_of(figure)


def test_the_surface_has_a_cell_for_every_value_and_says_which_is_the_baseline(draw):
    study = with_grid(CE, GRID)
    shifts = {"lambda_consistency=0 lambda_alignment=0.1": 0.02}
    without = [("lambda_consistency=1 lambda_alignment=0", 0)]

    axes, bar = draw("surface", study, table_of(study, 1, shifts=shifts, without=without)).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.1", "1"]
    assert texts(axes) == {
        (0, 0): "= CE", (1, 0): "+2.0\n1 seed",
        (0, 1): "+0.0\n1 seed", (1, 1): "+0.0\n1 seed",
        (0, 2): "no pair", (1, 2): "+0.0\n1 seed",
    }  # fmt: skip
    assert bar.get_ylabel() == "difference in test accuracy to CE (points)"


def test_a_cell_of_the_surface_has_its_interval_and_a_frame_if_there_is_a_verdict(draw):
    study = with_grid(CE, GRID)
    table = table_of(study, 9, shifts={"lambda_consistency=1 lambda_alignment=0.1": -0.05})
    last = report_study(study, table).to_json()["variants"][study.others[-1]]

    axes = draw("surface", study, table).axes[0]

    numbers = [100 * value for value in (last["difference"], *last["difference_ci95"])]
    assert texts(axes)[1, 2] == "{:+.1f}\n{:+.1f} to {:+.1f}".format(*numbers)
    (frame,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert_allclose(frame.get_center(), (1, 2), atol=0.1)
    assert frame.get_zorder() > axes.collections[0].get_zorder()  # else the cell hides it


@pytest.mark.parametrize(
    ("num_seeds", "shift", "reach"),
    [(1, 0.001, 1.0), (1, -0.025, 5.0), (7, -0.05, 9.9), (9, -0.05, 5)],
)
def test_only_a_verdict_gets_the_darkest_colour(draw, num_seeds, shift, reach):
    study = with_grid(CE, GRID)
    table = table_of(study, num_seeds, shifts={study.others[0]: shift})

    image = draw("surface", study, table).axes[0].collections[0]

    assert_allclose(image.get_clim(), (-reach, reach), rtol=0.02)
