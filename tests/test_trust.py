"""Temperature, agreement, slices and disagreements, against scikit-learn and by property."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from distillnb.trust import agreement, disagreements, fit_temperature, slices, trust_report

GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(0, 3, 500)
LOGITS = (GENERATOR.normal(0, 1, (500, 3)) + 2 * np.eye(3)[TRUTH]).astype(np.float32)
TEACHER = (GENERATOR.normal(0, 1, (500, 3)) + 3 * np.eye(3)[TRUTH]).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.floats(.2, 5))
def test_the_temperature_undoes_a_scale_and_lowers_the_loss(scale):
    own = fit_temperature(TRUTH, LOGITS)
    assert np.isclose(fit_temperature(TRUTH, scale * LOGITS), scale * own, rtol=.01)
    loss = lambda t: log_loss(TRUTH, softmax(LOGITS / t, axis=1))
    assert loss(own) <= min(loss(own * 1.05), loss(own / 1.05))


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
