"""What the pictures of a study show, and what their titles promise."""

import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.testing import assert_allclose

from slrctl.reports.study_figures import (
    draw_forest,
    draw_learning_curves,
    draw_surface,
)
from slrctl.studies.ablation.report import report_study
from slrctl.studies.ablation.study import Study, grid_axes, with_grid

CE = Study("own", {"CE": {"cmcl": {"preset": "off"}}, "full": {}}, "full")
GRID = ["cmcl.lambda_consistency=0,0.1,1,", "cmcl.lambda_alignment=0,0.1"]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, to look at what is in them; nothing is written."""
    drawn = {}

    def savefig(figure, path, **_):
        drawn[path.name] = figure
        path.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    return drawn


@pytest.fixture
def draw(figures, tmp_path):
    """Draw a table's pictures, and return the one that is asked for."""

    def draw_all(study, table, name, grids=()):
        report = report_study(study, table)
        draw_forest(report, tmp_path)
        draw_learning_curves(report, table, tmp_path)
        if grids:
            draw_surface(report, grid_axes(grids), tmp_path)
        return next(figure for path, figure in figures.items() if name in path)

    return draw_all


def with_others(count, primary=None):
    return Study("own", {name: {} for name in ["CE", *map(str, range(count))]}, primary)


def table_of(study, num_seeds, *, epochs=1, folds=("",), shifts=None, without=()):
    """Finished trials of a variant at 0.5 and its shift, but for `without`: (variant, seed)."""
    rows = []
    for seed, fold, name in itertools.product(range(num_seeds), folds, study.variants):
        # Powers of two are exact, and no two variants have the same spread.
        spread = (seed % 2) * list(study.variants).index(name) / 2**10
        accuracy = 0.5 + (shifts or {}).get(name, 0.0) + spread
        rows.append(
            {
                "variant": name,
                "seed": seed,
                "fold": fold,
                "status": "failed" if (name, seed) in without else "done",
                "part": "test",
                "failure": "",
                "accuracy": accuracy,
                "train_seconds": 10.0,
                "val_accuracy_by_epoch": " ".join([f"{accuracy:.6f}"] * epochs),
            }
        )
    return pd.DataFrame(rows)


def title_of(figure):
    return figure.axes[0].get_title()


def visible_ticks(axes):
    low, high = axes.get_xlim()
    return [tick for tick in axes.get_xticks() if low <= tick <= high]


def texts(axes):
    return {text.get_position(): text.get_text() for text in axes.texts}


def frames(axes):
    """Column and row of every framed cell."""
    return {
        tuple(np.round(patch.get_center()).astype(int).tolist())
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3])])
def test_few_epochs_have_marks_and_whole_ticks(draw, epochs, expected):
    figure = draw(CE, table_of(CE, 1, epochs=epochs), "learning_curves")

    assert {line.get_marker() for line in figure.axes[0].lines}.isdisjoint({"", "None"})
    assert visible_ticks(figure.axes[0]) == expected


def test_equal_variants_of_one_epoch_are_drawn_side_by_side(draw):
    study = with_others(8)

    lines = draw(study, table_of(study, 1), "learning_curves").axes[0].lines

    places = [line.get_xdata()[0] for line in lines]
    assert len(set(places)) == 9
    assert_allclose(np.mean(places), 1.0)


@pytest.mark.parametrize("epochs", [1, 40])
def test_forty_lines_beside_the_baseline_all_look_different(draw, epochs):
    study = with_others(40)

    baseline, *lines = (
        draw(study, table_of(study, 1, epochs=epochs), "learning_curves").axes[0].lines
    )

    if epochs == 1:
        looks = {(line.get_color(), line.get_marker()) for line in lines}
    else:
        # get_linestyle() answers -- for every pattern of dashes.
        looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in lines}
    assert len(looks) == 40
    assert to_rgb(baseline.get_color()) == (0, 0, 0)
    assert (0, 0, 0) not in {to_rgb(line.get_color()) for line in lines}


@pytest.mark.parametrize("count", [1, 10, 40])
def test_the_legend_lies_beside_the_axes(draw, count):
    study = with_others(count)
    figure = draw(study, table_of(study, 1, epochs=3), "learning_curves")

    figure.draw_without_rendering()

    (legend,) = figure.legends
    assert len(legend.get_texts()) == count + 1
    assert not legend.get_window_extent().overlaps(figure.axes[0].get_tightbbox())
    assert legend.get_window_extent().width < figure.bbox.width


