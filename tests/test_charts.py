"""Charts: what they show, that they can be joined and saved, small and odd cases, and bad input. About 10 seconds."""
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from distillnb.charts import _bins, bootstrap_histogram, confusion_heatmap, difference_intervals, learning_curves
from distillnb.metrics import METRICS, Metric, register_metric
from distillnb.significance import paired_bootstrap


def history(models=(("cnn", "direct"), ("cnn", "distilled")), epochs=3, seeds=1):
    rows = [{"epoch": e, "train_loss": 1.0, "train_acc": .5, "train_f1_macro": .5, "test_loss": 1.0, "test_acc": .5 + .01 * e + .02 * s,
             "test_f1_macro": .5, "model": f"{m} {w}", "student": m, "way": w, "seed": s}
            for m, w in models for s in range(seeds) for e in range(epochs)]
    return pd.DataFrame(rows)


def verdicts(**columns):
    return pd.DataFrame({"label": ["cnn"], "difference": [.02], "low": [-.01], "high": [.05], "word": ["inconclusive"]} | columns)


def spec(chart):
    return json.loads(chart.to_json())


def data_of(chart):
    return [row for rows in spec(chart)["datasets"].values() for row in rows]


def channel(chart, name):
    "What is said of a channel (`color`, `y`) in the layer that says most"
    return max((layer["encoding"][name] for layer in spec(chart)["layer"] if name in layer.get("encoding", {})), key=lambda it: len(str(it)))


def scale(chart, name):
    drawn = channel(chart, name)["scale"]
    return dict(zip(drawn["domain"], drawn["range"]))


def svg(chart):
    buffer = io.StringIO()
    chart.save(buffer, format="svg")
    return buffer.getvalue()


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("epochs", [1, 3])
def test_learning_curves_show_the_mean_over_seeds(seeds, epochs):
    chart = learning_curves(history(epochs=epochs, seeds=seeds), "test_acc", teacher=.8)
    rows = [row for row in data_of(chart) if (row.get("student"), row.get("way")) == ("cnn", "direct")]
    assert [round(row["score"], 6) for row in rows] == [round(.5 + .01 * e + .02 * (seeds - 1) / 2, 6) for e in range(epochs)]
    assert [round(row["high"] - row["low"], 6) for row in rows] == [round(.02 * (seeds - 1), 6)] * epochs
    assert "teacher 80.0%" in svg(chart) and "accuracy on test texts" in svg(chart)


def test_direct_is_dashed_and_hollow_and_distilled_solid_and_filled():
    chart = learning_curves(history())
    assert scale(chart, "strokeDash") == {"distilled": [1, 0], "direct": [6, 4]}
    points = [layer for layer in spec(chart)["layer"] if layer["mark"]["type"] == "point"]
    fills = {way: layer["mark"].get("fill") for layer in points for way in ("direct", "distilled") if f"'{way}'" in layer["transform"][0]["filter"]}
    assert fills == {"direct": "transparent", "distilled": None}


def test_ways_of_ones_own_have_a_dash_each():
    ways = ["praised", "direct", "scolded", "distilled"]
    lines = history([("cnn", way) for way in ways])
    dashes = scale(learning_curves(lines), "strokeDash")
    assert set(dashes) == set(ways) and dashes["direct"] == [6, 4] and len({str(dash) for dash in dashes.values()}) == 4
    given = scale(learning_curves(lines, dashes={"praised": [9, 9], "direct": [3, 3]}), "strokeDash")
    assert given["praised"] == [9, 9] and given["direct"] == [3, 3] and given["distilled"] == [1, 0]
    assert svg(learning_curves(history([("cnn", f"way{i}") for i in range(9)]))).startswith("<svg")


def test_names_are_columns_and_not_taken_apart():
    lines = history([("distilled", "direct"), ("cnn direct", "distilled")])
    assert list(scale(learning_curves(lines), "color")) == ["distilled", "cnn direct"]


def test_metrics_of_ones_own_have_a_title_and_an_axis():
    register_metric(Metric("surprise", "surprise, bits", len))
    register_metric(Metric("hits", "hits", len, form="{:.0%}"))
    try:
        for name, title, form in (("surprise", "surprise, bits on test texts", ""), ("hits", "hits on test texts", "%"),
                                  ("mae", "MAE on test texts", ""), ("off_by_one", "off by one on test texts", "%")):
            axis = channel(learning_curves(history().assign(**{f"test_{name}": 1.}), f"test_{name}"), "y")
            assert axis["title"] == title and axis["axis"]["format"] == form
    finally:
        del METRICS["surprise"], METRICS["hits"]


