"""Charts: what they show, that they can be joined and saved, and bad input."""
import io
import json

import numpy as np
import pandas as pd
import pytest

from distillnb.charts import bootstrap_histogram, confusion_heatmap, difference_intervals, learning_curves
from distillnb.significance import paired_bootstrap


def history(models=("cnn direct", "cnn distilled"), epochs=3, seeds=1):
    rows = [{"epoch": e, "train_loss": 1.0, "train_acc": .5, "train_f1_macro": .5, "test_loss": 1.0, "test_acc": .5 + .01 * e + .02 * s,
             "test_f1_macro": .5, "model": m, "seed": s} for m in models for s in range(seeds) for e in range(epochs)]
    return pd.DataFrame(rows)


def data_of(chart):
    return [row for rows in json.loads(chart.to_json())["datasets"].values() for row in rows]


def svg(chart):
    buffer = io.StringIO()
    chart.save(buffer, format="svg")
    return buffer.getvalue()


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("epochs", [1, 3])
def test_learning_curves_show_the_mean_over_seeds(seeds, epochs):
    chart = learning_curves(history(epochs=epochs, seeds=seeds), "test_acc", teacher=.8)
    rows = [row for row in data_of(chart) if row.get("model") == "cnn direct"]
    assert [round(row["score"], 6) for row in rows] == [round(.5 + .01 * e + .02 * (seeds - 1) / 2, 6) for e in range(epochs)]
    assert "teacher" in svg(chart) and "accuracy on test texts" in svg(chart)


def test_direct_is_dashed_and_distilled_solid():
    spec = json.loads(learning_curves(history()).to_json())
    dash = next(layer["encoding"]["strokeDash"] for layer in spec["layer"] if "strokeDash" in layer["encoding"])
    assert dict(zip(dash["scale"]["domain"], dash["scale"]["range"])) == {"distilled": [1, 0], "direct": [6, 4]}


def test_heatmap_shares_are_of_each_true_class():
    truth, pred = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    rows = {(row["true"], row["predicted"]): row["share"] for row in data_of(confusion_heatmap(truth, pred, ["no", "yes"]))}
    assert np.allclose([rows["no", "no"], rows["no", "yes"], rows["yes", "no"], rows["yes", "yes"]], [2 / 3, 1 / 3, 0, 1])


def test_histogram_holds_every_sample_once_and_stays_small():
    generator = np.random.default_rng(0)
    truth, a, b = generator.integers(0, 3, (3, 500))
    chart = bootstrap_histogram(paired_bootstrap(truth, a, b))
    assert sum(row.get("resamples", 0) for row in data_of(chart)) == 10_000
    assert len(chart.to_json()) < 12_000


def test_charts_can_be_joined_and_drawn():
    frame = pd.DataFrame({"label": ["cnn"], "difference": [.02], "low": [-.01], "high": [.05], "word": ["inconclusive"]})
    joined = (learning_curves(history()) | confusion_heatmap([0, 1], [1, 1], ["a", "b"])) & difference_intervals(frame)
    assert svg(joined).startswith("<svg")


@pytest.mark.parametrize("call, message", [
    (lambda: learning_curves(history().drop(columns="seed")), "no column seed"),
    (lambda: learning_curves(history()[:0]), "no rows"),
    (lambda: learning_curves(history(), "seed"), "choose train_ or test_"),
    (lambda: confusion_heatmap([0, 2], [0, 1], ["a", "b"]), "between 0 and 1"),
    (lambda: confusion_heatmap([0, 1], [0], ["a", "b"]), "one of each"),
    (lambda: difference_intervals(pd.DataFrame({"label": ["x"]})), "no column difference"),
])
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