@pytest.mark.parametrize(
    ("num_seeds", "epochs", "expected"),
    [
        (1, 3, "own: 1 seed"),
        (4, 3, "own: mean over 4 seeds; shaded: 95 % interval of CE"),
        (4, 1, "own: mean over 4 seeds; bar: 95 % interval of CE"),
    ],
)
def test_the_curves_promise_the_interval_that_is_drawn(draw, num_seeds, epochs, expected):
    figure = draw(CE, table_of(CE, num_seeds, epochs=epochs), "learning_curves")

    assert title_of(figure) == expected
    assert len(figure.axes[0].collections) == ("interval" in expected)


def test_titles_count_the_seeds_that_finished(draw):
    study = with_others(2)
    table = table_of(study, 9, without=[("1", 2), ("1", 5)])

    assert "mean over 7 to 9 seeds;" in title_of(draw(study, table, "learning_curves"))
    assert "7 to 9 paired seeds," in title_of(draw(study, table, "forest"))


def test_a_seed_of_the_curves_is_the_mean_over_its_folds_once_all_finished(draw):
    table = table_of(CE, 3, folds=("anna", "ben"))
    is_open = (table["seed"] == 1) & (table["fold"] == "ben") & (table["variant"] == "CE")
    table.loc[is_open, "status"] = "open"

    figure = draw(CE, table, "learning_curves")

    assert "mean over 2 to 3 seeds" in title_of(figure)


@pytest.mark.parametrize(
    ("num_seeds", "primary", "expected"),
    [
        (1, None, "own: 1 paired seed"),
        (2, "0", "own: 2 paired seeds, Student-t 95 % intervals\nbold: the primary contrast"),
        (9, None, "own: 9 paired seeds, Student-t 95 % intervals\nfilled: a verdict"),
        (
            9,
            "0",
            "own: 9 paired seeds, Student-t 95 % intervals\n"
            "filled: a verdict; bold: the primary contrast",
        ),
    ],
)
def test_the_forest_promises_what_it_shows(draw, num_seeds, primary, expected):
    study = with_others(1, primary)

    assert (
        title_of(draw(study, table_of(study, num_seeds, shifts={"0": 0.1}), "forest")) == expected
    )


def test_a_study_without_a_finished_trial_is_drawn_empty(draw):
    study = with_grid(CE, GRID)
    table = table_of(study, 2).assign(status="failed")

    assert title_of(draw(study, table, "forest", GRID)) == "own-grid: 0 paired seeds"
    assert title_of(draw(study, table, "learning_curves")) == "own-grid: 0 seeds"
    assert set(texts(draw(study, table, "surface", GRID).axes[0]).values()) == {"= CE", "no pair"}


def test_the_surface_has_a_cell_for_every_value_and_says_which_is_the_baseline(draw):
    study = with_grid(CE, GRID)
    without = [("lambda_consistency=1 lambda_alignment=0", 0)]
    table = table_of(
        study,
        1,
        shifts={"lambda_consistency=0 lambda_alignment=0.1": 0.02},
        without=without,
    )

    axes, bar = draw(study, table, "surface", GRID).axes

    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.1", "1"]
    assert texts(axes) == {
        (0, 0): "= CE", (1, 0): "+2.0\n1 seed",
        (0, 1): "+0.0\n1 seed", (1, 1): "+0.0\n1 seed",
        (0, 2): "no pair", (1, 2): "+0.0\n1 seed",
    }  # fmt: skip
    assert bar.get_ylabel() == "difference in test accuracy to CE (points)"
    assert title_of(axes.figure) == "own-grid: 1 paired seed"


def test_a_cell_of_the_surface_has_its_interval_and_a_frame_if_there_is_a_verdict(draw):
    study = with_grid(CE, GRID)
    table = table_of(study, 9, shifts={"lambda_consistency=1 lambda_alignment=0.1": -0.05})
    last = report_study(study, table).variants[-1].comparison

    axes = draw(study, table, "surface", GRID).axes[0]

    assert last is not None
    assert last.difference_ci95 is not None
    low, high = last.difference_ci95
    assert (
        texts(axes)[1, 2] == f"{100 * last.difference:+.1f}\n{100 * low:+.1f} to {100 * high:+.1f}"
    )
    assert frames(axes) == {(1, 2)}
    assert title_of(axes.figure).endswith("\nframed: a verdict")


@pytest.mark.parametrize(
    ("num_seeds", "shift", "reach"),
    [(1, 0.001, 1.0), (1, -0.025, 5.0), (9, -0.05, None)],
)
def test_only_a_verdict_gets_the_darkest_colour(draw, num_seeds, shift, reach):
    study = with_grid(CE, GRID)
    table = table_of(study, num_seeds, shifts={study.others[0]: shift})
    first = report_study(study, table).variants[1].comparison

    image = draw(study, table, "surface", GRID).axes[0].images[0]

    assert first is not None
    expected = 100 * abs(first.difference) if reach is None else reach
    assert_allclose(image.get_clim(), (-expected, expected))
