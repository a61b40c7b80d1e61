"""Programs: a kind of student defined in this file alone goes everywhere, and a program that cannot be is refused in words."""
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WORDS, sentences
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import PretrainedConfig

import distillnb.export as export
import distillnb.runtime as runtime
from distillnb.inference import Classifier, load_student
from distillnb.shrink import _absorbing, fit_size
from distillnb.student import STUDENTS, Recipe, Student, check_numbers, register_student
from distillnb.tokens import tokenize, train_tokenizer, trim_vocabulary

TEXTS = ["", " ", "good", "good " * 60, "NOT good, not bad at all!", *sentences(30, seed=4)]


class ToyConfig(PretrainedConfig):
    model_type = "distillnb-toy"

    def __init__(self, vocab_size=500, width=12, hidden=24, initial_std=.5, tokenizer_size=None, pad_token_id=0, **kwargs):
        check_numbers(width=width, hidden=hidden)
        self.vocab_size, self.width, self.hidden, self.initial_std, self.tokenizer_size = vocab_size, width, hidden, initial_std, tokenizer_size
        super().__init__(pad_token_id=pad_token_id, **kwargs)


@register_student(ToyConfig, "mean of embeddings and a hidden layer", sizes={"hidden": 8})
class ToyStudent(Student):
    config_class = ToyConfig

    def __init__(self, config, rows=None):
        super().__init__(config, rows)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.hidden, self.classifier = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.num_labels)
        self.post_init()

    def logits(self, rows, mask):
        means = (self.embedding(rows) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.classifier(self.hidden(means).relu())

    def program(self):
        c = self.config
        return [
            {"operation": "bag", "result": "means", "table": "embedding.weight", "width": c.width},
            {"operation": "dense", "result": "units", "of": "means", "weight": "hidden.weight", "bias": "hidden.bias",
             "inputs": c.width, "outputs": c.hidden, "relu": True},
            {"operation": "dense", "result": "logits", "of": "units", "weight": "classifier.weight", "bias": "classifier.bias",
             "inputs": c.hidden, "outputs": c.num_labels}]


TOY = STUDENTS.pop("toy")  # so that no other test file meets it


@pytest.fixture(scope="module", autouse=True)
def toy_is_registered():
    STUDENTS["toy"] = TOY
    yield
    del STUDENTS["toy"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(sentences(60, seed=3), 320)


def random_student(kind, tokenizer, trimmed=False, seed=0, **sizes):
    """A student of that kind with random weights, its padding row zero as it would be after training."""
    torch.manual_seed(seed)
    rows = trim_vocabulary(tokenize(sentences(20, seed=5), tokenizer), len(tokenizer)) if trimmed else None
    config = STUDENTS[kind].config(**{"vocab_size": len(tokenizer), "id2label": dict(enumerate("abc"))} | sizes)
    model = STUDENTS[kind].model(config, rows).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=.4)
    return Classifier(model, tokenizer, 24)


@pytest.fixture
def toy(tokenizer):
    return random_student("toy", tokenizer, trimmed=True)


def test_a_new_kind_is_known_at_once():
    assert STUDENTS["toy"].recipe == Recipe("toy", sizes={"hidden": 8})
    with pytest.raises(ValueError, match="hidden=0"):
        Recipe("toy", sizes={"hidden": 0})
    with pytest.raises(ValueError, match="no size 'filters'"):
        Recipe("toy", sizes={"filters": 3})


def test_a_new_kind_is_loaded_in_a_new_process(toy, tmp_path):
    toy.save(tmp_path / "toy")
    code = ("import sys, json, test_programs\nfrom distillnb.inference import load_student\n"
            "print(json.dumps(load_student(sys.argv[1], device='cpu').predict_proba(test_programs.TEXTS).tolist()))")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "toy"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), toy.predict_proba(TEXTS), atol=1e-6)
    assert isinstance(load_student(tmp_path / "toy", device="cpu").model, ToyStudent)


@pytest.mark.parametrize("save, ending, bits", [
    (export.save_runtime, "npz", 32), (export.save_runtime, "npz", 16), (export.save_runtime, "npz", 8), (export.save_onnx, "onnx", 32),
    (export.save_onnx, "onnx", 16), (export.save_onnx, "onnx", 8)])
