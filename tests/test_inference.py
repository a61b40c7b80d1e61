"""A saved student answers: the same in bulk, alone, from a generator, through the pipeline, and with a trimmed vocabulary."""
import numpy as np
import pytest
import torch
from conftest import WORDS, sentences
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from distillnb.bilstm import BiLSTMConfig, BiLSTMStudent
from distillnb.cnn import CNNConfig, CNNStudent
from distillnb.ensemble import EnsembleConfig, EnsembleStudent
from distillnb.inference import Classifier, load_student
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.tokens import load_tokens, tokenize, trim_vocabulary

NAMES = ["bad", "fine", "great"]


@pytest.fixture(scope="module")
def tokenizer(tiny_bert):
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(params=["linear", "linear n-grams", "cnn", "cnn padded to 40", "bilstm", "ensemble"])
def student(request, tokenizer):
    rows = trim_vocabulary(tokenize(sentences(20, most=6), tokenizer), len(tokenizer))
    torch.manual_seed(0)
    names = {"id2label": dict(enumerate(NAMES))}
    model = {"linear": lambda: LinearStudent(LinearConfig(**names), rows),
             "linear n-grams": lambda: LinearStudent(LinearConfig(ngrams=2, buckets=50, **names), rows),
             "cnn": lambda: CNNStudent(CNNConfig(**names), rows),
             "cnn padded to 40": lambda: CNNStudent(CNNConfig(positions=40, **names), rows),
             "bilstm": lambda: BiLSTMStudent(BiLSTMConfig(**names), rows),
             "ensemble": lambda: EnsembleStudent(EnsembleConfig(**names), rows)}[request.param]()
    for name, weight in model.named_parameters():
        if "classifier.weight" in name:
            torch.nn.init.normal_(weight)
    return model


def test_the_same_answer_on_every_way(student, tokenizer, tmp_path):
    texts = sentences(150, seed=1) + ["", "word nobody knows", WORDS[0]]
    classifier = Classifier(student, tokenizer, max_length=16)
    bulk = classifier.predict_proba(texts)
    assert bulk.shape == (153, 3) and np.allclose(bulk.sum(1), 1, atol=1e-5)
    assert np.allclose(bulk, classifier.predict_proba((text for text in texts), block=11), atol=1e-5)
    assert np.allclose(bulk[140:], np.concatenate([classifier.predict_proba([text]) for text in texts[140:]]), atol=1e-5)
    loaded = load_student(classifier.save(tmp_path), device="cpu")
    assert loaded.max_length == 16 and loaded.names == NAMES
    assert np.allclose(bulk, loaded.predict_proba(np.array(texts, dtype=object)), atol=1e-5)
    answers = pipeline("text-classification", str(tmp_path), device="cpu")(texts[:150], truncation=True)
    assert [answer["label"] for answer in answers] == classifier.predict(texts[:150])
    assert np.allclose([answer["score"] for answer in answers], bulk[:150].max(1), atol=1e-5)


def test_a_trimmed_student_survives_saving(student, tokenizer, tmp_path):
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(loaded.rows, student.rows) and loaded.config.tokenizer_size == len(tokenizer)
    assert not loaded.embedding.weight[:2].any()  # padding, and what was never seen
    assert len(loaded.embedding.weight) < len(tokenizer) + loaded.config.to_dict().get("buckets", 0)


def test_a_teacher_answers_too(tiny_bert):
    classifier = load_student(tiny_bert, device="cpu")
    assert classifier.predict_proba(sentences(5)).shape == (5, 3)


@pytest.mark.parametrize("texts, message", [("one text", "Give a list"), (["fine", 3], "Text 1 is 3"), (["fine"] * 9 + [None], "Text 9 is None")])
def test_what_is_no_list_of_texts(student, tokenizer, texts, message):
    with pytest.raises(TypeError, match=message):
        Classifier(student, tokenizer).predict_proba(texts, block=4)


def test_no_student_in_the_folder(tmp_path):
    with pytest.raises(ValueError, match="does not hold a saved student"):
        load_student(tmp_path)


def test_tokens_from_a_generator_go_straight_to_disk(tokenizer, tmp_path):
    texts = sentences(300)
    expected = tokenize(texts, tokenizer, max_length=9)
    streamed = tokenize((text for text in texts), tokenizer, max_length=9, folder=tmp_path / "store", block=32)
    assert isinstance(streamed.ids, np.memmap) and streamed.fingerprint == expected.fingerprint
    assert np.array_equal(streamed.truncated, expected.truncated) and expected.truncated.any()
    assert load_tokens(tmp_path / "store").fingerprint == expected.fingerprint
    with pytest.raises(TypeError, match="Text 40 is None"):
        tokenize((text for text in [*texts[:40], None]), tokenizer, folder=tmp_path / "broken", block=16)
    with pytest.raises(FileNotFoundError):
        load_tokens(tmp_path / "broken")


def test_tokenising_leaves_the_tokenizer_as_it_was(tokenizer):
    tokenizer(["a b"], truncation=True, max_length=4, padding="max_length")
    before = tokenizer.backend_tokenizer.to_str()
    tokenize(["a long text of many words"], tokenizer, max_length=3)
    assert tokenizer.backend_tokenizer.to_str() == before
