"""The fast paths against the plain ones: the linear student's SGD, the CNN's way back and its answers, with and without numba."""
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb import cnn, machine
from distillnb.cnn import CNNConfig, CNNStudent
from distillnb.kernels import adagrad_epoch, sgd_epoch
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import CrossEntropy, LogitMSE, Mix, SoftCrossEntropy
from distillnb.tokens import Tokens, trim_vocabulary
from distillnb.lesson import Lesson
from distillnb.student import Recipe
from distillnb.training import fit, make_optimizer, predict_logits, train_epoch

LOSSES = [CrossEntropy(), LogitMSE(), SoftCrossEntropy(3.0), Mix(LogitMSE(), .4), Mix(SoftCrossEntropy(2.0), .7), Mix(LogitMSE(), 1.0)]
KINDS = [{}, {"average": "max_length", "positions": 40}, {"ngrams": 2, "buckets": 30}, {"ngrams": 4, "buckets": 7}]


def texts(n, vocabulary=50, seed=0, empty=False):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0 if empty else 1, 12, n)
    ids = generator.integers(0, vocabulary, lengths.sum()).astype(np.int32)
    return Tokens(ids, np.append(0, lengths.cumsum()), np.zeros(n, dtype=bool), 40, 0, "toy")


def autograd_epoch(model, tokens, loss, order, batch_size, rate, labels, logits):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for start in range(0, len(order), batch_size):
        rows = order[start:start + batch_size]
        input_ids, mask = (torch.from_numpy(array) for array in tokens.padded(rows))
        value = loss(model(input_ids, mask).logits, torch.from_numpy(labels[rows]), torch.from_numpy(logits[rows]))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def furthest(a, b):
    return max((p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters()))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LOSSES), st.sampled_from(KINDS), st.integers(1, 9), st.booleans(), st.booleans(), st.integers(0, 999))
