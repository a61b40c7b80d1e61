"""The cascade: its counters under many threads, its pickle, its defaults."""
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distillnb import cascade as module
from distillnb.cascade import CascadeClassifier, cascade_curve
from distillnb.labelling import any_teacher


@pytest.fixture(scope="module")
def cascade(toy_reviews):
    student = make_pipeline(CountVectorizer(max_features=12), LogisticRegression()).fit(toy_reviews.text, toy_reviews.label)
    table = pd.DataFrame({"text": toy_reviews.text, **{name: 1. * (toy_reviews.label == name) for name in sorted(set(toy_reviews.label))}})
    return CascadeClassifier(FrozenEstimator(student), any_teacher(table), budget=.5).fit(toy_reviews.text)


def test_nothing_is_lost_between_threads(cascade, toy_reviews):
    texts = toy_reviews.text.tolist()
    before, single = (cascade.answered_, cascade.asked_), cascade.predict_proba(texts)
    asked = cascade.asked_ - before[1]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(cascade.predict_proba, [texts] * 32))
    assert all(np.array_equal(one, single) for one in answers)
    assert (cascade.answered_ - before[0], cascade.asked_ - before[1]) == (33 * len(texts), 33 * asked) and 0 < asked < len(texts)


def test_a_cascade_can_be_pickled_after_use(cascade, toy_reviews):
    texts = toy_reviews.text.tolist()
    expected = cascade.predict_proba(texts)
    again = pickle.loads(pickle.dumps(cascade))
    assert np.array_equal(again.predict_proba(texts), expected) and again.answered_ == cascade.answered_ + len(texts)


def test_defaults_are_plain():
    for function in (cascade_curve, CascadeClassifier.__init__, *vars(module).values()):
        if inspect.isfunction(function):
            assert not any(isinstance(p.default, np.ndarray) for p in inspect.signature(function).parameters.values())
    truth, p = np.array([0, 1, 1]), np.array([[.9, .1], [.4, .6], [.3, .7]])
    assert np.allclose(cascade_curve(truth, p, p).share, np.linspace(0, 1, 21))