def test_a_new_kind_is_exported(save, ending, bits, toy, tmp_path):
    save(toy, tmp_path / f"toy.{ending}", TEXTS, bits)
    answers = runtime.load(tmp_path / f"toy.{ending}").predict_proba(TEXTS)
    assert abs(answers - toy.predict_proba(TEXTS)).max() < export.BOUNDS[bits]


def test_a_new_kind_is_shrunk(toy, tmp_path):
    whole = export.save_runtime(toy, tmp_path / "toy.npz", TEXTS)["bytes"]
    budget = .8 * whole / 1000
    found = fit_size(toy, budget, tmp_path / "small.npz", TEXTS, agreement=0)
    assert found.chosen.iloc[-1] and (tmp_path / "small.npz").stat().st_size <= budget * 1000
    assert runtime.load(tmp_path / "small.npz").predict_proba(TEXTS).shape == (len(TEXTS), 3)
    assert _absorbing(export._parts(toy).settings, "embedding.weight") == ["hidden.weight"]


SIZES = {"linear": {"ngrams": st.integers(1, 4), "buckets": st.integers(1, 40)},
         "linear, by the root": {"ngrams": st.integers(1, 4), "buckets": st.integers(1, 40)},
         "linear, padding counted": {"positions": st.integers(1, 30)},
         "cnn": {"filters": st.integers(1, 6), "filter_widths": st.lists(st.integers(1, 5), min_size=1, max_size=3)},
         "cnn, padding votes": {"filters": st.integers(1, 6), "filter_widths": st.lists(st.integers(1, 5), min_size=1, max_size=3),
                                "positions": st.integers(24, 30)},
         "bilstm": {"hidden": st.integers(1, 6), "dense": st.integers(1, 6)},
         "ensemble": {"filters": st.integers(1, 6), "filter_widths": st.lists(st.integers(1, 5), min_size=1, max_size=3),
                      "ngrams": st.integers(1, 4), "buckets": st.integers(1, 40)},
         "toy": {"hidden": st.integers(1, 6)}}


@pytest.mark.parametrize("kind", SIZES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_program_says_what_the_student_computes(kind, data, tokenizer):
    """Logits of PyTorch and of the program, for random sizes, weights and texts, written and read again."""
    sizes = {name: data.draw(sizes, label=name) for name, sizes in SIZES[kind].items()} | {"width": data.draw(st.integers(1, 7), label="width")}
    if kind == "linear, padding counted":
        sizes["average"] = "max_length"
    if kind == "linear, by the root":
        sizes["average"] = "root"
    classes = [str(number) for number in range(data.draw(st.integers(1, 5), label="classes"))]
    student = random_student(kind.split(",")[0], tokenizer, data.draw(st.booleans(), label="trimmed"), data.draw(st.integers(0, 99)),
                             id2label=dict(enumerate(classes)), **sizes)
    loaded = runtime._student(export._packed(export._parts(student), 32), "file")
    texts = data.draw(st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=4), label="texts")
    ids = [tokenizer(text, truncation=True, max_length=24).input_ids for text in texts]
    width = max(1, *map(len, ids))
    with torch.inference_mode():
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
        expected = student.model(torch.tensor([row + [0] * (width - len(row)) for row in ids]), mask).logits
    assert np.allclose(loaded.logits(texts), expected.numpy(), atol=1e-4)


