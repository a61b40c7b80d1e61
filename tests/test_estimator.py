"""The scikit-learn estimator: scikit-learn's own checks, weights, several labels, grid searches, and what must be refused."""
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from distillnb.estimator import DistilledClassifier
from distillnb.labelling import any_teacher
from distillnb.losses import CrossEntropy, LogitMSE, Mix, SoftBinaryCrossEntropy, SoftCrossEntropy
from distillnb.student import Recipe


class Numbers(DistilledClassifier):
    """Tables of numbers, as scikit-learn's checks have them: each row becomes a text of words like c0v3."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string, tags.input_tags.one_d_array = True, False, False
        return tags

    def _words(self, X):
        return [" ".join(f"c{i}v{round(2 * float(value))}" for i, value in enumerate(row)) for row in X]

    def fit(self, X, y=None, sample_weight=None, transfer=None):
        return super().fit(self._words(validate_data(self, X)), y, sample_weight, transfer)

    def predict_proba(self, X):
        check_is_fitted(self)
        return super().predict_proba(self._words(validate_data(self, X, reset=False)))


WHY_NOT = {
    "check_sample_weight_equivalence_on_dense_data":
        "the order of the texts is random, so a weight of two is a repeated text in expectation only",
}


CHECKS = estimator_checks_generator(Numbers("linear", epochs=5, rate=.3, vocab_size=400), mark="skip", expected_failed_checks=WHY_NOT)


@pytest.mark.parametrize("check", [pytest.param((estimator, check), id=getattr(check, "func", check).__name__)
                                   for estimator, check in CHECKS])
@pytest.mark.filterwarnings("ignore")
def test_sklearn_checks(check):
    estimator, run = check
    run(estimator)


def test_only_one_check_is_excused():
    assert len(WHY_NOT) == 1


@pytest.fixture(scope="module")
def taught(toy_reviews):
    """Texts, labels, and a teacher with scikit-learn's own classes."""
    texts, labels = toy_reviews.text.tolist(), toy_reviews.label.tolist()
    return texts, labels, make_pipeline(CountVectorizer(), LogisticRegression(C=10)).fit(texts, labels)


def quick(student="linear", teacher=None, **settings):
    return DistilledClassifier(student, teacher, **{"epochs": 3, "vocab_size": 400} | settings)


@pytest.mark.parametrize("student", ["linear", "cnn", "bilstm", "ensemble"])
def test_every_student_learns_from_a_teacher_without_labels(taught, student):
    texts, labels, teacher = taught
    model = quick(student, any_teacher(teacher), epochs=5).fit(texts[:400])
    assert model.classes_.tolist() == ["negative", "neutral", "positive"]
    assert model.score(texts[400:], labels[400:]) > .8
    assert np.allclose(model.predict_proba(texts[:20]).sum(1), 1, atol=1e-5)


def test_the_teachers_class_order_does_not_matter(taught):
    texts, labels, teacher = taught
    turned = any_teacher(lambda batch: teacher.predict_proba(batch)[:, [2, 0, 1]], names=["positive", "negative", "neutral"])
    straight = quick(teacher=any_teacher(teacher)).fit(texts)
    assert np.allclose(quick(teacher=turned).fit(texts).predict_proba(texts[:50]), straight.predict_proba(texts[:50]), atol=1e-5)


def test_transfer_texts_reach_the_teacher_once_and_in_order(taught):
    texts, _, teacher = taught
    asked = []
    spy = any_teacher(lambda batch: (asked.extend(batch), teacher.predict_proba(batch))[1], names=list(teacher.classes_))
    quick(teacher=spy, epochs=1).fit(texts[:100], transfer=texts[100:180])
    assert asked == texts[:180]


def test_a_missing_label_is_the_teachers_business(taught):
    texts, labels, teacher = taught
    some = [label if i % 3 else None for i, label in enumerate(labels)]
    model = quick(teacher=any_teacher(teacher), alpha=.5).fit(texts, some)
    assert model.score(texts, labels) > .8
    with pytest.raises(ValueError, match="Text 0 has no label"):
        quick().fit(texts, some)


def test_numbers_with_nan_stay_whole_numbers(taught):
    texts, labels, teacher = taught
    ids = pd.Series([{"negative": 0, "neutral": 1, "positive": 2}[label] for label in labels], dtype=float)
    ids[5] = np.nan
    numbered = any_teacher(teacher.predict_proba, names=["0", "1", "2"])
    assert quick(teacher=numbered, alpha=.3).fit(texts, ids).classes_.tolist() == [0, 1, 2]


