"""Any teacher: every kind of source, joins by text and id, asking once, and what must be refused."""
import io
import json
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distillnb.labelling import KINDS, any_teacher, label_texts, register_teacher
from distillnb.teacher import Teacher, check_answers, load_teacher, model_teacher, to_logits, to_probabilities

TEXTS = ["a fine film", "a bad book", "the phone is okay", "not very good"]


@pytest.fixture(scope="module")
def fitted():
    return make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, ["good", "bad", "good", "bad"])


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=st.floats(-20, 20)))
def test_probabilities_and_logits_are_inverse_but_for_the_smallest(logits):
    p = to_probabilities(logits)
    assert np.allclose(p.sum(1), 1, atol=1e-5)
    assert np.allclose(to_probabilities(to_logits(p)), p, atol=5e-4)
    assert np.allclose(to_probabilities(to_logits(to_probabilities(logits, True), True), True), to_probabilities(logits, True), atol=2e-4)
    assert np.allclose(to_logits(p).mean(1), 0, atol=1e-4)


@settings(max_examples=300)
@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=st.floats(allow_nan=True, allow_infinity=True, width=32)),
       st.sampled_from(["probabilities", "logits"]), st.booleans())
def test_whatever_passes_the_check_is_usable(answers, gives, multilabel):
    try:
        checked = check_answers(answers, len(answers), answers.shape[1], gives, multilabel)
    except ValueError as error:
        assert len(str(error)) > 30
        return
    assert checked.shape == answers.shape and np.isfinite(checked).all()
    if gives == "probabilities":
        assert checked.min() >= 0 and checked.max() <= 1
        assert multilabel or np.allclose(checked.sum(1), 1, atol=1e-5)


def test_a_folder_a_teacher_and_a_pipeline_are_the_same_teacher(tiny_bert):
    from transformers import pipeline
    own = load_teacher(tiny_bert)
    sources = [tiny_bert, str(tiny_bert), own, pipeline("text-classification", str(tiny_bert), device="cpu")]
    answers = [any_teacher(source)(TEXTS) for source in sources]
    for other in answers[1:]:
        assert np.allclose(other, answers[0], atol=1e-5)
    teacher = any_teacher(own)
    assert (teacher.names, teacher.gives, teacher.multilabel) == (["negative", "neutral", "positive"], "logits", False)
    assert np.allclose(teacher.probabilities(TEXTS).sum(1), 1, atol=1e-5) and np.allclose(teacher.logits(TEXTS), answers[0])
    pipe = pipeline("text-classification", str(tiny_bert), device="cpu", top_k=None)
    by_name = {row["label"]: row["score"] for row in pipe(TEXTS)[0]}
    assert np.allclose(teacher.probabilities(TEXTS)[0], [by_name[name] for name in teacher.names], atol=1e-5)


def test_a_multilabel_transformer_is_found_to_be_one(tiny_bert):
    own = load_teacher(tiny_bert)
    model = own.model.__class__(own.model.config.__class__(**own.model.config.to_dict() | {"problem_type": "multi_label_classification"}))
    teacher = any_teacher(model_teacher(model.eval(), own.tokenizer, own.names))
    assert teacher.multilabel and not np.allclose(teacher.probabilities(TEXTS).sum(1), 1, atol=1e-3)


class ZeroShot:
    """What a zero-shot pipeline does, without its model; made a subclass of `Pipeline` in the test."""
    task = "zero-shot-classification"

    def __init__(self):
        pass

    def __call__(self, texts, candidate_labels, multi_label):
        return [{"labels": candidate_labels[::-1], "scores": [.8, .2]} for _ in texts]


def test_zero_shot_answers_are_put_in_the_order_of_the_names():
    from transformers import Pipeline
    pipe = type("Pipe", (ZeroShot, Pipeline), {"_sanitize_parameters": None, "preprocess": None, "_forward": None, "postprocess": None})()
    assert np.allclose(any_teacher(pipe, ["x", "y"])(TEXTS), [[.2, .8]] * 4)
    with pytest.raises(ValueError, match="told the classes"):
        any_teacher(pipe)


def test_other_pipelines_and_bare_models_are_refused(tiny_bert):
    from transformers import pipeline
    with pytest.raises(ValueError, match="not a classifier"):
        any_teacher(pipeline("fill-mask", str(tiny_bert), device="cpu"))
    with pytest.raises(TypeError, match="A model alone"):
        any_teacher(load_teacher(tiny_bert).model)
    with pytest.raises(ValueError, match="Cannot load a classifier"):
        any_teacher("no-such-folder")
    with pytest.raises(FileNotFoundError, match="no such file"):
        any_teacher("no-such-file.csv")


