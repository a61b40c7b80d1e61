"""Losses and the training loop against closed forms and against what has gone wrong elsewhere."""
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, mean_absolute_error

from distillnb.lesson import Lesson
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import CrossEntropy, LogitMSE, Mix, SoftCrossEntropy
from distillnb.metrics import ordered_scores, scores
from distillnb.student import Recipe
from distillnb.tokens import Tokens, batches
from distillnb.training import epoch_rows, fit, make_optimizer, predict_logits, train, train_epoch, validate


def toy(n, seed=0):
    generator = np.random.default_rng(seed)
    lengths, labels = generator.integers(3, 9, n), generator.integers(0, 3, n)
    offsets = np.concatenate([[0], lengths.cumsum()])
    ids = generator.integers(10, 60, offsets[-1]).astype(np.int32)
    ids[offsets[:-1] + generator.integers(0, lengths)] = labels + 1
    return Tokens(ids, offsets, np.zeros(n, dtype=bool), 128, 0, "toy"), labels


def student(seed=0):
    torch.manual_seed(seed)
    return LinearStudent(LinearConfig(60, 8, num_labels=3))


def lesson(tokens, labels, logits=None, loss=CrossEntropy()):
    return Lesson(["low", "middle", "high"], tokens, labels, logits, loss, vocab_size=60)


PLAIN = Recipe("linear", {"width": 8}, decay=1.0, epochs=5, least_examples=1, trim=False)  # Adam, as it happens


def learn(taught, watch=None, recipe=PLAIN, **changes):
    return train(taught, replace(recipe, **changes), watch=watch, device="cpu")


@given(st.floats(.2, 20), st.integers(2, 6), st.integers(0, 99))
def test_soft_cross_entropy_is_its_formula(temperature, classes, seed):
    generator = np.random.default_rng(seed)
    z, t = generator.normal(size=(2, 5, classes)) * 3
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True) for x in (t, z))
    expected = temperature ** 2 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    assert np.isclose(SoftCrossEntropy(temperature)(torch.tensor(z), None, torch.tensor(t)).item(), expected, rtol=1e-6, atol=1e-9)


def test_gradient_size_hardly_depends_on_temperature():
    student_logits, teacher_logits = torch.randn(2, 300, 5, generator=torch.manual_seed(0))
    sizes = []
    for temperature in (2.0, 4.0, 8.0, 16.0):
        z = student_logits.clone().requires_grad_()
        sizes.append(torch.autograd.grad(SoftCrossEntropy(temperature)(z, None, teacher_logits), z)[0].norm().item())
    assert max(sizes) / min(sizes) < 1.5


@pytest.mark.parametrize("loss", [LogitMSE(), SoftCrossEntropy(3.0), Mix(LogitMSE(), .3)])
def test_probabilities_are_refused(loss):
    logits = torch.randn(8, 4)
    with pytest.raises(ValueError, match="look like probabilities"):
        loss(logits, torch.zeros(8, dtype=torch.long), torch.randn(8, 4).softmax(1))


def test_mix_uses_true_labels_not_the_teachers_choice():
    z, t, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.isclose(Mix(LogitMSE(), 1.0)(z, labels, t), F.cross_entropy(z, labels))


@given(st.integers(1, 30), st.integers(1, 70), st.integers(1, 6), st.booleans())
def test_rows_are_dealt_evenly(n, examples, epochs, shuffle):
    rows = np.arange(n) * 3
    seen = np.concatenate([epoch_rows(rows, epoch, examples, shuffle, seed=1) for epoch in range(epochs)])
    counts = np.unique(seen, return_counts=True)[1]
    assert len(seen) == examples * epochs
    assert counts.max() - (counts.min() if len(counts) == n else 0) <= 1
    if not shuffle:
        assert np.array_equal(seen, np.resize(rows, len(seen)))


def test_scores_are_sklearns_and_skip_unknown_labels():
    generator = np.random.default_rng(0)
    labels, predictions = generator.integers(-1, 4, 500), generator.integers(0, 4, 500)
    known = labels >= 0
    result = scores(labels, predictions, 4)
    assert np.isclose(result["acc"], accuracy_score(labels[known], predictions[known]))
    assert np.isclose(result["f1_macro"], f1_score(labels[known], predictions[known], average="macro"))


def test_validation_loss_is_a_mean_over_texts_not_batches():
    tokens, labels = toy(37)
    model = student()
    torch.nn.init.normal_(model.classifier.weight)
    logits = np.concatenate([predict_logits(model, tokens[i:i + 1]) for i in range(37)])
    assert np.isclose(validate(model, tokens, labels)["loss"], F.cross_entropy(torch.tensor(logits), torch.tensor(labels)).item(), atol=1e-5)


@pytest.mark.parametrize("clip", [None, .01, 1e6])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_sparse_updates_equal_dense_ones(clip, batch_size):
    tokens, labels = toy(60)
    opinions = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    ends = []
    for sparse in (True, False):
        model = student()
        optimizer = make_optimizer(model, "sgd", .5)
        model.embedding.sparse = sparse
        train_epoch(model, lesson(tokens, labels, opinions, LogitMSE()), optimizer, batches(tokens.lengths, batch_size=batch_size), clip=clip)
        ends.append(torch.cat([model.embedding.weight.detach().flatten(), model.classifier.weight.detach().flatten()]))
    assert torch.allclose(*ends, atol=1e-5)