def test_a_weight_of_zero_is_not_seen(taught):
    texts, labels, _ = taught
    wrong = ["neutral" if label == "negative" else label for label in labels]
    both, weights = texts + texts, np.r_[np.ones(len(texts)), np.zeros(len(texts))]
    model = quick().fit(both, labels + wrong, sample_weight=weights)
    assert model.score(texts, labels) > .8


def test_balanced_weights_find_more_of_the_rare_class(taught):
    texts, labels, _ = taught
    rows = [i for i, label in enumerate(labels) if label == "positive" or label == "negative" and i % 15 == 0]
    X, y = [texts[i] for i in rows], [labels[i] for i in rows]
    rest = [text for i, text in enumerate(texts) if labels[i] == "negative" and i % 15]
    found = {str(weight): (quick(class_weight=weight, epochs=1, rate=.1).fit(X, y).predict(rest) == "negative").mean() for weight in (None, "balanced", {"negative": 30})}
    assert found["balanced"] > found["None"] and found["{'negative': 30}"] > found["None"]


def test_several_labels(taught):
    texts, labels, _ = taught
    y = np.array([[label == "positive", " film" in text] for text, label in zip(texts, labels)]).astype(int)
    model = quick("cnn", classes=["glad", "film"], epochs=6).fit(texts, y)
    assert model.multilabel_ and model.predict(texts).shape == y.shape and model.score(texts, y) > .8
    sure = any_teacher(lambda batch: [[.9 if "great" in text else .1, .9 if " film" in text else .2] for text in batch], ["great", "film"], multilabel=True)
    student = quick("cnn", sure, epochs=6).fit(texts)
    assert student.classes_.tolist() == ["film", "great"]
    assert student.predict(["the great phone", "a film is fine"]).tolist() == [[0, 1], [1, 0]]


def test_default_losses(taught):
    from distillnb.lesson import default_loss
    assert default_loss(None) == CrossEntropy() and default_loss("logits", True) == LogitMSE()
    assert default_loss("probabilities", False) == default_loss("logits", False) == SoftCrossEntropy(1.0)
    assert default_loss("probabilities", True) == SoftBinaryCrossEntropy()
    texts, labels, teacher = taught
    assert isinstance(quick(teacher=any_teacher(teacher), alpha=.5, loss=LogitMSE()).loss, LogitMSE)
    assert Mix(LogitMSE(), .5).needs_labels


def test_search_cross_validation_pipeline_clone_pickle(taught, tmp_path):
    texts, labels, teacher = taught
    table = pd.DataFrame({"text": texts, **dict(zip(teacher.classes_, teacher.predict_proba(texts).T))})
    search = GridSearchCV(quick(teacher=table), {"epochs": [1, 3], "alpha": [0, .5]}, cv=2, n_jobs=1).fit(texts, labels)
    assert search.best_score_ > .7
    with_transfer = GridSearchCV(quick(teacher=any_teacher(teacher)), {"epochs": [1]}, cv=2).fit(texts[:100], labels[:100], transfer=texts[100:])
    assert with_transfer.best_estimator_.n_texts_ == 600
    lower = FunctionTransformer(lambda batch: [text.lower() for text in batch])
    assert cross_val_score(make_pipeline(lower, quick()), texts, labels, cv=2).min() > .6
    fitted = quick(teacher=any_teacher(teacher)).fit(texts)
    copy = clone(fitted)
    assert copy.teacher is fitted.teacher and not hasattr(copy, "classes_")
    again = pickle.loads(pickle.dumps(fitted))
    loaded = DistilledClassifier.load(fitted.save(tmp_path / "student"))
    for other in (again, loaded):
        assert np.allclose(other.predict_proba(texts[:30]), fitted.predict_proba(texts[:30]), atol=1e-6)
    assert loaded.student == "linear" and loaded.classes_.tolist() == fitted.classes_.tolist()


