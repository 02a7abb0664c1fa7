"""A chart is the same bytes wherever it is drawn, and its CSV holds what was plotted."""

from __future__ import annotations

import csv
import io
import json
import math

import matplotlib
import pytest

from xr2ct.reporting.chart import Chart, Panel, Series

CHART = Chart(
    "t",
    "Title",
    "What <it> shows",
    (
        Panel(
            "views",
            "PSNR, dB",
            (
                Series("repeat", (2, 4, 8), (20.0, 21.0, 20.5), (19.5, 20.5, 20.0), (20.5, 21.5, 21.0)),
                Series("repeat, elsewhere", (2, 4), (18.0, 17.0), marker="*", tone="repeat", light=True),
            ),
            {"mean chest": 18.2},
            log_x=True,
            ticks=(2, 4, 8),
        ),
        Panel("step", "loss", (Series("", (1, 2, 3), (3.0, math.nan, 1.0), marker=None),)),
    ),
)


def again(chart: Chart) -> Chart:
    """By way of JSON, as a lock has it."""
    values, arrays = chart.source()
    return Chart.from_source(json.loads(json.dumps(values).replace("NaN", "null")), arrays)


def test_its_source_draws_the_same_bytes() -> None:
    files = CHART.files()
    assert set(files) == {"pdf", "svg", "csv"} and again(CHART).files() == files


def test_a_users_settings_change_nothing() -> None:
    expected = CHART.files()
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9}):
        assert CHART.files() == expected


def test_the_csv_holds_what_was_plotted() -> None:
    rows = list(csv.DictReader(io.StringIO(again(CHART).files()["csv"].decode())))
    first = rows[0]
    assert (first["panel"], first["series"]) == ("PSNR, dB", "repeat")
    assert [float(first[key]) for key in ("x", "y", "low", "high")] == [2, 20, 19.5, 20.5]
    assert [r["y"] for r in rows if r["panel"] == "loss"] == ["3.0", "", "1.0"]
    assert [r["y"] for r in rows if r["series"] == "mean chest"] == ["18.2"]


def test_series_of_one_tone_share_a_colour_and_a_level_is_dashed() -> None:
    figure = CHART._draw()
    axes, losses = figure.axes
    colours = [line.get_color() for line in axes.get_lines()]
    solid, light = (container[0] for container in axes.containers), axes.get_lines()[-2]
    assert light.get_color() == next(solid).get_color() and light.get_alpha() == pytest.approx(0.4)
    assert "gray" in colours and losses.get_lines()[0].get_linestyle() == "-"


def test_the_legend_names_each_label_once_and_leaves_the_unnamed_out() -> None:
    (legend,) = CHART._draw().legends
    assert [text.get_text() for text in legend.get_texts()] == ["repeat", "repeat, elsewhere", "mean chest"]


@pytest.mark.parametrize("panels", [1, 2, 4])
def test_long_labels_and_many_stay_inside_the_figure(panels: int) -> None:
    labels = [f"system {i} by the recipe of its own publication, midrc-ricord-1b" for i in range(6)]
    labels.append("one of a name that is longer than a single panel is wide, " * 2)
    panel = Panel("x", "y", tuple(Series(label, (1, 2), (1, 2)) for label in labels))
    figure = Chart("t", "", "", (panel,) * panels)._draw()
    figure.draw_without_rendering()
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
    assert figure.axes[-1].get_window_extent().y0 > box.y1


def test_steps_are_whole_numbers() -> None:
    panel = Panel("step", "y", (Series("a", (1, 2, 3), (1, 2, 3)),))
    (axes,) = Chart("t", "", "", (panel,))._draw().axes
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_ticks_that_would_run_into_each_other_keep_the_last() -> None:
    panel = Panel("x", "y", (Series("a", (50, 800, 812), (1, 2, 3)),), log_x=True, ticks=(50, 800, 812))
    (axes,) = Chart("t", "", "", (panel,))._draw().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["50", "", "812"]


def test_the_page_has_the_figure_and_the_caption_escaped() -> None:
    text = CHART.html()
    assert text.count("<svg") == 1 and "What &lt;it&gt; shows" in text and "<?xml" not in text
