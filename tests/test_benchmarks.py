"""The original's way, as the benchmarks have it, computes what our faithful settings compute; so the ratios compare like with like."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import original
from benchmarks.__main__ import main
from distillnb.cnn import CNNConfig, CNNStudent
from distillnb.kernels import sgd_epoch
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import CrossEntropy
from distillnb.tokens import Tokens

ROOT = Path(__file__).parent.parent


def texts(n):
    generator = np.random.default_rng(0)
    lengths = generator.integers(5, 129, n)
    ids = generator.integers(1, 300, lengths.sum()).astype(np.int32)
    return Tokens(ids, np.append(0, lengths.cumsum()), np.zeros(n, dtype=bool), 128, 0, "toy"), generator.integers(0, 3, n)


def test_linear_epoch():
    tokens, labels = texts(60)
    plain, ours = original.Linear(300, 3), LinearStudent(LinearConfig(300, num_labels=3, average="max_length"))
    ours.embedding.weight.data.copy_(plain.embedding.weight.data)
    original.train_epoch(plain, original.loader(tokens, labels, 1), torch.optim.SGD(plain.parameters(), lr=.5))
    sgd_epoch(ours, tokens, CrossEntropy(), np.arange(60), 1, np.full(60, .5), labels)
    assert torch.allclose(plain.embedding.weight, ours.embedding.weight, atol=1e-6)
    assert torch.allclose(plain.classifier.weight, ours.classifier.weight, atol=1e-6)


def test_cnn_logits():
    tokens, labels = texts(20)
    plain, ours = original.CNN(300, 3), CNNStudent(CNNConfig(300, num_labels=3, positions=128)).eval()
    ours.embedding.load_state_dict(plain.embedding.state_dict())
    ours.classifier.load_state_dict(plain.classifier.state_dict())
    for a, b in zip(plain.convolutions, ours.convolutions):
        b.weight.data.copy_(a.weight.data[:, 0].transpose(1, 2))
        b.bias.data.copy_(a.bias.data)
    input_ids, mask = (torch.from_numpy(array) for array in tokens.padded(range(20)))
    with torch.no_grad():
        assert torch.allclose(original.predict(plain, original.loader(tokens, labels, 8)), ours(input_ids, mask).logits, atol=1e-5)


def test_the_page_finds_what_it_shows():
    results = json.loads((ROOT / "benchmarks" / "results.json").read_text())
    assert set(results) == {"machine", "linear", "cnn", "teacher", "inference", "growth"}
    assert [row["texts"] for row in results["growth"]] == [1_000, 10_000, 100_000, 1_000_000]


def test_a_wrong_section_is_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "speed"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2 and "there is no section 'speed'" in capsys.readouterr().err