def test_twins_share_a_colour_and_other_students_have_another():
    colours = scale(learning_curves(history([("cnn", "direct"), ("linear", "direct"), ("cnn", "distilled"), ("big cnn", "distilled")])), "color")
    assert list(colours) == ["cnn", "linear", "big cnn"] and len(set(colours.values())) == 3


def test_more_students_than_colours_still_have_one_each():
    assert len(scale(learning_curves(history([(f"student{i}", "direct") for i in range(9)])), "color")) == 9


def test_axis_holds_all_values_and_the_teacher_and_does_not_start_at_zero():
    low, high = channel(learning_curves(history(seeds=3), "test_acc", teacher=.9), "y")["scale"]["domain"]
    assert .4 < low < .5 and .9 < high < 1
    low, high = channel(learning_curves(history(epochs=1), "test_acc"), "y")["scale"]["domain"]
    assert high - low > .02, "a single value must not be blown up"


def test_ticks_of_a_single_value_differ():
    ticks = svg(learning_curves(history(epochs=1), "test_acc"))
    for tick in ("49.0%", "49.5%", "50.0%", "50.5%", "51.0%"):
        assert ticks.count(f">{tick}<") == 1


def test_only_shares_are_in_percent():
    assert channel(learning_curves(history(), "test_loss"), "y")["axis"]["format"] == ""
    assert "teacher 0.700" in svg(learning_curves(history(), "test_loss", teacher=.7))


def test_heatmap_shares_are_of_each_true_class():
    truth, pred = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    rows = {(row["true"], row["predicted"]): row["share"] for row in data_of(confusion_heatmap(truth, pred, ["no", "yes"]))}
    assert np.allclose([rows["no", "no"], rows["no", "yes"], rows["yes", "no"], rows["yes", "yes"]], [2 / 3, 1 / 3, 0, 1])


def test_heatmap_keeps_the_order_of_names_and_leaves_empty_cells_empty():
    chart = confusion_heatmap([0, 0, 2], [0, 2, 2], ["zebra", "never seen", "ant"])
    assert channel(chart, "x")["sort"] == channel(chart, "y")["sort"] == ["zebra", "never seen", "ant"]
    assert [svg(chart).count(f">{text}<") for text in ("50%", "100%", "0%")] == [2, 1, 0]


@pytest.mark.parametrize("k", [2, 5, 12, 30])
def test_heatmap_fits_a_page(k):
    width = spec(confusion_heatmap(range(k), range(k), [f"a rather long name of class {i}" for i in range(k)]))["width"]
    assert 150 <= width <= 500


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5000), st.lists(st.integers(-300, 300), min_size=1, max_size=200))
def test_bins_hold_every_value_once_and_are_even(texts, differences):
    counts, edges = _bins(100 * np.array(differences) / texts)
    assert counts.sum() == len(differences) and 1 <= len(counts) <= 41
    assert np.allclose(np.diff(edges), edges[1] - edges[0])
    assert counts[0] and edges[-1] - 100 * max(differences) / texts <= (edges[1] - edges[0]) * 1.001, "no empty bins at the ends"


def test_bins_of_a_full_lattice_have_no_holes():
    for texts in (777, 2000, 4087):
        for spread in (5, 39, 40, 41, 60, 79, 80, 81, 200):
            counts, _ = _bins(100 * np.arange(-spread, spread + 1) / texts)
            assert len(set(counts[:-1])) == 1, (texts, spread)


def test_bins_take_no_floating_point_error_for_a_step():
    a, b = np.random.default_rng(0).integers(9000, 9200, (2, 10_000))
    differences = 100 * (a / 20_480 - b / 20_480)  # equal differences that are not equal floats
    assert len(np.unique(differences)) > len(np.unique(a - b))
    width = np.diff(_bins(differences)[1])[0] / (100 / 20_480)
    assert abs(width - round(width)) < 1e-3


@pytest.mark.parametrize("metric, words", [("accuracy", "points of accuracy"), ("f1_macro", "points of macro F1")])
def test_histogram_holds_every_sample_once_and_stays_small(metric, words):
    generator = np.random.default_rng(0)
    truth, a, b = generator.integers(0, 3, (3, 500))
    result = paired_bootstrap(truth, a, b, metric=metric)
    chart = bootstrap_histogram(result, "a title")
    assert sum(row.get("resamples", 0) for row in data_of(chart)) == 10_000
    band = next(row for row in data_of(chart) if "low" in row)
    assert np.allclose([band["low"], band["high"]], [100 * result.low, 100 * result.high]) and band["part"] == "95% interval"
    assert {row["rule"]: row["x"] for row in data_of(chart) if "rule" in row} == {"no difference": 0, "observed": 100 * result.difference}
    assert len(chart.to_json()) < 12_000 and words in svg(chart) and "a title" in svg(chart)


