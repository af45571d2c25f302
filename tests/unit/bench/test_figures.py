"""The arithmetic of what is measured, on samples whose answers are known."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.bench.figures import Figure, Goal, Row, middle, percentile, points, turns

_VALUES = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300)


def figure(goals: dict[str, tuple[Goal, ...]] | None = None, *, more_is_better: bool = False) -> Figure:
    return Figure("f", "A figure", peer="peer", goals=goals, more_is_better=more_is_better)


def row(measured: Figure, name: str) -> Row:
    found = measured.table().row(name)
    assert found is not None
    return found


def test_a_row_has_median_p99_worst_and_how_many() -> None:
    measured = figure()
    measured.add("ours", *range(1, 101))
    found = row(measured, "ours")
    assert (found.count, found.median, found.p99, found.worst) == (100, 50.5, 99, 100)


def test_ratios_are_to_the_peers_median_and_p99() -> None:
    measured = figure()
    measured.add("ours", 2, 2, 8)
    measured.add("peer", 4, 4, 4)
    assert (row(measured, "ours").ratio, row(measured, "ours").ratio_p99) == (0.5, 2.0)
    assert row(measured, "peer").ratio is None


@pytest.mark.parametrize("peers", [(), (0.0, 0.0)])
def test_there_is_no_ratio_beside_nothing(peers: tuple[float, ...]) -> None:
    measured = figure({"ours": (Goal(0.5),)})
    measured.add("ours", 1.0)
    if peers:
        measured.add("peer", *peers)
    found = row(measured, "ours")
    assert found.ratio is None and found.between is None
    assert found.reached == {"ratio 0.5 or less": False}


def test_goals_are_of_the_ratio_or_of_the_value() -> None:
    goals = (Goal(0.5), Goal(0.5, of="p99"), Goal(20, of="worst", ratio=False), Goal(2, ratio=False))
    measured = figure({"ours": goals})
    measured.add("peer", 8, 8, 8)
    measured.add("ours", 3, 3, 21)
    assert row(measured, "ours").reached == {
        "ratio 0.5 or less": True,
        "p99 ratio 0.5 or less": False,
        "worst 20 or less": False,
        "2 or less": False,
    }


def test_the_worst_of_what_is_better_when_it_is_more_is_the_least() -> None:
    measured = figure(more_is_better=True)
    measured.add("ours", 3, 1, 2)
    assert row(measured, "ours").worst == 1


def test_the_ratio_lies_between_what_its_samples_leave_open() -> None:
    measured = figure()
    measured.add("peer", 10, 20)
    measured.add("ours", 5, 10)
    assert row(measured, "ours").between == (0.25, 1.0)


def test_rows_stand_in_the_order_of_their_first_samples_and_warming_up_is_forgotten() -> None:
    measured = figure()
    measured.add("early", 1)
    measured.clear()
    measured.add("b", 1)
    measured.add("a", 1)
    measured.add("b", 1)
    assert [each.name for each in measured.table().rows] == ["b", "a"]


def test_a_figure_without_samples_is_none() -> None:
    with pytest.raises(ValueError):
        figure().table()


def test_what_raises_is_no_sample() -> None:
    measured = figure()
    with pytest.raises(LookupError), measured.timed("ours"):
        raise LookupError
    assert not measured.samples


@given(_VALUES, st.integers(1, 100))
def test_a_percentile_is_the_least_sample_that_so_many_do_not_exceed(values: list[float], rank: int) -> None:
    found = percentile(values, rank)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= rank * len(values)
    assert sum(value < found for value in values) * 100 < rank * len(values)


@given(_VALUES)
def test_the_median_lies_in_its_middle(values: list[float]) -> None:
    low, high = middle(values)
    assert low <= statistics.median(values) <= high


@pytest.mark.parametrize("count", [1, 2, 6])
def test_of_few_samples_the_middle_is_all_of_them(count: int) -> None:
    values = [float(each) for each in range(count)]
    assert middle(values) == (0.0, count - 1.0)


def test_the_middle_holds_the_median_of_what_was_sampled_nearly_always() -> None:
    chance = random.Random(7)
    held = 0
    for _ in range(400):
        low, high = middle([chance.expovariate(1) for _ in range(40)])
        held += low <= 0.693147 <= high  # the median of that distribution is log 2
    assert held >= 392


@given(_VALUES)
def test_points_are_a_hundred_and_one_at_most_in_order_from_the_least_to_the_most(values: list[float]) -> None:
    found = points(values)
    assert len(found) == min(len(values), 101)
    assert list(found) == sorted(found)
    assert found[0] == pytest.approx(min(values), rel=1e-4)
    assert found[-1] == pytest.approx(max(values), rel=1e-4)


def test_each_contender_has_its_turn_each_round_and_none_is_always_first() -> None:
    taken = [name for name, _ in turns(3, {"a": 1, "b": 2, "c": 3})]
    assert taken == [*"abc", *"bca", *"cab"]
    assert list(turns(3, {})) == []
