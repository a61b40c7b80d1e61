"""Embeddings to start from: the teacher's, and those of a file."""
import gzip

import numpy as np
import pytest
import torch
from conftest import sentences
from transformers import AutoTokenizer

from distillnb.embeddings import read_vectors, start_from, teacher_embeddings
from distillnb.lesson import WALKTHROUGH_RECIPES  # noqa: F401  imports all students
from distillnb.student import STUDENTS
from distillnb.teacher import load_classifier
from distillnb.tokens import tokenize, trim_vocabulary


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.mark.parametrize("trimmed", [True, False])
@pytest.mark.parametrize("kind", STUDENTS)
def test_every_student_can_start_from_its_teacher(kind, trimmed, tiny_bert, tokenizer):
    config, student = STUDENTS[kind].config, STUDENTS[kind].model
    rows = trim_vocabulary(tokenize(sentences(3, most=6), tokenizer), len(tokenizer)) if trimmed else None
    torch.manual_seed(0)
    model = student(config(vocab_size=len(tokenizer), width=6, num_labels=3), rows)
    before = model.embedding.weight[:model.config.vocab_size].detach().clone()
    count = start_from(model, teacher_embeddings(load_classifier(tiny_bert)[0]), scale=.3)
    after = model.embedding.weight[:model.config.vocab_size].detach()
    assert count == model.config.vocab_size - len(model.zero_rows) and not after[model.zero_rows].any()
    assert (after != before).any(1).sum() >= count and .1 < after.std() < .6


def test_vectors_keep_their_geometry(tiny_bert, tokenizer):
    """As many components as dimensions only turn the space, so distances stay in proportion."""
    vectors = teacher_embeddings(load_classifier(tiny_bert)[0])[:, :8]
    config, student = STUDENTS["cnn"].config, STUDENTS["cnn"].model
    model = student(config(vocab_size=len(tokenizer), width=8, num_labels=2))
    start_from(model, vectors)
    distance = lambda table: np.linalg.norm(table[1:, None] - table[None, 1:], axis=2)
    own, old = distance(model.embedding.weight.detach().numpy()), distance(vectors)
    assert np.allclose(own / own.max(), old / old.max(), atol=1e-4)


@pytest.mark.parametrize("header", ["2 3\n", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_word_vectors(header, zipped, tokenizer, tmp_path):
    path = tmp_path / ("v.txt.gz" if zipped else "v.txt")
    text = header + "good 1 2 3\nnobody 4 5 6\nbad -1 -2 -3.5e0 \n"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    vectors = read_vectors(path, tokenizer)
    assert vectors.shape == (len(tokenizer), 3) and np.isfinite(vectors).all(1).sum() == 2
    assert vectors[tokenizer.vocab["bad"]].tolist() == [-1, -2, -3.5]


@pytest.mark.parametrize("content, message", [
    ("", "no word"), ("good 1 2\nbad 1\n", "line 2"), ("good a b\n", "not a number"), ("1 2\ngood\n", "line 2"), ("xyzzy 1 2\n", "no word"),
    ("\x00\x01\x02", "line 1")])
def test_files_that_are_none(content, message, tokenizer, tmp_path):
    (tmp_path / "v.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_vectors(tmp_path / "v.txt", tokenizer)
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "none.txt", tokenizer)
