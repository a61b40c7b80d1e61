"""Metrics against scikit-learn, what fits which task, and metrics of one's own."""
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, brier_score_loss, cohen_kappa_score, f1_score, mean_absolute_error

from distillnb.metrics import (METRICS, Metric, brier_score, calibration_error, check_arrays, chosen, fitting, ordered_scores, register_metric,
                               reliability, right_answers, scores, true_classes)

GENERATOR = np.random.default_rng(0)
OURS = ["accuracy", "f1_macro", "mae", "off_by_one", "kappa", "calibration_error"]


@pytest.fixture
def table():
    """The table of metrics, as it was afterwards."""
    before = dict(METRICS)
    yield METRICS
    METRICS.clear()
    METRICS.update(before)


def test_scores_are_sklearns_and_skip_unknown_labels():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(-1, 4, 500), generator.integers(0, 4, 500)
    known = labels >= 0
    result = scores(labels, predictions, 4)
    assert np.isclose(result["acc"], accuracy_score(labels[known], predictions[known]))
    assert np.isclose(result["f1_macro"], f1_score(labels[known], predictions[known], average="macro"))


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_ordered_scores_are_the_usual_ones(pairs):
    labels, predictions = np.array(pairs).T
    result, known = ordered_scores(labels, predictions), labels >= 0
    if not known.any():
        assert np.isnan(list(result.values())).all()
        return
    assert np.isclose(result["mae"], mean_absolute_error(labels[known], predictions[known]))
    assert np.isclose(result["off_by_one"], np.mean(abs(labels - predictions)[known] <= 1))
    if len({*labels[known], *predictions[known]}) > 1:
        assert np.isclose(result["kappa"], cohen_kappa_score(labels[known], predictions[known], weights="quadratic"), equal_nan=True)
    else:
        assert np.isnan(result["kappa"])


def test_brier_score_is_that_of_scikit_learn():
    p = np.array([.1, .4, .8, .9])
    both = np.stack([1 - p, p], 1)
    assert np.isclose(brier_score(np.array([0, 1, 1, 0]), both) / 2, brier_score_loss([0, 1, 1, 0], p))


def test_a_calibrated_model_has_a_small_error():
    p = softmax(GENERATOR.normal(0, 2, (20_000, 4)), axis=1)
    truth = (p.cumsum(1) > GENERATOR.random((20_000, 1))).argmax(1)
    assert calibration_error(truth, p) < .02 < calibration_error(truth, softmax(3 * np.log(p), axis=1))
    assert reliability(truth, p).n.sum() == 20_000


def test_the_table_and_what_fits():
    assert [*METRICS] == OURS and [metric.name for metric in METRICS.values()] == OURS
    assert [metric.name for metric in fitting(False, True)] == OURS
    assert [metric.name for metric in fitting(False, False)] == ["accuracy", "f1_macro", "calibration_error"]
    assert [metric.name for metric in fitting(True, True)] == [metric.name for metric in fitting(True, False)] == ["accuracy", "f1_macro"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_metrics_of_one_label_are_the_helpers(pairs):
    truth, said = np.array(pairs).T
    values = {metric.name: metric.of(truth, .1 + .6 * np.eye(4)[said]) for metric in fitting(False, True)}
    expected = {"accuracy": scores(truth, said, 4)["acc"], "f1_macro": scores(truth, said, 4)["f1_macro"]} | ordered_scores(truth, said)
    assert all(np.isclose(values[name], value, equal_nan=True) for name, value in expected.items())
    assert all(isinstance(value, float) for value in values.values())


@given(st.lists(st.tuples(*[st.booleans()] * 6), min_size=1, max_size=30))
def test_metrics_of_several_labels_are_sklearns(rows):
    rows = np.array(rows, int)
    truth, said = rows[:, :3], rows[:, 3:]
    probabilities = .2 + .6 * said
    assert (chosen(probabilities, True) == said).all()
    assert np.isclose(METRICS["accuracy"].of(truth, probabilities), accuracy_score(truth, said))
    assert np.isclose(METRICS["f1_macro"].of(truth, probabilities), f1_score(truth, said, average="macro", zero_division=0))
    assert (right_answers(truth, probabilities) == (truth == said).all(1)).all()


def test_one_half_is_enough_for_a_label_and_the_first_of_equals_wins():
    assert chosen(np.array([[.5, .49]]), several=True).tolist() == [[1, 0]]
    assert chosen(np.array([[.5, .5]])).tolist() == [0]


def test_a_metric_of_ones_own(table):
    @register_metric(needs="ordered", form="{:.0%}")
    def too_high(truth, probabilities):
        return float((probabilities.argmax(1) > truth).mean())
    entry = table["too_high"]
    assert [*table] == [*OURS, "too_high"] and entry.title == "too high" and entry.form.format(.25) == "25%" and entry.of is too_high
    assert entry in fitting(False, True) and entry not in fitting(False, False)

    @register_metric(title="too high, again")
    def too_high(truth, probabilities):
        return 0.
    assert table["too_high"].of is too_high and len(table) == len(OURS) + 1, "a cell that is run again replaces"
    assert register_metric(Metric("other", "other", too_high)) is table["other"]


@pytest.mark.parametrize("name", ["accuracy", "model", "low", "texts"])
def test_names_that_are_taken(table, name):
    with pytest.raises(ValueError, match=f"{name!r} is taken"):
        register_metric(Metric(name, "mine", lambda truth, probabilities: 0.))
    assert [*table] == OURS


@pytest.mark.parametrize("settings, message", [({"needs": "several"}, "choose one of any"), ({"form": "f"}, "no place for the value")])
def test_metrics_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Metric("mine", "mine", max, **settings)


@pytest.mark.parametrize("truth, array, message", [
    (np.zeros(2, int), np.eye(3), "row by row"), (np.zeros(3, int), np.ones(3), "row by row"), (np.zeros(0, int), np.zeros((0, 3)), "no texts"),
    (np.zeros(1, int), np.array([[np.inf, 0]]), "not finite")])
def test_arrays_that_do_not_fit(truth, array, message):
    for asked in (check_arrays, reliability, calibration_error, brier_score):
        with pytest.raises(ValueError, match=message):
            asked(truth, array)


def test_names_become_ids():
    stars = SimpleNamespace(names=["1", "2", "10"], multilabel=False)
    assert true_classes(stars, (label for label in (10, "2", 1)), 3).tolist() == [2, 1, 0]
    for labels, message in (([1, 2], "one for each"), ([[1], [2], [10]], "one for each"), ([1, 2, 3], "The label 3 is none of the student's")):
        with pytest.raises(ValueError, match=message):
            true_classes(stars, labels, 3)
    tags = SimpleNamespace(names=["a", "b"], multilabel=True)
    assert true_classes(tags, [[0., 1.]], 1).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="zeros and ones"):
        true_classes(tags, [0, 1], 2)
