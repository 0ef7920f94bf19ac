"""The growth laws of benchmarks/growth.py and what benchmarks/scale.py computes from them, worked by hand."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("growth", "scale", "scale_steps"):
        sys.modules.pop(name, None)


def point(step, size, seconds, gigabytes=1.0, disk_bytes=0):
    from scale_steps import Point

    return Point(step, size, seconds, seconds, gigabytes, disk_bytes)


def test_values_on_a_law_give_it_back_without_a_residual():
    from growth import fit

    sizes = [10, 100, 1000, 10_000]
    law = fit(sizes, [0.5 * size**1.5 for size in sizes])
    assert (law.factor, law.power, law.residual) == pytest.approx((0.5, 1.5, 1.0))
    assert law.at(1e6) == pytest.approx(0.5e9)
    assert law.interval(1e6) == pytest.approx((0.5e9, 0.5e9))


def test_one_value_off_the_law_worked_by_hand():
    """Logarithms to e of the sizes 1, e, e^2 and heights 0, 3, 0: slope 0, height 1, the middle off by e^2."""
    from growth import fit

    e = float(np.e)
    law = fit([1, e, e * e], [1.0, e**3, 1.0])
    assert law.power == pytest.approx(0)
    assert law.factor == pytest.approx(e)
    assert law.residual == pytest.approx(e**2)
    assert law.deviation == pytest.approx(6**0.5)  # squares 1 + 4 + 1, one degree of freedom
    # At e^3, 2 from the centre 1 with a spread of 2: 1 + 1/3 + 4/2.
    half = stats.t.ppf(0.975, 1) * (6 * (1 + 1 / 3 + 2)) ** 0.5
    low, high = law.interval(e**3, 0.95)
    assert np.log([low, high]) == pytest.approx([1 - half, 1 + half])


def test_the_interval_holds_as_many_new_values_as_it_says():
    """1,000 laws with noise of 10 % at four sizes, each asked at ten times the largest; a narrower one does not."""
    from growth import fit

    random = np.random.default_rng(0)
    sizes = np.array([1e4, 3e4, 1e5, 3e5])
    held = {0.95: 0, 0.5: 0}
    for _ in range(1000):
        law = fit(sizes, 1e-4 * sizes**1.1 * np.exp(0.1 * random.standard_normal(4)))
        new = 1e-4 * 3e6**1.1 * np.exp(0.1 * random.standard_normal())
        for level in held:
            low, high = law.interval(3e6, level)
            held[level] += low <= new <= high
    assert held[0.95] / 1000 == pytest.approx(0.95, abs=0.03)
    assert held[0.5] / 1000 == pytest.approx(0.5, abs=0.06)


def test_two_sizes_say_nothing_of_the_range_and_one_size_nothing_at_all():
    from growth import fit

    assert fit([1, 10], [2, 20]).interval(100) == (0.0, float("inf"))
    with pytest.raises(ValueError, match="at least two sizes"):
        fit([5, 5], [1, 2])


def test_times_memory_and_disk_of_a_larger_set():
    from scale import growths, needs

    points = [
        point("work", 100, 1.0, 1.0, 500),
        point("work", 400, 8.0, 1.3, 2000),
        point("work", 1600, 64.0, 2.5, 8000),
    ]
    points.insert(0, point("work", 100, 9.0))  # measured again since
    points.append(point("once", 100, 1.0))
    (found,) = growths(points)
    assert found.law.power == pytest.approx(1.5)
    time, disk, memory, vectors = needs([found], 6400)
    assert (time.value, time.unit) == (pytest.approx(512.0), "s")
    assert (time.low, time.high) == pytest.approx((512.0, 512.0))  # all three lie on the law
    assert disk.value == pytest.approx(32_000 / 1e9)
    assert memory.value == pytest.approx(2.5 + 1.2 / 1200 * 4800)
    assert memory.how == "1,000,000 B a pair"
    assert vectors.value == pytest.approx(2 * 6400 * 512 * 4 / 1e9)


def test_memory_of_a_set_that_is_smaller_than_what_was_measured_is_on_the_same_line():
    from scale import growths

    (found,) = growths([point("work", 100, 1.0, 1.0), point("work", 300, 3.0, 1.4)])
    need = found.memory(200)
    assert (need.value, need.how) == (pytest.approx(1.2), "2,000,000 B a pair")


def test_what_a_call_costs_whatever_the_size_does_not_bend_a_time_below_its_line():
    """Seconds are 1 + n / 1000, 1,001 at a million: the law of four sizes gives less than a tenth."""
    from scale import growths

    (found,) = growths([point("work", size, 1 + size / 1000) for size in (10, 100, 1000, 2000)])
    assert found.law.at(1e6) < 100
    need = found.seconds(10**6)
    assert (need.value, need.low) == (pytest.approx(1001.0), pytest.approx(1001.0))
    assert need.high >= 1500
    assert need.how == "the line of the two largest sizes"


def test_a_step_that_does_not_touch_every_pair_stays_with_its_law():
    from scale import growths

    (found,) = growths([point("open a collection", size, 1.0) for size in (100, 400, 1600)])
    assert found.seconds(10**9).high == pytest.approx(1.0)
    assert not found.grows_in_memory


def test_laws_of_cpu_seconds_where_they_were_taken():
    from scale import growths

    points = [replace(point("a", size, 1.0), cpu_seconds=size / 100) for size in (10, 100, 1000)]
    points += [replace(point("b", size, 2.0), cpu_seconds=0.0) for size in (10, 100, 1000)]
    a, b = growths(points, by_cpu=True)
    assert (a.law.power, a.largest.seconds) == (pytest.approx(1.0), 10.0)
    assert (b.law.power, b.largest.seconds) == (pytest.approx(0.0), 2.0)
    assert growths(points)[0].law.power == pytest.approx(0.0)


def test_the_rate_of_a_gpu_is_the_readers():
    from scale import needs

    rows = needs([], 3_600_000, embedded_per_s=500)
    assert [row.value for row in rows[:3]] == [7200.0, 900.0, 112.5]
    assert "3,600,000" not in rows[0].how
    assert rows[0].how == "pairs / 500 / 1"
    assert [row.what for row in needs([], 10)] == ["vectors, fp32"]


def test_two_sizes_show_no_range():
    from scale import growths

    (found,) = growths([point("a", 10, 1.0), point("a", 100, 10.0)])
    assert found.seconds(1000).shown == "100 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (59.6, "60 s"),
        (130, "2.2 min"),
        (7300, "2 h"),
        (200_000, "2.3 d"),
        (4e8, "13 years"),
        (1e12, "over 100 years"),
    ],
)
def test_durations_are_read_at_a_glance(seconds, text):
    from scale import duration

    assert duration(seconds) == text


def test_tables_and_a_plot_of_points_in_a_file(tmp_path, monkeypatch, capsys):
    import scale

    points = [
        point(step, size, size / 1000, 1 + size / 1e6, size) for step in ("a", "close, b") for size in (10, 100, 1000)
    ]
    told = {"machine": {"cpu": "a CPU"}, "points": [asdict(one) for one in points]}
    (tmp_path / "points.json").write_text(json.dumps(told))
    words = ["scale.py", "--points", str(tmp_path / "points.json"), "--pairs", "2000", "--embedded_per_s", "4"]
    monkeypatch.setattr(sys, "argv", [*words, "--plot", str(tmp_path / "plot.png")])
    scale.main()
    out = capsys.readouterr().out
    assert "cpu a CPU" in out
    assert "| a | 10, 100, 1,000 | 0.01, 0.1, 1 | 1 GB | n^1.00 | x1.00 |" in out
    assert "| embed, 1 workers of 4 pairs/s | pairs / 4 / 1 | 8.3 min |" in out
    assert "| a | pairs to the power of 1.00 | 2 s (2 s to 2 s) |" in out
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_measurements_of_two_machines_are_not_mixed_in_a_file(tmp_path, monkeypatch):
    import scale

    monkeypatch.setattr(scale, "machine", lambda: {"cpu": "this one"})
    (tmp_path / "other.json").write_text(json.dumps({"machine": {"cpu": "another"}, "points": []}))
    with pytest.raises(SystemExit, match="another machine"):
        scale.add_measurements(["demo"], [8], 1, tmp_path / "other.json")
