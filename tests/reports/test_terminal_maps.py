"""Attention maps in a terminal."""

import numpy as np
import pytest
from attention_maps import directed, softmax_rows

from slrctl.reports.terminal import TextArea, map_lines


@pytest.fixture
def maps():
    """Both maps between the hands of a long clip; the left hand enters late."""
    generator = np.random.default_rng(0)
    left, right = np.arange(204) >= 30, np.ones(204, bool)
    there = softmax_rows(generator.normal(size=(3, 204, 204)), right)
    back = softmax_rows(generator.normal(size=(3, 204, 204)), left)
    return (
        directed("left_to_right", there, left, right),
        directed("right_to_left", back, right, left),
    )


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("has_colour", [True, False])
def test_maps_fit_the_window(maps, width, has_colour):
    lines = map_lines(maps, TextArea(width, has_colour))

    assert max(line.cell_len for line in lines) <= width


def test_frames_without_the_hand_are_marked(maps):
    lines = [line.plain for line in map_lines(maps, TextArea(200, has_colour=False))]

    # Blocks of 3 frames: the first 5 lines hold 2 of them each, all without the left hand.
    assert [line[3] for line in lines[3:8]] == ["\N{MULTIPLICATION SIGN}"] * 5
    assert lines[8][3] == " "
    assert lines[-1].strip() == "a cell is 3 frames"


def test_without_colour_more_attention_is_a_darker_shade():
    weights = np.full((4, 4), 0.1)
    weights[:, 1] = 0.7

    lines = map_lines((directed("left_to_right", weights),), TextArea(80, has_colour=False))

    assert lines[3].plain[5:9] == "░█░░"
