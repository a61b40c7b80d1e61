"""The tests against closed forms, scipy, statsmodels, and worlds whose truth is known."""
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from distillnb.metrics import METRICS, Metric, calibration_error, fitting, register_metric
from distillnb.significance import (McNemar, bootstrap_interval, confusion_posterior, mcnemar, paired_bootstrap, pooled_bootstrap,
                                    posterior_metric, probability_better, score, smallest_detectable_difference, verdict)


def twins(n, both, only_a, only_b, seed, classes=3):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, classes, n)
    case = generator.choice(4, n, p=[both, only_a, only_b, 1 - both - only_a - only_b])
    wrong = (truth + generator.integers(1, classes, n)) % classes
    return truth, np.where(case <= 1, truth, wrong), np.where(case % 2 == 0, truth, wrong)


ids = st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=2, max_size=80)


@settings(deadline=None, max_examples=50)
@given(ids)
def test_metrics_are_sklearns(rows):
    truth, a, b = np.array(rows).T
    accuracy = paired_bootstrap(truth, a, b, n_resamples=10, n_classes=4)
    f1 = paired_bootstrap(truth, a, b, "f1_macro", n_resamples=10, n_classes=4)
    assert np.isclose(accuracy.a, accuracy_score(truth, a)) and np.isclose(accuracy.b, accuracy_score(truth, b))
    assert np.isclose(f1.difference, f1_score(truth, a, average="macro", labels=range(4), zero_division=0)
                      - f1_score(truth, b, average="macro", labels=range(4), zero_division=0))


@settings(deadline=None, max_examples=50)
@given(ids)
def test_swapping_the_two_turns_everything_round(rows):
    truth, a, b = np.array(rows).T
    one, two = verdict(truth, a, b, n_classes=4), verdict(truth, b, a, n_classes=4)
    assert np.isclose(one.accuracy.difference, -two.accuracy.difference)
    assert one.mcnemar.p_value == two.mcnemar.p_value
    assert verdict(truth, a, a, n_classes=4).word == "inconclusive"
    assert one.mcnemar.only_a_right == two.mcnemar.only_b_right


@pytest.mark.parametrize("metric", ["accuracy", "f1_macro"])
def test_counting_equals_drawing_rows(metric):
    truth, a, b = twins(500, .6, .12, .08, seed=1)
    score = accuracy_score if metric == "accuracy" else lambda y, p: f1_score(y, p, average="macro", labels=range(3), zero_division=0)
    generator = np.random.default_rng(2)
    rows = [(lambda w: score(truth[w], a[w]) - score(truth[w], b[w]))(generator.integers(0, 500, 500)) for _ in range(1000)]
    counted = paired_bootstrap(truth, a, b, metric).samples
    assert abs(np.mean(rows) - counted.mean()) < 5 * np.std(rows) / np.sqrt(1000)
    assert abs(np.std(rows) / counted.std() - 1) < .12


def test_bootstrap_of_accuracy_is_binomial():
    truth = np.zeros(400, dtype=int)
    pred = (np.arange(400) < 100).astype(int)
    low, high = bootstrap_interval(truth, pred, n_resamples=50_000)
    assert np.allclose([low, high], binom.ppf([.025, .975], 400, .75) / 400, atol=.0026)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_statsmodels(seed):
    truth, a, b = twins(200, .6, .1, .05, seed)
    table = [[int((((a == truth) == x) & ((b == truth) == y)).sum()) for y in (True, False)] for x in (True, False)]
    assert np.isclose(mcnemar(truth, a, b).p_value, statsmodels_mcnemar(table, exact=True).pvalue)


def test_posterior_of_the_accuracy_is_a_beta():
    truth = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    pred = np.array([0, 0, 1, 1, 1, 1, 0, 1])
    samples = posterior_metric(confusion_posterior(truth, pred, 2, n_samples=40_000))
    exact = beta(6 + 2 / 2, 2 + 2 / 2)  # two diagonal cells and two others with a pseudo-count of one half each
    assert np.allclose(np.quantile(samples, [.05, .5, .95]), exact.ppf([.05, .5, .95]), atol=.01)


