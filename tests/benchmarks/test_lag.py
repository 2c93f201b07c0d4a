"""The share of frames that attend where they should: planted maps against values worked by hand."""

import numpy as np
import pytest
from attention_maps import directed, shifted
from numpy.testing import assert_allclose

from benchmarks.lag import LagHits, best_shift, count_hits, lag_shares, margin_95

T = 10


@pytest.mark.parametrize(
    ("attended", "lag", "share"),
    [(-3, -3, 1), (2, 2, 1), (0, -2, 0), (0, -1, 1), (0, 0, 1), (0, 1, 1), (0, 2, 0), (0, 8, 0)],
)
def test_a_map_of_one_shift_hits_all_frames_with_a_counterpart_within_a_frame(attended, lag, share):
    hits = count_hits(directed("left_to_right", shifted(T, attended)), lag)

    assert hits.frames == T - abs(lag)
    assert hits.attention == share * hits.frames


def test_uniform_attention_hits_as_often_as_chance():
    # Lag 2, 10 frames: i = 0..7 aim at 2..9; all but the last have three frames near, it has two.
    hits = count_hits(directed("left_to_right", np.full((T, T), 1 / T)), 2)

    assert_allclose([hits.frames, hits.attention, hits.chance], [8, 2.3, 2.3])


def test_absent_frames_are_neither_counted_nor_drawn():
    left = np.array([1, 1, 0, 1, 1, 1], bool)
    right = np.array([1, 1, 1, 1, 0, 1], bool)
    weights = np.zeros((6, 6))
    weights[[0, 1, 3, 5], [1, 2, 3, 5]] = 1.0

    hits = count_hits(directed("left_to_right", weights, rows=left, keys=right), 1)

    # Both hands: 0, 1, 3, 5. Of these 3 aims at 4, where the right hand is absent, and 5 at 6,
    # which is not in the clip. 0 has the present frames 0, 1, 2 near, 1 has 1, 2, 3, of five.
    assert_allclose([hits.frames, hits.attention, hits.chance], [2, 2, 6 / 5])


def test_the_strongest_attention_is_that_of_the_averaged_heads():
    heads = np.stack([0.6 * shifted(T, 4), 0.5 * shifted(T, 1), 0.5 * shifted(T, 1)])

    assert count_hits(directed("left_to_right", heads), 1).attention == 9


def test_the_best_constant_shift_is_the_one_that_hits_most_frames():
    hits = [LagHits(-5, 10, 0, 1), LagHits(3, 4, 4, 1), LagHits(5, 8, 2, 1), LagHits(0, 2, 2, 1)]

    shares = lag_shares(hits)

    # 3 and 5 are both within one frame of 4: 12 of 24 frames, against 10 for -5.
    assert shares.shift == best_shift(hits) == 4
    assert_allclose(shares[:5], [24, 8 / 24, 4 / 24, 2 / 24, 12 / 24])


def test_of_shifts_that_hit_equally_many_frames_the_smallest_is_taken():
    assert best_shift([LagHits(2, 5, 0, 0), LagHits(-2, 5, 0, 0)]) in (1, -1)
    assert best_shift([LagHits(1, 5, 0, 0), LagHits(-1, 5, 0, 0)]) == 0


def test_a_clip_without_a_counterpart_counts_for_nothing():
    nothing = count_hits(directed("left_to_right", shifted(4, 0)), 9)

    assert nothing == LagHits(9, 0, 0.0, 0.0)
    with pytest.raises(ValueError, match="no clip has a frame"):
        lag_shares([nothing])


def test_the_margin_is_certain_where_all_clips_agree_and_wide_where_they_do_not():
    apart = [LagHits(lag, 10, 10.0, 1.0) for lag in (-8, -8, -4, -4, 4, 4, 8, 8)]
    nowhere = [one._replace(attention=0.0) for one in apart]
    alike = [LagHits(3, 10, 10.0, 1.0) for _ in range(8)]

    assert margin_95([alike], resamples=200, seed=0) == (0.0, 0.0)
    low, high = margin_95([apart, apart], resamples=2000, seed=0)
    assert 0.3 < low < 0.75 < high <= 1.0
    low, high = margin_95([apart, nowhere], resamples=2000, seed=0)
    assert low < 0.25 < high
