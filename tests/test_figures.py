"""Figures: what is drawn is what was given, held against brute force, closed forms and other people's decoders."""

from __future__ import annotations

import io
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sparsepack.runtimes.report.figures import (
    Bar,
    Line,
    Point,
    line_chart,
    pareto_front,
    picture,
    scatter,
    stacked_bars,
    standalone,
)
from sparsepack.runtimes.report.figures.canvas import Scale, fit, plain
from sparsepack.runtimes.report.figures.pictures import png

SVG = "{http://www.w3.org/2000/svg}"
finite = st.floats(-1e6, 1e6, allow_subnormal=False)


def elements(figure: str, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(figure).iter(f"{SVG}{name}"))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_pareto_front_is_what_brute_force_leaves(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)

    expected = sorted(number for number, point in enumerate(points) if not beaten(point))
    front = pareto_front(points)
    assert sorted(front) == expected
    assert [points[number] for number in front] == sorted(points[number] for number in front)


@given(st.lists(finite, min_size=1, max_size=20), st.booleans())
def test_an_axis_shows_every_value_and_labels_it_readably(values: list[float], zero: bool) -> None:
    scale = fit(values, 0, 100, zero=zero)
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 14
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])
    assert all(scale.low - 1e-9 * abs(scale.low) <= tick <= scale.high + 1e-9 * abs(scale.high) for tick in ticks)


def test_a_logarithmic_axis_is_labelled_at_powers_of_ten() -> None:
    assert Scale(0.5, 2e5, 0, 1, log=True).ticks() == [1, 10, 100, 1000, 10_000, 100_000]
    assert Scale(1, 100, 0, 10, log=True)(10) == 5
    assert Scale(0.0828, 0.0851, 0, 1, log=True).ticks() == pytest.approx([0.083, 0.0835, 0.084, 0.0845, 0.085])


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (0.05, "0.05"), (1500.0, "1500"), (2.5e4, "25 k"), (3e6, "3 M"), (2e9, "2 G")]
)
def test_ticks_are_written_short(value: float, shown: str) -> None:
    assert plain(value) == shown


def test_a_line_breaks_where_a_value_is_missing_and_rises_where_values_rise() -> None:
    points = [(0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 3.0)]
    figure = line_chart([Line("a & b", points)], title="t", x_label="x", y_label="y")
    marks = elements(figure, "circle")
    assert [mark.find(f"{SVG}title").text for mark in marks] == ["a & b: 0, 1", "a & b: 1, 2", "a & b: 3, 3"]  # type: ignore[union-attr]  # every mark has one
    heights = [float(mark.attrib["cy"]) for mark in marks]
    assert heights == sorted(heights, reverse=True)
    paths = [path for path in elements(figure, "path") if path.attrib.get("fill") == "none"]
    assert [path.attrib["d"].count("L") for path in paths] == [1, 0]


def test_points_that_a_logarithmic_axis_cannot_show_are_left_out() -> None:
    figure = line_chart([Line("a", [(0.0, 1.0), (1.0, 10.0)])], title="t", x_label="x", y_label="y", log_x=True)
    assert len(elements(figure, "circle")) == 1


def test_bars_are_as_long_as_their_numbers() -> None:
    figure = stacked_bars([Bar("one", [10, 30], mark=20), Bar("two", [20, 0])], title="t", legend=["first", "second"])
    drawn = {
        title.text: float(shape.attrib["width"])
        for shape in elements(figure, "rect")
        if (title := shape.find(f"{SVG}title")) is not None
    }
    assert drawn["one: second 30"] / drawn["one: first 10"] == pytest.approx(3, rel=0.01)
    assert drawn["two: first 20"] / drawn["one: first 10"] == pytest.approx(2, rel=0.01)
    assert "two: second 0" not in drawn


def test_a_scatter_holds_every_point_and_names_them() -> None:
    points = [Point(f"p{number}", 10.0**number, number, f"group {number % 2}") for number in range(4)]
    figure = scatter(points, title="t", x_label="x", y_label="y", log_x=True)
    assert len(elements(figure, "circle")) == 4
    texts = [found.text for found in elements(figure, "text")]
    assert {"p0", "p1", "p2", "p3", "group 0", "group 1"} <= set(texts)


def test_one_value_and_no_spread_still_make_a_figure() -> None:
    figure = line_chart([Line("flat", [(1.0, 0.0)])], title="t", x_label="x", y_label="y")
    numbers = re.findall(r"-?\d+\.?\d*", figure)
    assert "nan" not in figure and "inf" not in figure and numbers


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_pictures_decode_to_their_levels(height: int, width: int, seed: int) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    with Image.open(io.BytesIO(png(levels))) as image:
        assert np.array_equal(np.asarray(image), levels)


def test_names_cannot_leave_their_attribute() -> None:
    assert '"><script>' not in picture(np.zeros((1, 1), np.uint8), '"><script>')


def test_a_figure_of_its_own_brings_colours_for_light_and_dark() -> None:
    figure = standalone(line_chart([Line("a", [(0, 1), (1, 2)])], title="t", x_label="x", y_label="y"))
    assert "prefers-color-scheme:dark" in figure
    ElementTree.fromstring(figure)
