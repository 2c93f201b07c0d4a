"""Figures about the attention of one clip."""

import json

import numpy as np
import pytest
from attention_maps import directed, inspected_clip, measured_clip, shifted
from numpy.testing import assert_allclose

from slrctl.reports.attention_figures import (
    draw_comparison,
    draw_consistency,
    draw_heads,
    draw_maps,
    most_attended,
    relative,
    scale_for,
)
from slrctl.settings import CMCLSettings
from slrctl.studies.attention.measures import as_json

T = 9


def maps(figure):
    return [axes for axes in figure.axes if axes.images and axes.get_visible()]


def test_weights_are_shown_in_times_uniform_and_empty_where_a_hand_is_missing():
    found = directed("left_to_right", np.full((3, 3), 0.5), [1, 0, 1], [1, 1, 0])

    shown = relative(found, found.mean)

    assert_allclose(shown, [[1, 1, np.nan], [np.nan] * 3, [1, 1, np.nan]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 5.0], (0, 5)), ([0.8, 1.2], (0.8, 1.2)), ([1.0, 1.0], (0.99, 1.01)), ([], (0, 2))],
)
def test_the_scale_starts_at_zero_unless_all_is_nearly_uniform(values, expected):
    scale = scale_for([np.array([[*values, np.nan]])])

    assert (scale.vmin, scale.vmax) == pytest.approx(expected)


@pytest.mark.parametrize(("layer", "count"), [("fusion", 6), ("encoder-1", 3), ("decoder-1", 1)])
def test_every_map_of_a_layer_is_drawn_with_its_heads_averaged(figures, tmp_path, layer, count):
    inspected = inspected_clip("clip")
    draw_maps(inspected, layer, tmp_path / "maps.png", tmp_path / "maps.svg")

    shown = maps(figures["maps"])
    assert len(shown) == count
    # Every frame of the last map counts.
    last = T * inspected.layers[layer][-1].mean.astype(float)
    assert_allclose(shown[-1].images[0].get_array().filled(np.nan), last)
    assert len({axes.images[0].get_clim() for axes in shown}) == 1


@pytest.mark.parametrize(("layer", "count"), [("fusion", 18), ("encoder-1", 7), ("decoder-1", 4)])
def test_every_head_has_its_own_map(figures, tmp_path, layer, count):
    draw_heads(inspected_clip("clip"), layer, tmp_path / "heads.pdf")

    assert len(maps(figures["heads"])) == count


def test_two_runs_are_compared_on_one_scale(figures, tmp_path):
    both = [inspected_clip("clip"), inspected_clip("clip", 1)]
    draw_comparison(both, ["first", "second"], tmp_path / "both.png")

    shown = maps(figures["both"])
    assert ["second" in axes.get_title() for axes in shown] == [False, False, True, True]
    assert len({axes.images[0].get_clim() for axes in shown}) == 1


def test_the_consistency_panel_has_both_distributions_and_their_difference(figures, tmp_path):
    measured = measured_clip("clip")
    draw_consistency(measured, CMCLSettings(), tmp_path / "consistency.png")

    shown = maps(figures["consistency"])
    assert len(shown) == 3 * 4  # the mean and three heads
    forth, back, difference = (axes.images[0].get_array()[2:] for axes in shown[:3])
    assert_allclose(forth.sum(axis=1), T, rtol=1e-6)
    assert_allclose(back.sum(axis=1), T, rtol=1e-6)
    assert_allclose(difference, forth - back)
    assert f"{measured.measures.divergence:.3g} nats" in shown[2].get_title()
    assert len(shown[0].child_axes) == 2 * 4  # hands beside it


def test_the_frames_read_most_are_apart_from_each_other():
    weights = np.tile(np.linspace(0, 1, 40), (40, 1))
    assert most_attended(directed("left_to_right", weights)) == [27, 31, 35, 39]
    assert most_attended(directed("left_to_right", shifted(3, 1))) == [0, 1, 2]


def test_numbers_go_to_json_and_back_to_the_bit():
    values = np.array([0.1, np.nan, 1 / 3], np.float32)

    written = json.loads(json.dumps(as_json(values), allow_nan=False))

    assert written[1] is None
    assert np.array(written, np.float32)[[0, 2]].tobytes() == values[[0, 2]].tobytes()
