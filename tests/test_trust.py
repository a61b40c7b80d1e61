"""Calibration, agreement, slices and disagreements, against scikit-learn and by property."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss

from distillnb.trust import agreement, brier_score, calibration_error, disagreements, fit_temperature, reliability, slices, trust_report

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(0, 3, 500)
LOGITS = (GENERATOR.normal(0, 1, (500, 3)) + 2 * np.eye(3)[TRUTH]).astype(np.float32)
TEACHER = (GENERATOR.normal(0, 1, (500, 3)) + 3 * np.eye(3)[TRUTH]).astype(np.float32)


def test_brier_score_is_that_of_scikit_learn():
    p = np.array([.1, .4, .8, .9])
    both = np.stack([1 - p, p], 1)
    assert np.isclose(brier_score(np.array([0, 1, 1, 0]), both) / 2, brier_score_loss([0, 1, 1, 0], p))


@settings(max_examples=30, deadline=None)
@given(st.floats(.2, 5))
def test_the_temperature_undoes_a_scale_and_lowers_the_loss(scale):
    own = fit_temperature(TRUTH, LOGITS)
    assert np.isclose(fit_temperature(TRUTH, scale * LOGITS), scale * own, rtol=.01)
    loss = lambda t: log_loss(TRUTH, softmax(LOGITS / t, axis=1))
    assert loss(own) <= min(loss(own * 1.05), loss(own / 1.05))


def test_a_calibrated_model_has_a_small_error():
    p = softmax(GENERATOR.normal(0, 2, (20_000, 4)), axis=1)
    truth = (p.cumsum(1) > GENERATOR.random((20_000, 1))).argmax(1)
    assert calibration_error(truth, p) < .02 < calibration_error(truth, softmax(3 * np.log(p), axis=1))
    assert reliability(truth, p).n.sum() == 20_000


def test_agreement_counts_every_text_once():
    table = agreement(TRUTH, softmax(TEACHER, axis=1), softmax(LOGITS, axis=1))
    same = (TEACHER.argmax(1) == LOGITS.argmax(1)).mean()
    assert table.n.sum() == 500 and np.isclose((table.agreement * table.n).sum() / 500, same)
    assert agreement(TRUTH, np.eye(3)[TRUTH], np.eye(3)[TRUTH]).agreement.tolist() == [1.]


def test_slices_add_up():
    lengths, rare = GENERATOR.integers(3, 50, 500), GENERATOR.integers(0, 4, 500)
    table = slices(TRUTH, TEACHER.argmax(1), LOGITS.argmax(1), list("abc"), lengths, rare)
    for _, part in table.groupby("slice"):
        assert part.n.sum() == 500
        assert np.isclose((part.difference * part.n).sum() / 500, (LOGITS.argmax(1) == TRUTH).mean() - (TEACHER.argmax(1) == TRUTH).mean())
    assert len(slices(TRUTH, TRUTH, TRUTH, list("abc"), np.full(500, 7), np.zeros(500, int))) == 3 + 1 + 1


def test_disagreements_come_worst_first():
    table = disagreements([str(i) for i in range(500)], TRUTH, softmax(TEACHER, axis=1), softmax(LOGITS, axis=1), list("abc"), 7)
    assert len(table) == 7 and table.distance.is_monotonic_decreasing and table.distance.between(0, 1).all()


def test_without_validation_texts_nothing_is_scaled():
    report = trust_report("s", ["t"] * 500, TRUTH, TEACHER, LOGITS, list("abc"), np.full(500, 5), np.zeros(500, int))
    assert report.temperature is None and report.calibration.model.tolist() == ["teacher", "student"]


@pytest.mark.parametrize("truth, logits, message", [
    (TRUTH[:9], LOGITS, "row by row"), (TRUTH, LOGITS[:, 0], "row by row"), (TRUTH[:0], LOGITS[:0], "no texts"),
    (TRUTH, np.where(LOGITS > 2, np.nan, LOGITS), "not finite")])
def test_bad_input(truth, logits, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(truth, logits)