def test_histogram_of_no_difference_at_all():
    truth = np.arange(50) % 3
    low, high = channel(bootstrap_histogram(paired_bootstrap(truth, truth, truth)), "x")["scale"]["domain"]
    assert low < -.5 and high > .5


def test_zero_is_in_view_wherever_the_differences_are():
    for sign in (-1, 1):
        ends = sorted([sign * .04, sign * .06])
        chart = difference_intervals(verdicts(difference=[sign * .05], low=ends[:1], high=ends[1:], word=["helps"]))
        low, high = channel(chart, "x")["scale"]["domain"]
        assert low < 0 < high


def test_zero_is_in_view_in_histograms_too():
    truth = np.arange(500) % 3
    worse = np.where(np.arange(500) % 4 == 0, (truth + 1) % 3, truth)
    for result in (paired_bootstrap(truth, truth, worse), paired_bootstrap(truth, worse, truth)):
        assert (result.samples > 0).all() or (result.samples < 0).all()
        low, high = channel(bootstrap_histogram(result), "x")["scale"]["domain"]
        assert low < 0 < high


def test_a_word_looks_the_same_whatever_the_others_are():
    one = difference_intervals(verdicts())
    three = difference_intervals(pd.concat([verdicts(label=[word], word=[word]) for word in ("hurts", "helps", "inconclusive")]))
    for name in ("color", "shape"):
        assert scale(one, name)["inconclusive"] == scale(three, name)["inconclusive"]
        assert len(set(scale(three, name).values())) == 3


def test_differences_are_in_points():
    row = next(row for row in data_of(difference_intervals(verdicts())) if "label" in row)
    assert [round(row[key], 9) for key in ("difference", "low", "high")] == [2, -1, 5]


def test_charts_can_be_joined_and_drawn():
    joined = (learning_curves(history()) | confusion_heatmap([0, 1], [1, 1], ["a", "b"])) & difference_intervals(verdicts())
    assert svg(joined).startswith("<svg")


@pytest.mark.parametrize("call, message", [
    (lambda: learning_curves(history().drop(columns="seed")), "no column seed"),
    (lambda: learning_curves(history().drop(columns="test_acc"), "test_acc"), "no column test_acc"),
    (lambda: learning_curves(history()[:0]), "no rows"),
    (lambda: learning_curves(history(), "seed"), "choose train_ or test_"),
    (lambda: learning_curves(history(), "test_accuracy"), "choose train_ or test_"),
    (lambda: learning_curves(history(), "dev_acc"), "choose train_ or test_"),
    (lambda: learning_curves(history().assign(train_acc=[.5] * 4 + [np.nan] * 2), "train_acc"), "train_acc has no value in row 4"),
    (lambda: learning_curves(history().drop(columns="student")), "no column student"),
    (lambda: learning_curves(history([("cnn", None)])), "way has no value in row 0"),
    (lambda: confusion_heatmap([0, 2], [0, 1], ["a", "b"]), "between 0 and 1"),
    (lambda: confusion_heatmap([0, -1], [0, 1], ["a", "b"]), "between 0 and 1"),
    (lambda: confusion_heatmap([0, 1], [.1, .9], ["a", "b"]), "whole numbers"),
    (lambda: confusion_heatmap(["a", "b"], ["a", "b"], ["a", "b"]), "whole numbers"),
    (lambda: confusion_heatmap([0, 1], [0], ["a", "b"]), "one class id of each"),
    (lambda: confusion_heatmap([0, 1], np.eye(2), ["a", "b"]), "one class id of each"),
    (lambda: confusion_heatmap([], [], ["a", "b"]), "one class id of each"),
    (lambda: confusion_heatmap([0, 1], [0, 1], ["a", "a"]), "not all different"),
    (lambda: difference_intervals(pd.DataFrame({"label": ["x"]})), "no column difference"),
    (lambda: difference_intervals(verdicts()[:0]), "no rows"),
    (lambda: difference_intervals(verdicts(word=["better"])), "choose one of helps"),
    (lambda: difference_intervals(verdicts(low=[np.nan])), "low has no value in row 0"),
])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
