"""What people would pick instead of a student of ours: how each is trained, what must be shipped, how it answers."""

import copy
import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from itertools import product
from pathlib import Path

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from distillnb.baselines import tfidf_features

LESSONS = ("labels", "teacher's classes")
MAX_KB = 300  # of a student's small file
REGULARISATION = (1, 3, 10, 30)  # C of the logistic regressions
FACTORS = (.3, 1., 3.)  # of the learning rates of model2vec and of our students
FASTTEXT = {"wordNgrams": 2, "minn": 2, "maxn": 5, "thread": 1, "verbose": 0}  # one thread: the same again next time
FASTTEXT_GRID = ((.1, 5), *product((.5, 1.), (25, 50)))  # rates and epochs: its defaults, and its tutorial's range
FASTTEXT_CUTOFFS = {"ftz": 100_000, "ftz, small": 2_500}  # rows kept: its quantization example's, and about MAX_KB


@dataclass(frozen=True, eq=False)
class Task:
    "What a peer learns from."
    lesson: str  # one of `LESSONS`
    texts: list[str]  # to learn from, [n]
    classes: np.ndarray  # ids of their classes, as the lesson has them, [n]
    validation: list[str]  # texts that choose settings, [m]
    truth: np.ndarray  # ids of their classes, [m]
    encoder: Path  # folder of the sentence encoder that became the teacher
    teacher: object  # the fine-tuned one, a `Teacher`
    results: object  # of the experiment, with our students
    note: Callable  # told what had to be left out
    shared: dict  # what all tasks of a set have in common
    chosen: list = field(default_factory=list)  # the setting that the first seed chose, for the others
    seed: int = 0  # of weights and order


@dataclass(frozen=True, eq=False)
class Peer:
    "One way to have a classifier of texts."
    name: str  # in tables and pictures
    fit: Callable  # (task, folder) -> seconds, or None to be timed; writes a folder of what is shipped for each form
    load: Callable  # folder of a form -> function of a list of texts that gives class ids; found again by its name
    needs: tuple[str, ...] = ()  # modules that have to be there
    seeded: bool = False  # whether another seed gives another one
    lessons: tuple[str, ...] = LESSONS  # what it can learn from

    @property
    def missing(self) -> list[str]:
        "The modules that are not installed."
        return [name for name in self.needs if find_spec(name) is None]


PEERS: dict[str, Peer] = {}


def register(
    name: str,  # of the peer
    load: Callable,  # as `Peer.load`
    **more,  # the other fields of `Peer`
) -> Callable:
    "Have every comparison try one more peer; the function below is its `fit`."
    def decorator(fit: Callable) -> Callable:
        PEERS[name] = Peer(name, fit, load, **more)
        return fit
    return decorator


def tuned(
    task: Task,  # whose validation texts choose; it remembers what they chose
    options: Iterable,  # settings to choose from
    make: Callable,  # of one of them -> model
    answers: Callable,  # of a model -> class ids of the validation texts
):  # the best model, the first of those that are equal
    "Try each setting on the first seed; later seeds take the one that was chosen."
    options, best, most, kept = task.chosen or list(options), None, -1., None
    for option in options:
        model = make(option)
        right = float(np.mean(answers(model) == task.truth)) if len(options) > 1 else 0.
        if right > most:
            best, most, kept = model, right, option
    task.chosen[:] = [kept]
    return best


def _regression(task: Task, vectors, known):
    "Logistic regression on vectors of the texts; `known` are those of the validation texts."
    return tuned(task, REGULARISATION, lambda c: LogisticRegression(C=c, max_iter=1000).fit(vectors, task.classes),
                 lambda model: model.predict(known))


# tf-idf

def _load_pickle(folder: Path) -> Callable:
    return joblib.load(folder / "model.joblib").predict


def _tfidf(features: Callable, task: Task, folder: Path) -> None:
    "Tf-idf and logistic regression, as one compressed pickle."
    vectorizer = features()
    vectors = vectorizer.fit_transform(task.texts)
    model = make_pipeline(vectorizer, _regression(task, vectors, vectorizer.transform(task.validation)))
    (folder / "pickle").mkdir()
    joblib.dump(model, folder / "pickle" / "model.joblib", compress=3)