def packed(parts, plain=None, entries=None):
    """The bytes of a sealed file of these parts, with another configuration, and entries of the archive changed or left out (None)."""
    with zipfile.ZipFile(io.BytesIO(export._packed(parts, 32))) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}

    def array(values):
        stream = io.BytesIO()
        np.save(stream, values, allow_pickle=True)
        return stream.getvalue()
    if plain is not None:
        members["config.npy"] = array(np.frombuffer(json.dumps(plain).encode(), np.uint8))
    members |= {f"{name}.npy": None if values is None else array(values) for name, values in (entries or {}).items()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        archive.comment = runtime._MARK + b"0" * 64
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return runtime._sealed(stream.getvalue())


def spoiled(toy, place, changes=None):
    """The configuration of the toy's file, one of its operations changed."""
    plain = json.loads(export._parts(toy).settings.text())
    plain["program"][place] |= changes or {}
    return plain


DAMAGE = {
    "an unknown operation": (0, {"operation": "attention"}, "comes from another version"),
    "an operation without a name": (0, {"operation": None}, "is not an operation"),
    "an unknown setting": (0, {"heads": 8}, "heads"),
    "an unknown weight": (1, {"weight": "other.weight"}, "other.weight.*missing"),
    "a name that leads elsewhere": (1, {"weight": "../../etc/passwd"}, "should be a name"),
    "the name of something else": (0, {"table": "config"}, "needs for itself"),
    "another width": (0, {"width": 11}, "does not fit 'means'"),
    "another width everywhere": (1, {"outputs": 23}, "does not fit 'units'"),
    "a circle": (1, {"of": "logits", "inputs": 3}, "no operation before it makes"),
    "a setting of another operation": (0, {"operation": "dense", "of": "units", "weight": "hidden.weight", "inputs": 24, "outputs": 12}, "in its operation dense"),
    "a stranger": (1, {"of": "elsewhere"}, "no operation before it makes"),
    "itself": (1, {"of": "units"}, "no operation before it makes"),
    "a result twice": (1, {"result": "means"}, "two operations"),
    "no logits": (2, {"result": "answers"}, "not with logits"),
    "classes that are not there": (2, {"outputs": 4}, "4"),
    "a weight twice": (2, {"weight": "hidden.weight", "inputs": 24}, "two operations of its program use"),
    "a table as a matrix": (2, {"weight": "embedding.weight"}, "as a table and as something else"),
    "a negative width": (0, {"width": -12}, "width is -12"), "a broken width": (0, {"width": 12.}, "width is 12.0"),
    "an absurd width": (0, {"width": 10 ** 12}, "width is"), "absurd buckets": (0, {"buckets": 2 ** 31 - 1, "ngrams": 2}, "embedding.weight has the shape"),
    "absurd runs": (0, {"ngrams": 10 ** 9, "buckets": 1}, "ngrams is"), "no buckets": (0, {"ngrams": 2}, "buckets is 0"),
    "an absurd divisor": (0, {"divide": "median"}, "divide is"), "no divisor": (0, {"divide": 0}, "divide is 0"),
    "a list for a name": (0, {"table": ["embedding.weight"]}, "should be a name"), "a word for a flag": (1, {"relu": "yes"}, "relu is"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_programs_are_refused_in_words(damage, toy):
    place, changes, message = DAMAGE[damage]
    with pytest.raises(ValueError, match=message) as caught:
        runtime._student(packed(export._parts(toy), spoiled(toy, place, changes)), "toy.npz")
    assert str(caught.value).startswith("toy.npz ")


@pytest.mark.parametrize("changes", [
    {"program": []}, {"program": None}, {"program": [[]]}, {"program": {"operation": "bag"}}, {"names": []}, {"names": "abc"}, {"names": [1, 2, 3]},
    {"multilabel": 1}, {"max_length": 0}, {"max_length": 1e9}, {"truncation_side": "middle"}, {"vocab_size": 0}, {"vocab_size": 2 ** 40},
    {"vocab_size": 10}, {"pad_row": -1}, {"pad_row": 10 ** 6}, {"format": 3}, {"format": [2]}, {"format": 1}])
def test_damaged_settings_are_refused_in_words(changes, toy):
    with pytest.raises(ValueError, match="^toy.npz "):
        runtime._student(packed(export._parts(toy), spoiled(toy, 0) | changes), "toy.npz")


def test_damaged_weights_are_refused_in_words(toy):
    parts = export._parts(toy)
    table = parts.weights["embedding.weight"]
    for entries, message in [({"hidden.weight": None}, "hidden.weight.*missing"), ({"hidden.weight": np.zeros((24, 11), np.float32)}, "(24, 12)"),
                             ({"hidden.weight": np.full((24, 12), np.nan, np.float32)}, "not finite"),
                             ({"hidden.weight": np.zeros((24, 12), np.float64)}, "float64"),
                             ({"hidden.weight": np.array([[{}]], object)}, "hidden.weight"),
                             ({"embedding.weight@scale": np.ones((3, 1), np.float16)}, "scale"),
                             ({"rows": np.full(len(parts.weights["rows"]), len(table), np.int32)}, "row numbers"),
                             ({"rows": np.zeros(3, np.int32)}, "row numbers"), ({"rows": np.zeros((3, 3), np.int32)}, "rows")]:
        with pytest.raises(ValueError, match=message) as caught:
            runtime._student(packed(parts, entries=entries), "toy.npz")
        assert str(caught.value).startswith("toy.npz ")


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["operation", "result", "table", "width", "of", "weight", "kernels", "places", "filters"]), inner, max_size=5)))
def test_nonsense_in_a_program_is_a_value_error(entry):
    for operation in (entry, *({**entry, "operation": name} for name in runtime.OPERATIONS if isinstance(entry, dict))):
        try:
            step = runtime._operation(operation)
            runtime.Settings(["a", "b"], False, 8, "right", 10, 0, [replace(step, result="logits")])
        except ValueError:
            pass