def test_steps_by_hand_are_those_of_autograd(loss, options, batch_size, trimmed, empty, seed):
    generator, tokens = np.random.default_rng(seed), texts(40, seed=seed, empty=empty)
    labels, logits = generator.integers(-1, 3, 40), generator.normal(size=(40, 3)).astype(np.float32)
    order = generator.integers(0, 40, 50)  # rows may repeat
    rows = trim_vocabulary(tokens[:20], 50) if trimmed else None

    def fresh():
        torch.manual_seed(seed)
        return LinearStudent(LinearConfig(50, 6, num_labels=3, **options), rows)

    plain = fresh()
    autograd_epoch(plain, tokens, loss, order, batch_size, .3, labels, logits)
    for compiled in (True, False):
        by_hand = fresh()
        _, predictions = sgd_epoch(by_hand, tokens, loss, order, batch_size, np.full(-(-50 // batch_size), .3), labels, logits, compiled=compiled)
        assert furthest(plain, by_hand) < 1e-5
        assert set(predictions.tolist()) <= {0, 1, 2}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(LOSSES), st.sampled_from([{"average": "root"}, {"average": "root", "width": 2}, {}, {"average": "root", "ngrams": 3, "buckets": 30}]),
       st.integers(0, 60), st.booleans(), st.booleans(), st.integers(0, 999))
def test_adagrad_by_hand_is_that_of_torch(loss, options, letters, trimmed, empty, seed):
    """Votes and vectors, with letters and without, over two epochs, and what is answered when the letters have been let go."""
    generator, tokens = np.random.default_rng(seed), texts(30, seed=seed, empty=empty)
    labels, logits = generator.integers(-1, 3, 30), generator.normal(size=(30, 3)).astype(np.float32)
    rows = trim_vocabulary(tokens[:20], 50) if trimmed else None
    order, rates = generator.integers(0, 30, 40), np.full(40, .1, np.float32)

    def fresh():
        torch.manual_seed(seed)
        model = LinearStudent(LinearConfig(50, num_labels=3, **{"width": 6} | options), rows)
        if letters:
            model.learn_letters([f"<{word}>" for word in "ab abc bcd abcd e".split() * 10], letters)
        return model, make_optimizer(model, "adagrad", .1)
    (plain, by_torch), (hand, by_hand) = fresh(), fresh()
    lesson = Lesson(["a", "b", "c"], tokens, labels, logits, loss, vocab_size=50)
    for _ in range(2):
        told = train_epoch(plain, lesson, by_torch, [order[[place]] for place in range(40)], rates)
        value, _ = adagrad_epoch(hand, tokens, loss, order, rates, labels, logits, by_hand)
        assert furthest(plain, hand) < 1e-3 and np.isclose(value, told["loss"], atol=1e-3)
    before = predict_logits(hand, tokens)
    hand.settle()
    assert np.allclose(predict_logits(hand, tokens), before, atol=1e-4) and hand.embedding.weight.shape[0] == (
        hand.config.vocab_size + hand.config.buckets)


def test_sgd_by_hand_is_refused_where_it_is_not_written():
    with pytest.raises(ValueError, match="adagrad"):
        sgd_epoch(LinearStudent(LinearConfig(50, 6, "root", num_labels=3)), texts(5), CrossEntropy(), [0], 1, [.1], np.zeros(5, int))


def test_reported_loss_and_predictions_are_those_before_each_step():
    tokens, labels = texts(30), np.arange(30) % 3
    for compiled in (True, False):
        torch.manual_seed(0)
        model = LinearStudent(LinearConfig(50, 6, num_labels=3))
        torch.nn.init.normal_(model.classifier.weight)
        expected = predict_logits(model, tokens)
        loss, predictions = sgd_epoch(model, tokens, CrossEntropy(), np.arange(30), 30, np.zeros(1), labels, compiled=compiled)
        assert np.isclose(loss, torch.nn.functional.cross_entropy(torch.from_numpy(expected), torch.from_numpy(labels)).item(), rtol=1e-5)
        assert np.array_equal(predictions, expected.argmax(1))


def test_memory_mapped_tokens_and_logits_train_like_those_in_memory(tmp_path):
    from distillnb.tokens import load_tokens, save_tokens
    tokens, logits = texts(60), np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    save_tokens(tokens, tmp_path)
    np.save(tmp_path / "logits.npy", logits)
    models = []
    for store, answers in ((tokens, logits), (load_tokens(tmp_path), np.load(tmp_path / "logits.npy", mmap_mode="r"))):
        torch.manual_seed(0)
        models.append(LinearStudent(LinearConfig(50, 6, num_labels=3)))
        sgd_epoch(models[-1], store, LogitMSE(), np.arange(60), 1, np.full(60, .1), np.full(60, -1), answers)
    assert furthest(*models) == 0


def test_threads_learn_the_same_lesson():
    tokens = texts(3000, vocabulary=30)
    truth = np.array([(tokens[i] == 7).any() for i in range(3000)], dtype=int)
    torch.manual_seed(0)
    model = LinearStudent(LinearConfig(30, 6, num_labels=2))
    recipe = Recipe("linear", {}, "sgd", .5, decay=1.0, batch_size=1, epochs=5, threads=3)
    trained = fit(model, Lesson(["no", "yes"], tokens, truth), recipe, watch=(tokens, truth), device="cpu")
    assert trained.history.test_acc.iloc[-1] > .97


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 90), st.booleans(), st.booleans(), st.integers(0, 999))
def test_the_cnn_is_its_convolutions(widths, n, trimmed, left, seed):
    tokens = texts(n, seed=seed, empty=True)
    rows = trim_vocabulary(texts(9, seed=seed), 50) if trimmed else None
    input_ids, mask = (torch.from_numpy(array) for array in tokens.padded(range(n), 12))
    if left:  # padding on the left
        order = torch.arange(12) - (12 - mask.sum(1, keepdim=True))
        input_ids, mask = input_ids.gather(1, order.clamp(min=0)), order >= 0
    both = []
    for module in (cnn.numba, None):
        with patch.object(cnn, "numba", module):
            torch.manual_seed(seed)
            model = CNNStudent(CNNConfig(50, 5, filter_widths=widths, filters=3, num_labels=2, dropout=0), rows)
            torch.nn.init.normal_(model.embedding.weight)  # the padding's row too: it must not matter
            logits = model(input_ids, mask).logits
            (logits * torch.linspace(-1, 1, 2)).square().sum().backward()
            both.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for a, b in zip(*both):
        assert torch.allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["embedding.weight", "convolutions.0.weight", "convolutions.1.bias"])
