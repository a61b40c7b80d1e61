"""All students as transformers models: padding, loading, pipelines, the Trainer."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, pipeline

from distillnb.bilstm import BiLSTMConfig, BiLSTMStudent
from distillnb.cnn import CNNConfig, CNNStudent
from distillnb.ensemble import EnsembleConfig, EnsembleStudent
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.student import STUDENTS, Recipe, count_parameters

KINDS = {"linear": (LinearConfig, LinearStudent, {}), "linear, votes": (LinearConfig, LinearStudent, {"average": "root", "ngrams": 2, "buckets": 30}),
         "linear, by the root": (LinearConfig, LinearStudent, {"average": "root", "width": 2}), "linear, old": (LinearConfig, LinearStudent, {"average": "max_length"}),
         "cnn": (CNNConfig, CNNStudent, {"filters": 7}), "cnn, old": (CNNConfig, CNNStudent, {"filters": 7, "positions": 64}),
         "bilstm": (BiLSTMConfig, BiLSTMStudent, {"hidden": 5, "dense": 4}),
         "ensemble": (EnsembleConfig, EnsembleStudent, {"filters": 7, "buckets": 30})}


def build(kind, vocab_size=50, **more):
    config, model, sizes = KINDS[kind]
    torch.manual_seed(0)
    student = model(config(vocab_size=vocab_size, num_labels=3, **{"width": 6} | sizes, **more)).eval()
    for name, weight in student.named_parameters():
        if "classifier.weight" in name or "embedding" in name:
            torch.nn.init.normal_(weight)
    return student


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 49), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(0, 9), st.integers(0, 49))
def test_an_answer_depends_on_the_text_alone(kind, texts, more, filler):
    """Not on the batch, nor the padded width, nor what stands in the padding; tokens may equal the padding id."""
    student = build(kind)
    width = max(map(len, texts)) + more
    ids = torch.tensor([text + [filler] * (width - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    with torch.inference_mode():
        together = student(ids, mask, token_type_ids=torch.zeros_like(ids)).logits
        for row, text in enumerate(texts):
            assert torch.allclose(together[row], student(torch.tensor([text])).logits[0], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind, tmp_path):
    student = build(kind)
    student.save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)).model_type.startswith("distillnb-")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = torch.randint(0, 50, (4, 9))
    assert torch.equal(loaded(ids).logits, student(ids).logits)


@pytest.mark.parametrize("kind", ["linear", "cnn", "bilstm", "ensemble"])
def test_pipeline_and_trainer(kind, tiny_bert, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    student = build(kind, vocab_size=len(tokenizer), id2label={0: "no", 1: "maybe", 2: "yes"})
    before = [weight.detach().clone() for name, weight in student.named_parameters() if "classifier" in name]
    rows = [{"input_ids": tokenizer(text).input_ids, "labels": label} for text, label in [("good film", 2), ("bad book", 0)] * 8]
    arguments = TrainingArguments(str(tmp_path / "trainer"), num_train_epochs=1, report_to="none", use_cpu=True, disable_tqdm=True,
                                  save_strategy="no")
    Trainer(student, arguments, train_dataset=rows, processing_class=tokenizer).train()
    after = [weight for name, weight in student.named_parameters() if "classifier" in name]
    assert not any(map(torch.equal, before, after))
    student.save_pretrained(tmp_path / "student")
    tokenizer.save_pretrained(tmp_path / "student")
    classify = pipeline("text-classification", str(tmp_path / "student"), device="cpu")
    answers = classify(["good film", "a very bad book"], batch_size=2)
    assert {answer["label"] for answer in answers} <= {"no", "maybe", "yes"}
    with torch.inference_mode():
        expected = student.eval()(**tokenizer("good film", return_tensors="pt")).logits.softmax(1).max()
    assert np.isclose(answers[0]["score"], expected.item(), atol=1e-5)


def test_kim_and_joulin_in_numbers():
    """The published sizes: widths 3, 4, 5 with 100 filters on vectors of 50, and 5 classes."""
    cnn = count_parameters(CNNStudent(CNNConfig(vocab_size=119_547, num_labels=5)))
    assert cnn["without_embeddings"] == (3 + 4 + 5) * 50 * 100 + 300 + 300 * 5 + 5
    assert cnn["total"] == cnn["without_embeddings"] + 119_547 * 50
    linear = count_parameters(LinearStudent(LinearConfig(vocab_size=119_547, num_labels=5)))
    assert linear == {"total": 119_547 * 50 + 50 * 5 + 5, "without_embeddings": 255}


def test_old_average_is_thirteen_times_weaker_for_ten_tokens():
    new, old = build("linear"), build("linear, old")
    old.load_state_dict(new.state_dict())
    ids = torch.randint(1, 50, (1, 10))
    assert torch.allclose(old(ids).logits * 12.8, new(ids).logits, atol=1e-5)


def test_walkthrough_cnn_sees_the_padding():
    """With `positions` the maximum runs over windows of padding too, as an unmasked CNN on padded ids gives."""
    student = build("cnn, old")
    torch.nn.init.normal_(student.embedding.weight[0])
    ids = torch.randint(1, 50, (2, 9))
    padded = torch.zeros(2, 64, dtype=torch.long)
    padded[:, :9] = ids
    h = student.embedding(padded).transpose(1, 2)
    answers = torch.cat([convolution(h).relu().amax(2) for convolution in student.convolutions], 1)
    assert torch.allclose(student(ids).logits, student.classifier(answers), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "cnn", "bilstm", "ensemble"])
@pytest.mark.parametrize("setting, value", [
    ("width", 0), ("width", -3), ("width", 2.5), ("width", True), ("filters", 0), ("hidden", 0), ("dense", -1), ("dropout", -.1), ("dropout", 1.1),
    ("dropout", float("nan")), ("buckets", -1), ("ngrams", 0), ("positions", 0), ("initial_std", -1), ("filter_widths", ()),
    ("filter_widths", (3, 0)), ("filter_widths", 3), ("vocab_size", 0)])
def test_a_size_that_cannot_be_is_refused_by_name(kind, setting, value):
    config = STUDENTS[kind].config
    if setting in vars(config()):
        with pytest.raises(ValueError, match=setting):
            config(**{setting: value})
        if setting != "vocab_size":  # what the data decide
            with pytest.raises(ValueError, match=setting):
                Recipe(kind, sizes={setting: value})


def test_every_kind_has_a_program_that_names_its_weights():
    for kind in KINDS:
        student, state = build(kind), build(kind).state_dict()
        named = [entry[setting] for entry in student.program() for setting in ("table", "weight", "bias") if entry.get(setting)]
        assert named and {*named} <= {*state}, kind