def test_windows_stay_within_bounds():
    sizes = {"operation": "windows", "result": "a", "table": "t", "width": 100, "kernels": ["k"], "places": [3], "filters": 10}
    assert runtime._operation(sizes).size == 10
    for changes in ({"places": [10 ** 6]}, {"places": [0]}, {"positions": 10 ** 9}, {"positions": 2}, {"filters": 0}, {"places": [3, 3]},
                    {"kernels": ["k", "k"], "places": [3, 3]}, {"kernels": "k"}, {"kernels": [], "places": []}):
        with pytest.raises(ValueError, match="operation windows"):
            runtime._operation(sizes | changes)


ROWS = 2 ** 29 // 48  # of twelve numbers: half a gigabyte


@pytest.fixture(scope="module")
def bomb():
    """Half a gigabyte of zeros as an array that the toy's table could be: its packed bytes, its length and its checksum."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}, 12), }}".ljust(117).encode() + b"\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
        with archive.open("bomb", "w") as file:
            file.write(b"\x93NUMPY\x01\x00\x76\x00" + header)
            for _ in range(48):
                file.write(bytes(ROWS))
        entry = archive.getinfo("bomb")
    start = entry.header_offset + 30 + len("bomb") + len(entry.extra)
    assert entry.compress_size < 2e5
    return stream.getvalue()[start:start + entry.compress_size], entry.file_size, entry.CRC


@pytest.mark.parametrize("name, told, opens", [("unused", False, True), ("embedding.weight", False, False), ("embedding.weight", True, False),
                                               ("config", False, False), ("tokenizer", False, False), ("rows", False, False)])
def test_a_bomb_is_not_unpacked(name, told, opens, bomb, toy, tmp_path):
    """A member that unpacks to half a gigabyte, needed or not, and also where the configuration tells of it."""
    plain = spoiled(toy, 0) | ({"vocab_size": ROWS} if told else {})
    with zipfile.ZipFile(io.BytesIO(packed(export._parts(toy), plain))) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.comment = runtime._MARK + b"0" * 64
        for member, data in (members | {f"{name}.npy": bomb[0]}).items():
            archive.writestr(member, data)
        entry = archive.getinfo(f"{name}.npy")
        entry.compress_type, entry.file_size, entry.CRC = zipfile.ZIP_LZMA, *bomb[1:]
    (tmp_path / "bomb.npz").write_bytes(runtime._sealed(stream.getvalue()))
    code = ("import resource, sys\nimport distillnb.runtime as runtime\nused = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "before = used()\ntry:\n    runtime.load(sys.argv[1])\n    said = 'opened'\nexcept ValueError as error:\n    said = 'refused'\n"
            "print(said, used() - before)")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "bomb.npz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, kilobytes = done.stdout.split()
    assert said == ("opened" if opens else "refused") and int(kilobytes) < 150_000, done.stdout