def test_clipping_bounds_the_step():
    tokens, labels = toy(20)
    model = student()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    train_epoch(model, lesson(tokens, labels), make_optimizer(model, "sgd", 1.0), [np.arange(20)], clip=.001)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert np.isclose((after - before).norm().item(), .001, rtol=1e-2)


def test_shuffled_subset_augmented_rows_keep_their_logits():
    """A perfect teacher is learned from whatever way the rows were reordered, dropped and repeated together."""
    tokens, labels = toy(400)
    opinions = (np.eye(3)[labels] * 4 - 1).astype(np.float32)
    rows = np.random.default_rng(1).permutation(400)[:300]
    rows = np.concatenate([rows, rows[::3]])
    test_tokens, test_labels = toy(300, seed=5)
    taught = lesson(tokens, np.full(400, -1), opinions, LogitMSE())[rows]
    history = learn(taught, (test_tokens, test_labels), epochs=6, examples=len(rows), optimizer="sgd", rate=1.0, batch_size=4).history
    assert history.test_acc.iloc[-1] > .9
    assert history.train_acc.isna().all()


def test_no_shuffle_is_the_order_given():
    tokens, labels = toy(10)
    seen = []

    class Spy(CrossEntropy):
        def __call__(self, student_logits, batch_labels, teacher_logits=None):
            seen.extend(batch_labels.tolist())
            return super().__call__(student_logits, batch_labels, teacher_logits)

    learn(lesson(tokens, labels, loss=Spy()), epochs=2, batch_size=3, shuffle=False)
    assert seen == labels.tolist() * 2


def test_interrupt_before_the_first_epoch_ends():
    class Stop(CrossEntropy):
        def __call__(self, *arguments):
            raise KeyboardInterrupt

    tokens, labels = toy(10)
    trained = learn(lesson(tokens, labels, loss=Stop()))
    assert trained.history.empty and trained.interrupted and trained.kept is None


def test_nan_names_epoch_and_step():
    tokens, labels = toy(50)
    opinions = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    with pytest.raises(FloatingPointError, match=r"epoch \d, step \d+: lower the learning rate"):
        learn(lesson(tokens, labels, opinions * 1e4, LogitMSE()), optimizer="sgd", rate=1e3, batch_size=1, epochs=3)


@pytest.mark.parametrize("logits, message", [
    (np.zeros((9, 3), np.float32), "9 logits for 10 texts"),
    (np.full((10, 3), np.nan, np.float32), "text 0 are not finite"),
    (np.full((10, 3), 1 / 3, np.float32), "look like probabilities"),
    (None, "needs the teacher's logits"),
])
def test_logits_that_do_not_fit(logits, message):
    tokens, labels = toy(10)
    with pytest.raises(ValueError, match=message):
        learn(lesson(tokens, labels, logits, LogitMSE()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("change, message", [
    ({"model": lambda: LinearStudent(LinearConfig(10, 8, num_labels=3))}, "the student knows 10"),
    ({"labels": lambda labels: labels + 5}, "num_labels=8"),
    ({"labels": lambda labels: labels * 10_000_000}, "the student has 3 classes"),
    ({"logits": np.zeros((50, 5), np.float32)}, r"\(50, 5\) for 3 classes"),
    ({"logits": np.zeros((50, 1), np.float32)}, r"\(50, 1\) for 3 classes"),
])
def test_what_does_not_fit_the_student_is_refused(optimizer, change, message):
    tokens, labels = toy(50)
    model = change["model"]() if "model" in change else student()
    bad_labels = change["labels"](labels) if "labels" in change else labels
    with pytest.raises(ValueError, match=message):
        fit(model, lesson(tokens, bad_labels, change.get("logits")), replace(PLAIN, optimizer=optimizer), device="cpu")


def test_labels_of_any_integer_kind():
    tokens, labels = toy(50)
    histories = [learn(lesson(tokens, kind), (tokens, kind), epochs=1, optimizer="sgd", rate=.1, bucket=None).history
                 for kind in (labels, labels.astype(np.int32), labels.tolist())]
    assert histories[0].equals(histories[1]) and histories[0].equals(histories[2])
    adam = learn(lesson(tokens, labels.tolist()), (tokens, np.where(labels == 0, -1, labels)), epochs=1, bucket=None).history
    assert np.isfinite(adam.test_loss).all()


def test_ctrl_c_is_heard_where_its_exception_gets_lost():
    class Swallowing(CrossEntropy):
        def __call__(self, *arguments):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(.01)
            except KeyboardInterrupt:
                pass
            return super().__call__(*arguments)

    tokens, labels = toy(20)
    trained = learn(lesson(tokens, labels, loss=Swallowing()), epochs=5)
    assert len(trained.history) == 1 and trained.interrupted
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