_words = partial(TfidfVectorizer, ngram_range=(1, 2), sublinear_tf=True)
register("tf-idf words", _load_pickle)(partial(_tfidf, _words))
register("tf-idf words and letters", _load_pickle)(partial(_tfidf, tfidf_features))


# fastText

def _line(text: str) -> str:
    "A text as fastText's tutorial prepares it: lower case, punctuation apart."
    return " ".join(re.sub(r"([.!?,'/()])", r" \1 ", text).lower().split())


def _fasttext_ids(model, texts: list[str]) -> np.ndarray:
    "Class ids of texts; the first label's for a text without a word."
    found = model.predict([_line(text) for text in texts])[0]
    return np.array([int((labels or model.labels)[0].removeprefix("__label__")) for labels in found])


def _open_fasttext(file: Path):
    import fasttext
    fasttext.FastText.eprint = lambda text: None
    return fasttext.load_model(str(file))


def _load_fasttext(folder: Path) -> Callable:
    return partial(_fasttext_ids, _open_fasttext(next(folder.iterdir())))


@register("fastText", _load_fasttext, needs=("fasttext",), seeded=True)
def _fasttext(task: Task, folder: Path) -> None:
    "The C++ with runs of words and of letters: whole, quantized as its documentation does it, and smaller still."
    from fasttext import train_supervised
    file, whole = str(folder / "train.txt"), folder / "bin" / "model.bin"
    lines = (f"__label__{label} {_line(text)}\n" for label, text in zip(task.classes, task.texts))
    Path(file).write_text("".join(lines), encoding="utf-8")

    def make(option: tuple):
        return train_supervised(file, lr=option[0], epoch=option[1], seed=task.seed, **FASTTEXT)
    best = tuned(task, FASTTEXT_GRID, make, lambda model: _fasttext_ids(model, task.validation))
    whole.parent.mkdir()
    best.save_model(str(whole))
    (rate, epochs), = task.chosen
    for form, rows in FASTTEXT_CUTOFFS.items():
        model = _open_fasttext(whole)  # -1: zero would be taken as not said
        model.quantize(file, qnorm=True, retrain=True, cutoff=rows, lr=rate, epoch=epochs, thread=1, verbose=-1)
        (folder / form).mkdir()
        model.save_model(str(folder / form / "model.ftz"))


# model2vec

def _load_model2vec(folder: Path) -> Callable:
    from model2vec.inference import StaticModelPipeline
    pipeline = StaticModelPipeline.from_pretrained(str(folder))
    return lambda texts: np.asarray(pipeline.predict(texts)).astype(int)


def _static(task: Task, of_teacher: bool) -> tuple:
    "Static vectors of the encoder, or of the teacher that it became, and the seconds that they took; once a set."
    from model2vec.distill import distill_from_model
    from transformers import AutoModel, AutoTokenizer
    key, start = f"static vectors {of_teacher}", time.perf_counter()
    if key not in task.shared:
        if of_teacher:
            model, tokenizer = copy.deepcopy(task.teacher.model.base_model), task.teacher.tokenizer
        else:
            model, tokenizer = AutoModel.from_pretrained(task.encoder), AutoTokenizer.from_pretrained(task.encoder)
        task.shared[key] = distill_from_model(model, tokenizer), time.perf_counter() - start
    return task.shared[key]


def _model2vec(of_teacher: bool, task: Task, folder: Path) -> float:
    "Static vectors and its own classifier, fine-tuned together: in 32 bits, and with its own 8-bit integers."
    from model2vec.inference import StaticModelPipeline
    from model2vec.model import quantize_model
    from model2vec.train import StaticModelForClassification
    known = np.isin(task.truth, task.classes)
    judges = {"X_val": [text for text, keep in zip(task.validation, known) if keep],
              "y_val": task.truth[known].tolist()}
    with redirect_stderr(StringIO()):  # a bar for each epoch
        (static, seconds), start = _static(task, of_teacher), time.perf_counter()

        def make(factor: float):
            return StaticModelForClassification.from_static_model(model=static).fit(
                task.texts, task.classes.tolist(), learning_rate=1e-3 * factor, random_seed=task.seed, **judges)
        best = tuned(task, FACTORS, make, lambda model: np.asarray(model.predict(task.validation)).astype(int))
        pipeline = best.to_pipeline()
        pipeline.save_pretrained(str(folder / "32 bits"))
        small = quantize_model(pipeline.model, quantize_to="int8")
        StaticModelPipeline(small, pipeline.head).save_pretrained(str(folder / "8 bits"))
    return seconds + time.perf_counter() - start