def test_estimators(fitted):
    teacher = any_teacher(fitted)
    assert teacher.names == ["bad", "good"] and np.allclose(teacher(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6)
    assert np.allclose(any_teacher(FrozenEstimator(fitted))(TEXTS), teacher(TEXTS))
    assert any_teacher(DummyClassifier().fit(TEXTS, [0, 1, 1, 0])).names == ["0", "1"]
    with pytest.raises(ValueError, match="not fitted"):
        any_teacher(make_pipeline(CountVectorizer(), LogisticRegression()))
    assert any_teacher(fitted, names=["no", "yes"]).names == ["no", "yes"]
    with pytest.raises(ValueError, match="3 names given"):
        any_teacher(fitted, names=["bad", "good", "ugly"])
    with pytest.raises(ValueError, match="are not good, ugly"):
        any_teacher(teacher, names=["good", "ugly"])


@settings(deadline=None)
@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=12))
def test_a_table_is_joined_by_text_whatever_the_order(order, asked):
    texts, p = [f"text {i}" for i in range(6)], np.linspace(0, 1, 6)
    table = pd.DataFrame({"text": [texts[i] for i in order], "no": p[order], "yes": 1 - p[order]})
    assert np.allclose(any_teacher(table)([f" {texts[i]} " for i in asked]), np.stack([p[asked], 1 - p[asked]], 1).reshape(-1, 2), atol=1e-6)
    ids = table.assign(id=order).drop(columns="text")
    by_id = any_teacher(ids, key="id", texts=pd.DataFrame({"id": range(6), "text": texts}))
    assert np.allclose(by_id([texts[i] for i in asked]), np.stack([p[asked], 1 - p[asked]], 1).reshape(-1, 2), atol=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_files_of_answers(tmp_path, suffix):
    table = pd.DataFrame({"text": ["NA", "12", "a, \"b\"\tc", "null"], "no": [.1, .2, .3, 1], "yes": [.9, .8, .7, 0]})
    path = tmp_path / f"answers{suffix}"
    {".csv": lambda: table.to_csv(path, index=False), ".tsv": lambda: table.to_csv(path, sep="\t", index=False),
     ".jsonl": lambda: table.to_json(path, orient="records", lines=True), ".parquet": lambda: table.to_parquet(path)}[suffix]()
    assert np.allclose(any_teacher(path)(table.text.tolist()), table[["no", "yes"]], atol=1e-6)


@pytest.mark.parametrize("content, match", [
    ("", "not a table"), ("text\na\n", "one for each class"), ("text,x,y\na,.5,\n", "are not classes"), ("text,x,y\na,.5,.9\n", "sum to"),
    ("text,x,y\na,2,-1\n", "gives='logits'"), ("review,x,y\na,.5,.5\n", "no column 'text'"), ("text,x,y\na,.5,.5\na,.4,.6\n", "differ"),
    ("text,x,y\n,.5,.5\n", "has no answer"), ("text,x,label\na,.5,.5\n", "are not classes"),
])
def test_bad_tables_are_refused(tmp_path, content, match):
    path = tmp_path / "answers.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=match):
        any_teacher(path)(["a"])


def test_labelling_asks_each_text_once_and_goes_on(tmp_path, fitted):
    asked, file = [], tmp_path / "deep" / "answers.csv"

    def tired(batch):
        if len(asked) >= 20:
            raise KeyboardInterrupt
        asked.extend(batch)
        return fitted.predict_proba(batch)

    texts = [f"a fine film {i % 30}, \"quoted\"\nand broken" for i in range(60)]
    teacher = any_teacher(tired, ["bad", "good"])
    with pytest.raises(KeyboardInterrupt):
        label_texts(teacher, texts, file, block=10)
    with file.open("a") as lines:
        lines.write('"a fine film 25, ""quo')  # the machine went down here
    asked_before = len(asked)
    asked.clear()
    table = label_texts(any_teacher(lambda batch: (asked.extend(batch), fitted.predict_proba(batch))[1], ["bad", "good"]), texts, file)
    assert (asked_before, len(asked), len(set(asked))) == (20, 10, 10)
    assert table.text.tolist() == texts and np.allclose(table[["bad", "good"]], fitted.predict_proba(texts), atol=1e-5)
    assert np.allclose(any_teacher(file)(texts), fitted.predict_proba(texts), atol=1e-5)
    with pytest.raises(ValueError, match="has the columns text, bad, good"):
        label_texts(any_teacher(len, ["x", "y"]), texts, file)


def test_logits_can_be_written_too(fitted, tmp_path):
    teacher = any_teacher(lambda batch: fitted.decision_function(batch)[:, None] * [[-1, 1]], ["bad", "good"], gives="logits")
    label_texts(teacher, TEXTS, tmp_path / "a.csv", gives="logits")
    assert np.allclose(any_teacher(tmp_path / "a.csv", gives="logits").logits(TEXTS), teacher.logits(TEXTS), atol=1e-4)


@pytest.mark.parametrize("answer, match", [
    (lambda batch: None, "shape|numbers"), (lambda batch: np.ones((len(batch), 3)) / 3, "shape"), (lambda batch: [["a", "b"]] * len(batch), "not a table of numbers"),
    (lambda batch: [[np.nan, 1]] * len(batch), "NaN"), (lambda batch: [[.5, .5]], "shape"), (lambda batch: [[3., -3.]] * len(batch), "gives='logits'"),
    (lambda batch: [{"a": .5}] * len(batch), "not a table of numbers"),
])
def test_a_function_that_answers_nonsense(answer, match):
    with pytest.raises(ValueError, match=match):
        any_teacher(answer, ["a", "b"])(TEXTS)


def test_a_late_mistake_is_found_in_its_block():
    seen = []

    def late(batch):
        seen.extend(batch)
        return [[.5, .5] if len(seen) < 600 else [.9, .9]] * len(batch)
    with pytest.raises(ValueError, match="from text 512"):
        any_teacher(late, ["a", "b"])([str(i) for i in range(5_000)])
    assert len(seen) == 768


def test_the_experiment_takes_a_table(toy_reviews, tmp_path):
    from dataclasses import replace

    from distillnb.experiment import Experiment
    from distillnb.student import architecture
    good = make_pipeline(CountVectorizer(), LogisticRegression(C=10)).fit(toy_reviews.text, toy_reviews.label)
    table = label_texts(any_teacher(good), toy_reviews.text)
    notes = []
    results = Experiment(toy_reviews, teacher=table, fine_tune=False, labelled=200, cache=tmp_path, device="cpu",
                         recipes={"cnn": replace(architecture("cnn").recipe, epochs=3)}).run(notes.append)
    assert any("starts from noise" in note for note in notes)
    assert results.ladder().accuracy.iloc[-1] > .6 and "a DataFrame in memory" in results.report()
    with pytest.raises(ValueError, match="cannot be fine-tuned"):
        Experiment(toy_reviews, teacher=table, fine_tune=True, cache=tmp_path).run(None)


def test_a_clone_is_the_same_teacher(fitted):
    from sklearn.base import clone
    teacher = any_teacher(fitted)
    assert clone(teacher) is teacher and any_teacher(teacher) is teacher and isinstance(teacher, Teacher)
    assert json.dumps(teacher.names)


class Oracle:
    """A kind of teacher that only this test knows."""

    def __init__(self, word):
        self.word = word

    def ask(self, batch):
        return [[.2, .8] if self.word in text else [.9, .1] for text in batch]


def test_a_kind_of_ones_own():
    @register_teacher(lambda source: isinstance(source, Oracle))
    def make(source, wishes):
        return Teacher(wishes.names or ["no", "yes"], "probabilities", source.ask, what="the oracle")

    try:
        teacher = any_teacher(Oracle("fine"))
        assert teacher.names == ["no", "yes"] and np.allclose(teacher(TEXTS)[:2], [[.2, .8], [.9, .1]], atol=1e-6)
        assert any_teacher(Oracle("fine"), ["bad", "good"]).names == ["bad", "good"]
        assert np.array_equal(pickle.loads(pickle.dumps(teacher))(TEXTS), teacher(TEXTS))
    finally:
        KINDS.pop(0)
    with pytest.raises(TypeError, match="is not a teacher"):
        any_teacher(Oracle("fine"))


def test_the_newest_kind_is_asked_first(fitted):
    register_teacher(lambda source: source is fitted, lambda source, wishes: Teacher(["x", "y"], "probabilities", source.predict_proba))
    try:
        assert any_teacher(fitted).names == ["x", "y"]
    finally:
        KINDS.pop(0)
    assert any_teacher(fitted).names == ["bad", "good"]


def by_length(batch):
    return [[1 / (1 + len(text)), len(text) / (1 + len(text))] for text in batch]


def sources(kind, tiny_bert, fitted):
    from transformers import pipeline

    table = pd.DataFrame({"text": TEXTS, "no": .3, "yes": .7})
    return {"folder": lambda: any_teacher(tiny_bert), "pipeline": lambda: any_teacher(pipeline("text-classification", str(tiny_bert), device="cpu")),
            "table": lambda: any_teacher(table), "estimator": lambda: any_teacher(fitted),
            "function": lambda: any_teacher(by_length, ["short", "long"])}[kind]()


@pytest.mark.parametrize("kind", ["folder", "pipeline", "table", "estimator", "function"])
def test_every_kind_can_be_pickled_after_use(kind, tiny_bert, fitted):
    teacher = sources(kind, tiny_bert, fitted)
    answers = teacher.probabilities(TEXTS)
    again = pickle.loads(pickle.dumps(teacher))
    assert np.array_equal(again.probabilities(TEXTS), answers) and (again.names, again.what) == (teacher.names, teacher.what)


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_a_classifier_can_be_dumped_with_its_teacher(kind, tiny_bert, fitted):
    from distillnb.estimator import DistilledClassifier

    texts = [text + " " + end for text in TEXTS for end in ("", "a", "b")]
    teacher = any_teacher(pd.DataFrame({"text": texts, "no": .3, "yes": .7})) if kind == "table" else sources(kind, tiny_bert, fitted)
    student, file = DistilledClassifier("linear", teacher, epochs=1).fit(texts), io.BytesIO()
    joblib.dump(student, file)
    file.seek(0)
    assert np.array_equal(joblib.load(file).predict_proba(TEXTS), student.predict_proba(TEXTS))


def test_a_lambda_is_only_refused_when_pickled():
    teacher = any_teacher(lambda batch: by_length(batch), ["short", "long"])
    assert np.allclose(teacher(TEXTS), by_length(TEXTS))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda|local"):
        pickle.dumps(teacher)


def test_a_loaded_student_gives_its_logits(tiny_bert):
    from distillnb.cnn import CNNConfig, CNNStudent
    from distillnb.inference import Classifier

    model = CNNStudent(CNNConfig(vocab_size=27, width=8, filters=4, num_labels=3, initial_std=30.))
    student = Classifier(model, load_teacher(tiny_bert).tokenizer, max_length=5)
    teacher = any_teacher(student)
    assert teacher.gives == "logits" and teacher.tokenizer is student.tokenizer and teacher.answer.max_length == 5
    assert np.allclose(teacher.probabilities(TEXTS), student.predict_proba(TEXTS), atol=1e-5)
    assert np.ptp(teacher.logits(TEXTS)) > np.ptp(to_logits(student.predict_proba(TEXTS)))  # nothing is clipped
    assert any_teacher(student, ["x", "y", "z"]).names == ["x", "y", "z"]


def test_wishes_for_a_teacher_that_is_there(tiny_bert, tmp_path):
    teacher = load_teacher(tiny_bert, max_length=7)
    assert any_teacher(teacher) is teacher
    other = any_teacher(teacher, cache=tmp_path)
    assert (other.answer.cache, other.answer.max_length) == (tmp_path, 7) and other.model is teacher.model
    assert teacher.answer.cache is None


@pytest.mark.parametrize("answers", [
    lambda n: pd.DataFrame({"good": [.9] * n, "bad": [.1] * n}), lambda n: pd.DataFrame([[.1, .9]] * n),
    lambda n: __import__("torch").tensor([[.1, .9]] * n, requires_grad=True), lambda n: np.array([[.1, .9]] * n, np.float16)])
def test_frames_and_tensors_as_answers(answers):
    assert np.allclose(any_teacher(lambda batch: answers(len(batch)), ["bad", "good"])(TEXTS), [[.1, .9]] * 4, atol=1e-3)


def test_a_frame_of_other_classes():
    with pytest.raises(ValueError, match="columns a, b.*bad, good"):
        any_teacher(lambda batch: pd.DataFrame({"a": [.1] * len(batch), "b": .9}), ["bad", "good"])(TEXTS)


@pytest.mark.parametrize("names, match", [(["a", "a"], "several outputs"), (["a"], "two columns")])
def test_names_that_cannot_be_told_apart(names, match):
    for make in (lambda: any_teacher(len, names), lambda: Teacher(names, "logits", len)):
        with pytest.raises(ValueError, match=match):
            make()
