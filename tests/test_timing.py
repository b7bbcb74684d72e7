"""Percentiles out of a fixed number of bins."""

import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jokr_rt.timing import Histogram, Timings, process_age


@given(st.lists(st.floats(1e-5, 1e3), min_size=1, max_size=200), st.sampled_from([1, 50, 95, 99, 100]))
def test_a_percentile_is_right_to_a_bin(seconds: list[float], percent: int) -> None:
    histogram = Histogram()
    for duration in seconds:
        histogram.add(duration)
    exact = np.percentile(seconds, percent, method="inverted_cdf")
    assert abs(histogram.percentile(percent) / exact - 1) < 0.011


def test_the_shortest_and_the_longest_count_too() -> None:
    histogram = Histogram()
    for duration in (0.0, -1e-9, 1e9):
        histogram.add(duration)
    assert histogram.percentile(50) < 2e-6
    assert histogram.percentile(100) > 3600


def test_milliseconds_of_stages_in_order() -> None:
    timings = Timings()
    for stage, seconds in (("read", 0.001), ("write", 0.1), ("read", 0.001), ("read", 0.01)):
        timings.add(stage, seconds)
    told = timings.milliseconds()
    assert list(told) == ["read", "write"]
    assert told["read"] == pytest.approx({"p50": 1, "p95": 10, "p99": 10}, rel=0.011)
    assert told["write"] == pytest.approx({"p50": 100, "p95": 100, "p99": 100}, rel=0.011)


def test_the_age_of_a_process_counts_from_its_creation() -> None:
    code = (
        "import time\nfrom jokr_rt.timing import process_age\n"
        "print(time.clock_gettime(time.CLOCK_BOOTTIME) - process_age())"
    )
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    created = float(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert before - 0.02 <= created < time.clock_gettime(time.CLOCK_BOOTTIME)  # the system counts hundredths
    young, old = process_age(), process_age()
    assert young is not None
    assert old is not None
    assert 0 < young <= old
