"""A student and its direct twin start from the same weights, whatever else differs: by every door, for every student."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from distillnb.data import Splits
from distillnb.estimator import DistilledClassifier
from distillnb.experiment import Experiment
from distillnb.labelling import any_teacher
from distillnb.lesson import WAYS, build_student
from distillnb.student import architecture
from distillnb.training import epoch_rows, train

OPINIONS = ("great", "superb", "good")


def opinion(batch):
    """A teacher that looks for one word."""
    return [[.1, .9] if any(word in text for word in OPINIONS) else [.9, .1] for text in batch]


def numbers_of(model):
    """All weights by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def texts_in_order(lesson, recipe, seed, epoch):
    """The texts of an epoch as the loop deals them, each as its token ids."""
    rows = np.arange(len(lesson)) if lesson.loss.needs_teacher else lesson.labelled
    examples = recipe.examples or max(lesson.examples or len(rows), recipe.least_examples)
    return [tuple(lesson.tokens[int(row)].tolist()) for row in epoch_rows(rows, epoch, examples, recipe.shuffle, seed)]


def by_estimator(monkeypatch, student, teacher, texts, labels, transfer, **settings):
    """What `train` was called with for a student and for its twin, and what it gave."""
    calls = []

    def spy(lesson, recipe, seed, **more):
        calls.append((lesson, recipe, seed, more, train(lesson, recipe, seed, **more)))
        return calls[-1][-1]
    monkeypatch.setattr("distillnb.estimator.train", spy)
    recipe = replace(architecture(student).recipe, least_examples=1, epochs=2, batch_size=16)
    recipe = replace(recipe, sizes=recipe.sizes | {"width": 16})
    model = DistilledClassifier(student, teacher, recipe=recipe, vocab_size=400, random_state=3, **settings)
    model.fit(texts, labels, transfer=transfer)
    own = [row for row, label in enumerate(labels) if label is not None]
    twin = model.twin().fit([texts[row] for row in own], [labels[row] for row in own])
    assert twin.twin().get_params()["tokenizer"] is model.classifier_.tokenizer
    return calls


def by_experiment(monkeypatch, student, teacher, texts, labels, transfer, **settings):
    """The same by an experiment, where texts without a label are the transfer set."""
    calls = []

    def spy(lesson, recipe, seed, **more):
        calls.append((lesson, recipe, seed, more, train(lesson, recipe, seed, **more)))
        return calls[-1][-1]
    monkeypatch.setattr("distillnb.experiment.train", spy)
    recipe = replace(architecture(student).recipe, least_examples=1, epochs=2, batch_size=16)
    recipe = replace(recipe, sizes=recipe.sizes | {"width": 16})

    def frame(rows):
        return pd.DataFrame({"text": [text for text, _ in rows], "label": pd.Categorical([label for _, label in rows], teacher.names)})
    own = [(text, label) for text, label in zip(texts, labels) if label is not None]
    rest = [(text, None) for text, label in zip(texts, labels) if label is None] + [(text, None) for text in transfer or []]
    chosen = round(len(own) * settings.get("validation", 0))
    parts = Splits(frame(own[chosen:]), frame(own[:chosen]), frame([(f"{text} again", label) for text, label in own[:30]]), frame(rest))
    Experiment(parts, teacher=teacher, recipes={student: recipe}, vocab_size=400, seeds=(3,), tune=(1.,) if chosen else None,
               device="cpu", fragments=0).run(say=None)
    return calls[::-1]


DOORS = {"estimator": by_estimator, "experiment": by_experiment}


@pytest.fixture(scope="module")
def reviews(toy_reviews):
    """Texts, two classes of labels, and texts without labels that have words of their own."""
    texts = toy_reviews.text.tolist()
    labels = ["glad" if any(word in text for word in OPINIONS) else "other" for text in texts]
    return texts[:90], labels[:90], [f"{text} zebra{i}" for i, text in enumerate(texts[200:260])]


