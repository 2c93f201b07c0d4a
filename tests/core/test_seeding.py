import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from slrctl.core.seeding import (
    counter_bits,
    counter_events,
    counter_normal,
    counter_uniform,
    generator_for,
    keys_for,
    scoped_generator,
    scoped_seed,
    stable_seed,
)

SEED = 8507828922259570172
KEYS = np.random.default_rng(0).integers(0, 2**63, 500).astype(np.uint64)
MASK = 2**64 - 1


def events(keys, count):
    return counter_events(keys, count, 0.3)


def test_a_seed_is_the_same_on_every_machine_and_fits_63_bits():
    assert stable_seed(1, "weights", 2.5) == SEED
    assert max(map(stable_seed, range(200))) < 2**63


@pytest.mark.parametrize("others", [("a", "bc"), ("abc",), ("a", "b", "c", ""), ("c", "b", "a")])
def test_other_names_give_another_seed(others):
    assert stable_seed(*others) != stable_seed("a", "b", "c")


def test_generators_of_one_name_draw_alike():
    first, again = (torch.rand(5, generator=generator_for(1, "x")) for _ in range(2))

    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(5, generator=generator_for(2, "x")))


CPU = torch.device("cpu")


def drawn(count=3):
    return torch.rand(count, generator=scoped_generator(CPU))


def test_a_scoped_seed_decides_inside_and_leaves_no_trace_even_after_an_error():
    with scoped_seed(7, CPU):
        first = drawn()
        with scoped_seed(8, CPU):
            inner = drawn()
        more = drawn()
    with scoped_seed(7, CPU):
        both = drawn(6)
    with pytest.raises(RuntimeError, match="shape"), scoped_seed(7, CPU):
        drawn().reshape(2, 2)

    assert torch.equal(torch.cat([first, more]), both)
    assert not torch.equal(inner, first)
    assert scoped_generator(CPU) is None


def test_a_scoped_seed_touches_no_global_generator():
    torch.manual_seed(5)
    undisturbed = torch.rand(3)
    torch.manual_seed(5)

    with scoped_seed(7, CPU):
        drawn()
        assert torch.equal(torch.rand(3), undisturbed)


def test_threads_with_scoped_seeds_draw_what_each_draws_alone():
    def draws(seed):
        with scoped_seed(seed, CPU):
            both.wait()  # the other one is inside its block too
            return [drawn() for _ in range(100)]

    both = threading.Barrier(1)
    alone = [draws(seed) for seed in (1, 2)]
    both = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(draws, (1, 2)))

    for own, expected in zip(together, alone, strict=True):
        assert all(map(torch.equal, own, expected))


def test_bits_equal_the_published_generator():
    def splitmix64(key, number):
        z = (key + number * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    keys = [1234567, *KEYS[:4].tolist()]

    bits = counter_bits(np.array(keys, np.uint64), 9)

    assert bits.tolist() == [[splitmix64(key, n) for n in range(1, 10)] for key in keys]
    # The first outputs from state 1234567, as other implementations list them.
    assert bits[0, :2].tolist() == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("draw", [counter_bits, counter_uniform, counter_normal, events])
def test_a_draw_depends_on_its_key_and_number_alone(draw):
    many = draw(KEYS, 37)

    np.testing.assert_array_equal(draw(KEYS[7:8], 5), many[7:8, :5])


def test_uniform_draws_are_uniform_and_never_0_or_1():
    draws = counter_uniform(KEYS, 400)

    assert draws.min() > 0
    assert draws.max() < 1
    # 200,000 draws in 20 bins: chi-square with 19 degrees of freedom, 43.8 at p = 0.001.
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 43.8


@pytest.mark.parametrize("probability", [0.0, 0.02, 0.5, 0.99, 1.0])
def test_events_happen_as_often_as_they_should(probability):
    share = counter_events(KEYS, 400, probability).mean()

    standard_error = np.sqrt(probability * (1 - probability) / 200_000)
    assert share == pytest.approx(probability, abs=4 * standard_error)


def test_what_happens_at_a_low_probability_happens_at_a_higher_one():
    rare, frequent = counter_events(KEYS, 50, 0.1), counter_events(KEYS, 50, 0.4)

    assert frequent[rare].all()


def test_normal_draws_have_the_moments_of_a_normal():
    draws = counter_normal(KEYS, 401).astype(np.float64)

    # 200,500 draws: standard errors 0.0022, 0.0016, 0.0055 and 0.022.
    assert abs(draws.mean()) < 0.01
    assert draws.std() == pytest.approx(1, abs=0.007)
    assert abs((draws**3).mean()) < 0.024
    assert (draws**4).mean() == pytest.approx(3, abs=0.1)
    assert (np.abs(draws) > 1.959964).mean() == pytest.approx(0.05, abs=0.0025)


def test_keys_of_two_purposes_draw_unrelated_numbers():
    first, second = (counter_uniform(keys_for(KEYS, name), 100) for name in ("noise", "speed"))

    # 50,000 pairs: a standard error of 0.0045.
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02
    np.testing.assert_array_equal(keys_for(KEYS, "noise"), keys_for(KEYS, "noise"))