def test_probability_better_is_half_for_equals_and_independent():
    truth, a, _ = twins(1000, .6, .1, .1, seed=0)
    assert abs(probability_better(truth, a, a) - .5) < .03
    assert probability_better(truth, truth, a) > .999 > .001 > probability_better(truth, a, truth)


def test_an_interval_of_95_percent_holds_the_truth_in_95_percent():
    held = {"accuracy": 0, "f1_macro": 0, "single": 0}  # classes and errors are evenly spread, so true macro F1 is true accuracy
    for seed in range(1000):
        truth, a, b = twins(800, .6, .10, .07, seed)
        result = paired_bootstrap(truth, a, b, n_resamples=600, seed=seed)
        held["accuracy"] += result.low <= .03 <= result.high
        result = paired_bootstrap(truth, a, b, "f1_macro", n_resamples=600, seed=seed)
        held["f1_macro"] += result.low <= .03 <= result.high
        low, high = bootstrap_interval(truth, a, n_resamples=600, seed=seed)
        held["single"] += low <= .70 <= high
    for count in held.values():
        assert binom.ppf(.0005, 1000, .95) <= count <= binom.ppf(.9995, 1000, .95), held


def test_the_verdict_rarely_claims_what_is_not_there():
    claims = 0
    for seed in range(1000):
        truth, a, b = twins(600, .6, .09, .09, seed)
        result = paired_bootstrap(truth, a, b, n_resamples=600, seed=seed)
        claims += mcnemar(truth, a, b).p_value < .05 and not result.low <= 0 <= result.high
    assert claims <= binom.ppf(.9995, 1000, .05)


def test_smallest_detectable_difference_is_seen_four_times_in_five():
    n, share = 1500, .16
    size = smallest_detectable_difference(n, share)
    seen = 0
    for seed in range(400):
        truth, a, b = twins(n, .6, (share + size) / 2, (share - size) / 2, seed)
        seen += mcnemar(truth, a, b).p_value < .05
    assert .70 < seen / 400 < .88