@pytest.mark.parametrize("shape", ["labels only", "transfer", "unlabelled", "transfer, unlabelled, validation"])
@pytest.mark.parametrize("kind", ["function", "bert"])
@pytest.mark.parametrize("student", ["linear", "cnn", "bilstm", "ensemble"])
@pytest.mark.parametrize("door", DOORS)
def test_a_twin_is_its_student_but_for_what_it_learns(door, student, kind, shape, reviews, tiny_bert, monkeypatch):
    texts, labels, more = reviews
    if kind == "bert":
        teacher = any_teacher(tiny_bert, device="cpu")
        labels = [{"glad": "positive", "other": "negative"}[label] for label in labels]
    else:
        teacher = any_teacher(opinion, names=["other", "glad"])
    if "unlabelled" in shape:
        missing = np.random.default_rng(len(student)).random(len(labels)) < .4
        labels = [None if gone else label for gone, label in zip(missing, labels)]
    settings = {"validation": .2} if "validation" in shape else {}
    transfer = more if "transfer" in shape else None
    one, two = DOORS[door](monkeypatch, student, teacher, texts, labels, transfer, **settings)
    (lesson, recipe, seed, how, _), (twins, twins_recipe, twins_seed, twins_how, trained) = one, two
    assert twins.loss.needs_labels and not twins.loss.needs_teacher and lesson.loss.needs_teacher
    assert (recipe, seed, lesson.letters) == (twins_recipe, twins_seed, twins.letters)
    assert (recipe.embeddings == "teacher") == (kind == "bert" and student != "linear")
    assert np.array_equal(lesson.vocabulary, twins.vocabulary)
    assert_same(numbers_of(build_student(recipe, lesson, seed)), numbers_of(build_student(recipe, twins, seed)))
    direct = WAYS["direct"].lesson(lesson)
    for epoch in range(2):
        assert texts_in_order(direct, recipe, seed, epoch) == texts_in_order(twins, recipe, seed, epoch)
        if shape == "labels only":
            assert texts_in_order(lesson, recipe, seed, epoch) == texts_in_order(twins, recipe, seed, epoch)
    if "validation" in shape:
        assert how["validation"][0].ids.tolist() == twins_how["validation"][0].ids.tolist()
        assert how["validation"][1].tolist() == twins_how["validation"][1].tolist()
    assert_same(numbers_of(train(direct, recipe, seed, **how).model), numbers_of(trained.model))


def small(student="linear", teacher=None, **settings):
    return DistilledClassifier(student, teacher, **{"epochs": 1, "vocab_size": 400} | settings)


def test_the_twin_of_a_random_seed_has_that_seed(reviews):
    texts, labels, _ = reviews
    model = small(random_state=np.random.RandomState(5)).fit(texts, labels)
    assert np.array_equal(model.twin().fit(texts, labels).predict_proba(texts), model.predict_proba(texts))


def test_a_copy_of_a_twin_is_a_student_of_its_own(reviews):
    from sklearn.base import clone
    texts, labels, more = reviews
    model = small(teacher=any_teacher(opinion, names=["other", "glad"])).fit(texts, labels, transfer=more)
    twin = model.twin()
    copy = clone(twin).fit(texts[:50], labels[:50])
    vocabularies = [one._shared.vocabulary.max() for one in (model, twin.fit(texts[:50], labels[:50]), copy)]
    assert vocabularies[0] == vocabularies[1] > vocabularies[2]


def test_the_twin_of_several_labels(reviews):
    texts, _, more = reviews
    y = np.array([["good" in text, "film" in text] for text in texts]).astype(int)
    teacher = any_teacher(lambda batch: [[.9 if "good" in text else .1, .9 if "film" in text else .1] for text in batch],
                          ["good", "film"], multilabel=True)
    model = small(teacher=teacher, classes=["good", "film"]).fit(texts, transfer=more)
    twin = model.twin().fit(texts, y)
    assert twin.multilabel_ and np.array_equal(twin._shared.vocabulary, model._shared.vocabulary)


def test_judges_are_never_learned_from(reviews, monkeypatch):
    texts, labels, _ = reviews
    lessons = []
    monkeypatch.setattr("distillnb.estimator.train", lambda lesson, *rest, **more: (lessons.append(lesson), train(lesson, *rest, **more))[1])
    model = small(teacher=any_teacher(opinion, names=["other", "glad"]), validation=20)
    model.fit(texts + texts[:30], labels + labels[:30], transfer=texts[:50])
    judges = model._shared.judges
    assert len(judges.texts) == 20 and {*judges.truth.tolist()} <= {0, 1}
    model.twin().fit(texts, labels)
    own = model.classifier_.tokenizer
    aside = {tuple(own(text)["input_ids"]) for text in judges.texts}
    for lesson in lessons:
        assert not aside & {tuple(lesson.tokens[row].tolist()) for row in range(len(lesson))}