def test_the_same_seed_gives_the_same_student(taught):
    texts, labels, _ = taught
    a, b, c = (quick(random_state=seed).fit(texts, labels).predict_proba(texts[:20]) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_a_transformers_teacher_lends_its_tokenizer_and_embeddings(taught, tiny_bert):
    texts, labels, _ = taught
    model = quick("cnn", tiny_bert, width=16).fit(texts[:100], labels[:100])
    assert len(model.classifier_.tokenizer) == 25 and model.classes_.tolist() == ["negative", "neutral", "positive"]
    own = quick("cnn", tiny_bert, tokenizer="own").fit(texts[:100])
    assert len(own.classifier_.tokenizer) > 256


@pytest.mark.parametrize("error, match, settings, X, y", [
    (ValueError, "There are no texts", {}, [], []),
    (TypeError, "Give a list", {}, "a text", ["a"]),
    (TypeError, "Text 1 is 3", {}, ["a", 3], ["x", "y"]),
    (ValueError, "array of shape", {}, np.array([["a"], ["b"]]), ["x", "y"]),
    (ValueError, "one label for each text", {}, ["a", "b"], ["x"]),
    (ValueError, "one class only", {}, ["a", "b"], ["x", "x"]),
    (ValueError, "nothing to learn from", {}, ["a", "b"], None),
    (ValueError, "sum to", {}, ["a", "b"], [[.5, .6], [.5, .5]]),
    (ValueError, "between 0", {}, ["a", "b"], [[2.5, -.6], [.5, .5]]),
    (ValueError, "NaN", {}, ["a", "b"], [[np.nan, .5], [.5, .5]]),
    (ValueError, "no student 'svm': choose from .*linear", {"student": "svm"}, ["a", "b"], ["x", "y"]),
    (ValueError, "cannot be loaded", {"tokenizer": "no/such"}, ["a", "b"], ["x", "y"]),
    (ValueError, "300 or more", {"vocab_size": 10}, ["a", "b"], ["x", "y"]),
    (ValueError, "not fitted", {"teacher": LogisticRegression()}, ["a", "b"], ["x", "y"]),
    (ValueError, "alpha", {"alpha": .5}, ["a", "b"], ["x", "y"]),
    (ValueError, "needs a teacher", {"loss": LogitMSE()}, ["a", "b"], ["x", "y"]),
])
def test_what_does_not_fit_is_refused(error, match, settings, X, y):
    with pytest.raises(error, match=match):
        DistilledClassifier(**{"student": "linear", "epochs": 1} | settings).fit(X, y)


def test_labels_that_the_teacher_does_not_know(taught):
    texts, _, teacher = taught
    with pytest.raises(ValueError, match="glad.*not among the teacher's classes"):
        quick(teacher=any_teacher(teacher)).fit(texts[:4], ["glad", "negative", "neutral", "positive"])
    with pytest.raises(ValueError, match="are not the data's"):
        quick(teacher=any_teacher(teacher), classes=["a", "b", "c"]).fit(texts[:4])
    with pytest.raises(ValueError, match="soft labels and a teacher"):
        quick(teacher=any_teacher(teacher)).fit(texts[:2], [[.5, .5], [.1, .9]])


@pytest.mark.parametrize("match, settings", [
    ("say student='cnn'", {"recipe": Recipe("cnn")}),
    ("epochs=0", {"epochs": 0}), ("epochs=-1", {"epochs": -1}), ("rate=0", {"rate": 0}),
    ("width=0", {"width": 0}), ("width=-3", {"width": -3}),
    ("random_state=-1", {"random_state": -1}), ("random_state=", {"random_state": 2 ** 64}),
    ("max_length=0", {"max_length": 0}), ("validation=1.5", {"validation": 1.5}), ("validation=-1", {"validation": -1}),
    ("tune=True", {"tune": True, "validation": 2}), ("tune=.*validation=.1", {"tune": (.3, 1)}),
    ("above 0", {"tune": (0, 1), "validation": 2}), ("names=.*there is none", {"names": ["x", "y"]}),
    ("embeddings='teacher'.*'noise'", {"embeddings": "teacher"}), ("multilabel|several labels", {"multilabel": True}),
    ("one twice", {"classes": ["x", "y", "y"]}),
])
def test_a_setting_that_cannot_be_is_named(match, settings):
    with pytest.raises(ValueError, match=match):
        quick(**settings).fit([f"a {i}" for i in range(20)], ["x", "y"] * 10)


@pytest.mark.parametrize("match, y", [
    ("MultiLabelBinarizer", [["a", "b"], ["c"], ["a"]]), ("MultiLabelBinarizer", [("a", "b"), ("c", "d"), ("a", "b")]),
    ("MultiLabelBinarizer", [{"a"}, {"b"}, {"a", "b"}]), ("MultiLabelBinarizer", np.array([["a", "b"]] * 3)),
    ("one column", {"label": ["a", "b", "a"]}), ("one column", "aba"),
    ("two kinds", ["a", 1, "1"]), ("give integers", np.array([[1., 1], [0, 1], [1, 0]])),
    ("Text 1 has no label", ["a", np.nan, "b"]), ("Text 1 has no label", pd.Series(["a", None, "b"], dtype="category")),
    ("Text 2 has no label", pd.array([1, 2, None], dtype="Int64")),
])
def test_labels_in_a_form_that_says_something_else(match, y):
    with pytest.raises(ValueError, match=match):
        quick().fit(["one", "two", "three"], y)


@pytest.mark.parametrize("table, column", [
    (pd.DataFrame({"text": ["one", "two"], "label": ["a", "b"]}), "text"), ({"review": ["one", "two"]}, "review"),
    (pd.DataFrame({"body": ["one", "two"]}), "body"),
])
def test_a_table_is_not_a_list_of_texts(table, column):
    fitted = quick(epochs=1).fit(["one", "two"], ["a", "b"])
    for call in (lambda: quick().fit(table, ["a", "b"]), lambda: fitted.predict(table),
                 lambda: quick().fit(["x", "y"], ["a", "b"], validation=(table, ["a", "b"]))):
        with pytest.raises(ValueError, match=rf"table\['{column}'\]"):
            call()
    with pytest.raises(TypeError, match="no order"):
        quick().fit({"one", "two"}, ["a", "b"])


def test_labels_in_a_form_that_can_be_read(taught):
    texts, labels, teacher = taught
    expected = quick(epochs=1).fit(texts[:60], labels[:60]).predict(texts[:20]).tolist()
    frame = pd.DataFrame({"label": pd.Categorical(labels[:60])})
    for y in (frame.label, frame.label.astype(str), np.array(labels[:60]), np.array(labels[:60], object), tuple(labels[:60])):
        assert quick(epochs=1).fit(texts[:60], y).predict(texts[:20]).tolist() == expected
    codes = quick(epochs=1).fit(texts[:60], frame.label.cat.codes)
    assert [("negative", "neutral", "positive")[code] for code in codes.predict(texts[:20])] == expected
    with pytest.raises(ValueError, match="0, 1, 2 are not among the teacher's classes"):
        quick(teacher=any_teacher(teacher)).fit(texts[:60], frame.label.cat.codes)
    nothing = quick(teacher=any_teacher(teacher), epochs=1).fit(texts[:60], [None] * 60)
    assert nothing.classes_.tolist() == ["negative", "neutral", "positive"]


def test_several_labels_as_floats_when_said_so(taught):
    texts, labels, _ = taught
    y = np.array([[label == "positive", label != "negative"] for label in labels[:60]])
    models = [quick(epochs=1, **more).fit(texts[:60], form) for form, more in [(y, {}), (y.astype(float), {"multilabel": True})]]
    assert models[1].multilabel_
    assert np.array_equal(*(model.predict_proba(texts[:20]) for model in models))
    one_hot = np.eye(2, dtype=int)[[0, 1] * 30]
    assert not quick(epochs=1, multilabel=False).fit(texts[:60], one_hot).multilabel_


def test_validation_texts_choose_epoch_and_rate(taught):
    texts, labels, teacher = taught
    model = quick(validation=.2, tune=(1e-4, 1)).fit(texts, labels)
    assert model.trained_.factor == 1 and model.n_texts_ == 480 and model.facts_.labelled == 480
    assert model.history_["kept"].sum() == 1 and model.history_["kept"][model.trained_.kept]
    assert model.history_["validation_acc"].max() == model.trained_.validation["acc"]
    given = quick(teacher=any_teacher(teacher)).fit(texts[:400], validation=(texts[400:], labels[400:]))
    assert given.n_texts_ == 400 and given.trained_.validation["acc"] > .5
    with pytest.raises(ValueError, match="400 of the validation texts are also learned from"):
        quick().fit(texts[:400], labels[:400], validation=(texts, labels))
    with pytest.raises(ValueError, match="one of the two"):
        quick(validation=.1).fit(texts[:400], labels[:400], validation=(texts[400:], labels[400:]))
    with pytest.raises(ValueError, match="validation labels glad are none"):
        quick().fit(texts[:400], labels[:400], validation=(texts[400:], ["glad"] * 200))
    with pytest.raises(ValueError, match="needs labels, and no text has one"):
        quick(teacher=any_teacher(teacher), validation=.1).fit(texts[:400])


def test_nobody_is_asked_before_all_is_checked(taught):
    texts, labels, _ = taught

    def strict(batch):
        raise AssertionError("asked too early")
    teacher = any_teacher(strict, names=["negative", "neutral", "positive"])
    for settings in ({"epochs": 0}, {"width": 0}, {"tune": (1, 3)}, {"alpha": 2}, {"embeddings": "no/such.vec"}, {"random_state": -1}):
        with pytest.raises((ValueError, FileNotFoundError)):
            quick(teacher=teacher, **settings).fit(texts, labels)
    with pytest.raises(ValueError, match="needs labels"):
        quick(teacher=teacher, loss=CrossEntropy()).fit(texts)


def test_embeddings_are_those_asked_for(taught, tiny_bert, tmp_path):
    texts, labels, _ = taught
    file = tmp_path / "vectors.txt"
    words = "bad awful poor fine okay plain good great superb film book phone the a was is very not really and".split()
    numbers = np.random.default_rng(0).normal(size=(len(words), 12)).round(3)
    file.write_text("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, numbers)))
    own = Recipe("cnn", {"width": 8}, embeddings="teacher", least_examples=1)

    def start(**settings):
        model = quick("cnn", tiny_bert, epochs=1, device="cpu", **{"recipe": own} | settings).fit(texts[:40], labels[:40])
        return model, [*model._shared.vectors], model.recipe_.embeddings
    assert start()[1:] == (["teacher"], "teacher")
    assert start(embeddings="noise")[1:] == ([], None)
    assert start(recipe=Recipe("cnn", {"width": 8}))[1:] == ([], None)
    assert start(embeddings=file)[1:] == ([str(file)], file)
    assert start(recipe=Recipe("cnn", {"width": 8}, embeddings=file))[1:] == ([str(file)], file)
    with pytest.raises(ValueError, match="32 numbers.*noise"):
        start(recipe=None, embeddings="teacher")  # 100 numbers wide
    with pytest.warns(UserWarning, match="starts from noise"):
        assert start(recipe=None)[2] is None


def test_nothing_is_tokenised_twice(taught, tiny_bert, monkeypatch):
    import distillnb.lesson
    import distillnb.teacher
    texts, labels, _ = taught
    teacher, seen = any_teacher(tiny_bert, device="cpu"), []
    for module in (distillnb.lesson, distillnb.teacher):
        monkeypatch.setattr(module, "tokenize", lambda batch, *rest, plain=module.tokenize, **more: (seen.append(len(batch)),
                                                                                                  plain(batch, *rest, **more))[1])
    quick("cnn", teacher, epochs=1).fit(texts[:40], labels[:40], transfer=texts[40:60])
    assert seen == [60]


def test_class_weights_do_not_count_what_has_no_label(taught):
    texts, labels, teacher = taught
    rows = [i for i, label in enumerate(labels) if label != "neutral"]
    some = [labels[row] if i % 3 else None for i, row in enumerate(rows)]
    student = quick(teacher=any_teacher(teacher), class_weight="balanced", epochs=1, loss=CrossEntropy())
    own = [row for row, label in zip(rows, some) if label]
    missing = student.fit([texts[row] for row in rows], some)
    without = student.twin().fit([texts[row] for row in own], [labels[row] for row in own])
    assert np.array_equal(missing.predict_proba(texts[:30]), without.predict_proba(texts[:30]))


def test_a_pickle_of_a_student_with_any_teacher(taught, tiny_bert, tmp_path):
    texts, labels, teacher = taught
    table = pd.DataFrame({"text": texts, **dict(zip(teacher.classes_, teacher.predict_proba(texts).T))})
    table.to_csv(tmp_path / "answers.csv", index=False)
    for source in (tiny_bert, table, tmp_path / "answers.csv", any_teacher(table), any_teacher(tiny_bert), any_teacher(teacher)):
        model = quick(teacher=source, epochs=1, validation=.1).fit(texts[:60], labels[:60])
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.predict_proba(texts), model.predict_proba(texts))
        assert np.array_equal(again.twin().fit(texts[:60], labels[:60])._shared.vocabulary, model._shared.vocabulary)


def test_a_loaded_student_has_no_twin(taught, tmp_path):
    texts, labels, _ = taught
    loaded = DistilledClassifier.load(quick(epochs=1).fit(texts, labels).save(tmp_path / "student"))
    with pytest.raises(ValueError, match="that was fitted"):
        loaded.twin()