for _name, _of_teacher in (("model2vec", False), ("model2vec of the teacher", True)):
    register(_name, _load_model2vec, needs=("model2vec",), seeded=True)(partial(_model2vec, _of_teacher))


# The encoder itself

def _encode(folder: Path, device: str | None = None) -> Callable:
    "Function of texts that gives the mean of their tokens' vectors, of length one, [n, D]."
    from sentence_transformers import SentenceTransformer
    encoder = SentenceTransformer(str(folder), device=device)
    return partial(encoder.encode, normalize_embeddings=True, show_progress_bar=False)


def _load_frozen(folder: Path) -> Callable:
    encode, head = _encode(folder / "encoder", "cpu"), joblib.load(folder / "head.joblib")
    return lambda texts: head.predict(encode(texts))


@register("MiniLM frozen", _load_frozen, needs=("sentence_transformers",))
def _frozen(task: Task, folder: Path) -> None:
    "The encoder as it is, and logistic regression on its vectors."
    encode = _encode(task.encoder)
    head = _regression(task, encode(task.texts), encode(task.validation))
    shutil.copytree(task.encoder, folder / "model" / "encoder", ignore=shutil.ignore_patterns("*.md"))
    joblib.dump(head, folder / "model" / "head.joblib")


def _load_teacher(folder: Path) -> Callable:
    from distillnb.inference import Classifier
    from distillnb.teacher import load_classifier
    classifier = Classifier(*load_classifier(folder))
    return lambda texts: classifier.predict_proba(texts).argmax(1)


@register("teacher", _load_teacher, lessons=LESSONS[:1])
def _teacher(task: Task, folder: Path) -> float:
    "The fine-tuned encoder. No time is given, since the experiment may have had it in its cache."
    from distillnb.inference import Classifier
    if task.teacher.names != task.results.names:
        raise ValueError(f"its classes {task.teacher.names} are not in the order of {task.results.names}")
    Classifier(task.teacher.model, task.teacher.tokenizer).save(folder / "model")
    return float("nan")


# Our students

def _load_student(folder: Path) -> Callable:
    from distillnb.runtime import load
    student = load(folder / "student.npz", 1)
    return lambda texts: student.predict_proba(texts).argmax(1)


def _student(name: str, task: Task, folder: Path) -> float:
    "A student that the experiment has trained: whole, and in a file of `MAX_KB`."
    from distillnb.export import Refused, save_runtime
    from distillnb.lesson import Run
    from distillnb.shrink import fit_size
    run = Run(name, ("direct", "distilled")[LESSONS.index(task.lesson)], task.seed)
    trained, classifier = task.results.students[run], task.results.classifier(run)
    small = folder / f"{MAX_KB} kB" / "student.npz"
    task.chosen[:] = [trained.factor]
    save_runtime(classifier, folder / "whole" / "student.npz", task.validation)
    try:
        fit_size(classifier, MAX_KB, small, task.validation, corpus=task.texts)
    except Refused as error:
        task.note(f"{run.model}, seed {run.seed}: no file of {MAX_KB} kB. {error}")
    return trained.seconds


def student_peers(
    results,  # `Results` of an experiment
) -> list[Peer]:
    "A peer for each kind of student."
    kinds = dict.fromkeys(run.student for run in results.runs)
    return [Peer(f"student {name}", partial(_student, name), _load_student, seeded=True) for name in kinds]


def answer() -> None:
    "In a process of its own: load what is shipped, answer all texts, and again three times by the processor's clock."
    order = json.load(sys.stdin)
    model = getattr(import_module(order["module"]), order["load"])(Path(order["folder"]))
    ids, times = model(order["texts"]), []
    for _ in range(3):
        start = time.process_time()
        model(order["texts"])
        times.append(time.process_time() - start)
    print(json.dumps({"ids": np.asarray(ids).tolist(), "seconds": min(times)}))