def test_a_broken_weight_shows_in_the_answers(part):
    tokens = texts(20)
    model = CNNStudent(CNNConfig(50, 5, filter_widths=(1, 2), filters=3, num_labels=2))
    with torch.no_grad():
        model.get_parameter(part)[..., 0] = torch.nan
    assert np.isnan(predict_logits(model, tokens)).all()


def test_training_a_cnn_is_the_same_with_and_without_numba(monkeypatch):
    tokens, labels = texts(200), np.arange(200) % 3
    histories = []
    for module in (cnn.numba, None):
        monkeypatch.setattr(cnn, "numba", module)
        torch.manual_seed(0)
        model = CNNStudent(CNNConfig(50, 8, filters=6, num_labels=3))
        recipe = Recipe("cnn", rate=1e-2, decay=1.0, epochs=2, least_examples=1)
        taught = Lesson(["a", "b", "c"], tokens, labels)
        histories.append(fit(model, taught, recipe, watch=(tokens, labels), device="cpu").history)
    for column in ("train_loss", "test_loss"):
        assert np.allclose(histories[0][column], histories[1][column], atol=1e-4)


WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import numpy as np
from distillnb.kernels import adagrad_epoch, sgd_epoch
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import LogitMSE
from distillnb.tokens import Tokens
tokens = Tokens(np.arange(60, dtype=np.int32) % 50, np.arange(0, 61, 3), np.zeros(20, bool), 40, 0, "toy")
model, logits = LinearStudent(LinearConfig(50, 6, num_labels=3)), np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
for compiled in (None, True):
    try:
        print(sgd_epoch(model, tokens, LogitMSE(), np.arange(20), 1, np.full(20, .1), np.full(20, -1), logits, compiled=compiled)[0] > 0)
    except ValueError as error:
        print(error)
"""


def test_without_numba():
    result = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], capture_output=True, text=True)
    done, refused = result.stdout.splitlines()
    assert done == "True" and 'pip install "distillnb[fast]"' in refused, result.stderr


def test_loops_compile_where_nothing_can_be_kept(monkeypatch):
    class Numba:
        @staticmethod
        def njit(cache=False, **options):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return lambda function: (function, options)
    monkeypatch.setattr(machine, "numba", Numba)
    function, options = machine.machine_code(len)
    assert function is len and options["nogil"]


@pytest.mark.filterwarnings("ignore")
def test_a_recorded_cnn_answers_other_texts_and_masks_with_holes():
    torch.manual_seed(0)
    model = CNNStudent(CNNConfig(50, 5, filter_widths=(1, 3), filters=3, num_labels=2)).eval()
    torch.nn.init.normal_(model.classifier.weight)
    one, other, mask = *torch.randint(1, 50, (2, 1, 9)), torch.ones(1, 9, dtype=torch.bool)
    traced = torch.jit.trace(model, (one, mask), strict=False)
    assert torch.allclose(traced(other, mask)["logits"], model(other, mask).logits, atol=1e-6)
    hole = mask.clone()
    hole[0, 4] = False
    with patch.object(cnn, "numba", None):
        expected = model(one, hole).logits
    assert torch.equal(model(one, hole).logits, expected)
    with torch.autocast("cpu"):
        assert model(one, mask).logits.isfinite().all()