def exact_power(n, share, difference):
    """Chance that the exact test has p < .05, over the number of deciding texts and how they fall."""
    power = 0
    for deciding in np.flatnonzero(binom.pmf(np.arange(n + 1), n, share) > 1e-9):
        falls = np.arange(deciding // 2 + 1)
        critical = falls[2 * binom.cdf(falls, deciding, .5) < .05]
        if len(critical):
            for_a = (1 + difference / share) / 2
            seen = binom.cdf(critical[-1], deciding, for_a) + binom.sf(deciding - critical[-1] - 1, deciding, for_a)
            power += binom.pmf(deciding, n, share) * seen
    return power


@pytest.mark.parametrize("n, share", [(300, .05), (300, .3), (1000, .02), (1000, .16), (4000, .16), (10_000, .3)])
def test_power_and_false_alarms_worked_out_exactly(n, share):
    assert .76 < exact_power(n, share, smallest_detectable_difference(n, share)) < .81
    assert .02 < exact_power(n, share, 0) <= .05


def test_batches_change_nothing():
    truth, a, b = twins(300, .6, .1, .07, seed=3)
    whole = np.random.default_rng(4).multinomial(300, [np.mean((a == truth) > (b == truth)), np.mean((b == truth) > (a == truth)),
                                                       np.mean((a == truth) == (b == truth))], size=20_000) / 300
    counted = paired_bootstrap(truth, a, b, n_resamples=20_001).samples
    assert len(counted) == 20_001 and len(np.unique(counted[:500])) > 10 and not np.array_equal(counted[:500], counted[500:1000])
    assert np.allclose(np.quantile(counted, [.025, .5, .975]), np.quantile(whole[:, 0] - whole[:, 1], [.025, .5, .975]), atol=1.1 / 300)


def test_many_classes_fit_in_memory():
    generator, k = np.random.default_rng(0), 77
    truth = generator.integers(0, k, 5000)
    a, b = (np.where(generator.random(5000) < share, truth, generator.integers(0, k, 5000)) for share in (.7, .6))
    tracemalloc.start()
    result = paired_bootstrap(truth, a, b, "f1_macro", n_resamples=4000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.low > 0 and peak < 150e6


def test_the_posterior_ignores_the_pairing_and_is_conservative():
    truth, a, b = twins(2000, .70, .04, .02, seed=1)
    paired = paired_bootstrap(truth, a, b).samples.std()
    unpaired = np.std([posterior_metric(confusion_posterior(truth, pred, 3, seed=i)) for i, pred in enumerate((a, b))], axis=1)
    assert np.hypot(*unpaired) > 2 * paired
    assert .5 < probability_better(truth, a, b) < 1 - paired_bootstrap(truth, a, b).p_value / 2


@pytest.mark.parametrize("settings, message", [
    ({"n_resamples": 0}, "n_resamples=0 must be at least 1"),
    ({"confidence": 95}, "confidence=95 must lie"), ({"confidence": 0}, "confidence=0 must lie"),
])
def test_impossible_settings(settings, message):
    truth, a, b = of_300(5, 2)
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(truth, a, b, **settings)
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(truth, a, **settings)


@pytest.mark.parametrize("prior", [0, -1])
def test_impossible_priors(prior):
    with pytest.raises(ValueError, match="must be above 0"):
        confusion_posterior(np.array([0, 1]), np.array([0, 1]), 2, prior=prior)


def of_300(only_a, only_b):
    """300 texts: only a right on the first few, only b on the next, both on the rest."""
    truth, place = np.arange(300) % 3, np.arange(300)
    wrong = (truth + 1) % 3
    return truth, np.where((place >= only_a) & (place < only_a + only_b), wrong, truth), np.where(place < only_a, wrong, truth)


def test_the_verdict_needs_both_tests():
    four = verdict(*of_300(4, 0))
    assert four.accuracy.low > 0 and np.isclose(four.mcnemar.p_value, .125) and four.word == "inconclusive"
    assert verdict(*of_300(6, 0)).word == "helps" and verdict(*of_300(0, 6)).word == "hurts"


def test_the_verdict_needs_an_interval_without_zero(monkeypatch):
    monkeypatch.setattr("distillnb.significance.mcnemar", lambda *_: McNemar(6, 6, .001))
    assert verdict(*of_300(6, 6)).word == "inconclusive" and verdict(*of_300(16, 0)).word == "helps"


def test_the_verdict_keeps_to_its_confidence():
    usual, strict = verdict(*of_300(20, 6)), verdict(*of_300(20, 6), confidence=.999)
    assert (usual.word, strict.word) == ("helps", "inconclusive")
    seven = verdict(*of_300(7, 0), confidence=.99)
    assert seven.accuracy.low > 0 and .01 < seven.mcnemar.p_value < .05 and seven.word == "inconclusive"
    assert strict.accuracy.low < usual.accuracy.low and strict.smallest_detectable_difference > usual.smallest_detectable_difference


def test_p_is_never_zero_and_never_above_one():
    assert paired_bootstrap(*of_300(100, 0), n_resamples=999).p_value == 2 / 1000
    assert paired_bootstrap(*of_300(0, 0), n_resamples=999).p_value == 1


@pytest.mark.parametrize("only_a, only_b, words", [
    (20, 4, ["new beats old by 5.3 points of accuracy", "on 300 texts", "McNemar p = .002", "distillation helps."]),
    (4, 20, ["new trails old by 5.3 points of accuracy", "McNemar p = .002", "distillation hurts."]),
    (9, 9, ["new ties with old", "McNemar p = 1.000", "inconclusive", "could have shown"]),
])
def test_the_sentence_and_the_row(only_a, only_b, words):
    result = verdict(*of_300(only_a, only_b), "new", "old")
    assert all(word in result.sentence for word in words), result.sentence
    row = result.row()
    assert all(np.isscalar(value) for value in row.values())
    assert (row["n"], row["only_a_right"], row["only_b_right"]) == (300, only_a, only_b)
    assert np.isclose(row["difference"], (only_a - only_b) / 300) and row["low"] <= row["difference"] <= row["high"]


@pytest.mark.parametrize("arguments", [(0, .1), (100, 1.5), (100, -.1), (100, .1, 1.), (100, .1, .95, 0.)])
def test_impossible_test_sizes(arguments):
    with pytest.raises(ValueError, match="n counts texts"):
        smallest_detectable_difference(*arguments)


@pytest.mark.parametrize("arguments, message", [
    (([0, 1], [0], [0, 1]), "shapes"), (([], [], []), "at least one test text"), (([0., 1.], [0., 1.], [1., 0.]), "must be ints"),
    (([0, -1], [0, 1], [1, 0]), "between 0 and"), (([[0]], [[0]], [[0]]), "shapes"),
    (([0, 0], [0, 0], [0, 0]), "only one class"), ((["a"], ["b"], ["a"]), "must be ints"),
])
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        verdict(*map(np.array, arguments))


def test_unknown_metric_and_too_many_classes():
    with pytest.raises(ValueError, match="choose one of accuracy, f1_macro"):
        paired_bootstrap(np.array([0, 1]), np.array([0, 1]), np.array([0, 1]), "recall")
    with pytest.raises(ValueError, match="between 0 and 1"):
        verdict(np.array([0, 2]), np.array([0, 1]), np.array([0, 1]), n_classes=2)


def method(S, n, seed, lift=0.):
    """Labels and answers of a method on `S` seeds: texts differ in ease, seeds in luck."""
    generator = np.random.default_rng([seed, S])
    y, ease = generator.integers(0, 3, n), generator.normal(.5, 1, n)
    right = ease + generator.normal(0, .04, (2, S, 1)) + np.array([lift, 0])[:, None, None] + generator.normal(0, .5, (2, S, n)) > 0
    return y, *np.where(right, y, (y + 1) % 3)


@pytest.mark.parametrize("S", [2, 3, 5])
def test_pooled_verdicts_make_few_false_claims(S):
    words = [verdict(*method(S, 400, seed)).word for seed in range(200)]
    assert sum(word != "inconclusive" for word in words) <= 18, "5 % of 200, and three standard deviations"


def test_pooled_verdicts_find_what_is_there():
    y, a, b = method(5, 3000, 0, lift=.3)
    found, turned = verdict(y, a, b), verdict(y, b, a)
    assert found.word == "helps" and turned.word == "hurts"
    assert np.isclose(found.accuracy.difference, -turned.accuracy.difference) and found.accuracy.p_value < .01
    assert np.allclose(found.accuracy.per_seed, [(one == y).mean() - (two == y).mean() for one, two in zip(a, b)])
    assert found.accuracy.low < found.accuracy.difference < found.accuracy.high


def test_one_seed_is_the_bootstrap_over_texts():
    y, a, b = method(1, 1000, 3, lift=.1)
    pooled, single = pooled_bootstrap(y, a, b), paired_bootstrap(y, a[0], b[0])
    assert np.isclose(pooled.difference, single.difference) and abs(pooled.low - single.low) < .004 and abs(pooled.high - single.high) < .004


def test_pooled_f1_and_a_method_alone():
    y, a, b = method(3, 300, 1)
    own = pooled_bootstrap(y, a, metric="f1_macro", n_resamples=500)
    assert np.isclose(own.a, np.mean([f1_score(y, row, average="macro") for row in a])) and own.low < own.a < own.high
    pair = pooled_bootstrap(y, a, b, metric="f1_macro", n_resamples=500)
    assert np.isclose(pair.difference, pair.a - pair.b)
    with pytest.raises(ValueError, match="same seeds"):
        pooled_bootstrap(y, a, b[:2])


answers = st.integers(2, 5).flatmap(lambda k: st.lists(st.tuples(*[st.integers(0, k - 1)] * 3), min_size=1, max_size=60).map(lambda rows: (k, rows)))


@settings(deadline=None, max_examples=40)
@given(answers, st.randoms(use_true_random=False))
def test_the_same_answers_have_the_same_interval_at_every_door(task, shuffler):
    k, rows = task
    truth, a, b = np.array(rows).T
    own = score("a", truth, np.eye(k)[a])
    pooled = pooled_bootstrap(truth, [a], n_classes=k)
    assert (own.low, own.high) == bootstrap_interval(truth, a, n_classes=k) == (pooled.low, pooled.high)
    assert own.accuracy == own.values["accuracy"] == pooled.a
    renamed = np.array(shuffler.sample(range(k), k))
    other = score("a", renamed[truth], np.eye(k)[renamed[a]])
    assert (own.accuracy, own.low, own.high) == (other.accuracy, other.low, other.high)
    one, two = paired_bootstrap(truth, a, b, n_classes=k), paired_bootstrap(renamed[truth], renamed[a], renamed[b], n_classes=k)
    assert (one.low, one.high, one.p_value) == (two.low, two.high, two.p_value)
    tags = score("a", np.eye(k, dtype=int)[truth], np.eye(k)[a])
    assert (own.low, own.high) == (tags.low, tags.high), "all labels right is the same as the one label right"


@settings(deadline=None, max_examples=25)
@given(answers)
def test_one_seed_is_a_row_of_several(task):
    k, rows = task
    truth, a, b = np.array(rows).T
    one, row = verdict(truth, a, b, n_classes=k), verdict(truth, a[None], b[None], n_classes=k)
    assert one.row() == row.row() and one.sentence == row.sentence
    for metric in ("accuracy", "f1_macro"):
        paired, pooled = (bootstrap(truth, a, b, metric, n_classes=k) for bootstrap in (paired_bootstrap, pooled_bootstrap))
        assert np.array_equal(paired.samples, pooled.samples)
        assert (paired.difference, paired.low, paired.high, paired.p_value) == (pooled.difference, pooled.low, pooled.high, pooled.p_value)


def test_one_seed_needs_both_tests_however_it_is_written():
    truth, a, b = of_300(4, 0)
    assert pooled_bootstrap(truth, [a], [b]).low > 0 and verdict(truth, [a], [b]).word == "inconclusive"


def test_the_sentence_and_the_row_of_several_seeds():
    truth, a, b = of_300(20, 4)
    several = verdict(truth, [a, a, a], [b, b, truth], "new", "old")
    assert "on 300 texts and 3 seeds" in several.sentence and "seed by seed +5.3, +5.3, -1.3" in several.sentence
    assert several.sentence.endswith("inconclusive.") and several.mcnemar is None
    row = several.row()
    assert all(np.isscalar(value) for value in row.values()) and row["seeds"] == 3 and row["per_seed"] == "+0.0533 +0.0533 -0.0133"
    assert {*row} < {*verdict(truth, a, b).row()}


@pytest.mark.parametrize("seeds", [(2, 3), (0, 0)])
def test_seeds_that_do_not_pair(seeds):
    with pytest.raises(ValueError, match="same seeds"):
        verdict(np.arange(4) % 2, *(np.zeros((count, 4), int) for count in seeds))


def test_a_score_has_every_fitting_metric():
    truth, probabilities = np.array([0, 1, 2, 2]), np.eye(3)[[0, 1, 1, 2]] * .7 + .1
    register_metric(Metric("first_right", "first right", lambda truth, said: said[0].argmax() == truth[0], "one label"))
    try:
        own, ordered = (score("m", truth, probabilities, order) for order in (False, True))
    finally:
        del METRICS["first_right"]
    assert [*own.values] == ["accuracy", "f1_macro", "calibration_error", "first_right"] and own.values["first_right"] == 1
    assert [*ordered.values] == ["accuracy", "f1_macro", "mae", "off_by_one", "kappa", "calibration_error", "first_right"]
    assert [*own.row()] == ["model", "texts", "accuracy", "low", "high", "f1_macro", "calibration_error", "first_right"]
    assert own.values["calibration_error"] == calibration_error(truth, probabilities) and own.accuracy == .75
    assert [*score("m", np.eye(3)[truth], probabilities).values] == [metric.name for metric in fitting(True, False)]


@pytest.mark.parametrize("truth, probabilities, message", [
    ([0, 1], np.eye(3), "one row for each text"), ([[0, 1]], np.eye(3)[:1], "one row for each text"), (0, np.eye(3)[:1], "one row for each text"),
    ([0, 1, 2], np.eye(3)[0], "one row for each text"), ([], np.zeros((0, 3)), "at least one"), ([0, 1, 3], np.eye(3), "between 0 and 2"),
    ([0, 1, -1], np.eye(3), "between 0 and 2"), (["a", "b"], np.eye(2), "must be ints"), ([0, 0], np.ones((2, 1)), "only one class"),
    ([0, 1], np.array([[1, 0], [np.nan, 1]]), "answer for text 1 is not finite"), ([[0, 2], [1, 1]], np.eye(2), "zeros and ones"),
])
def test_scores_of_what_does_not_fit(truth, probabilities, message):
    with pytest.raises(ValueError, match=message):
        score("m", truth, probabilities)
