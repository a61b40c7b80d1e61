"""The torch-free runtime and what export writes for it: alone in a bare interpreter, equal to PyTorch, and unimpressed by damaged files."""
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import sentences
from hypothesis import given, settings
from hypothesis import strategies as st

import distillnb.runtime
from distillnb.estimator import DistilledClassifier
from distillnb.export import Refused, save_onnx, save_runtime
from distillnb.linear import HASH, HASH_PRIME
from distillnb.shrink import fit_size

HARD = ["", " ", "good", "\u200b", "😀 très bon", "good " * 300, *sentences(30)]
KINDS = ("linear", "cnn", "bilstm", "ensemble")


@pytest.fixture(scope="module")
def students(toy_reviews):
    """One of each kind, with a tokenizer of its own, as a Classifier."""
    return {kind: DistilledClassifier(kind, epochs=1, vocab_size=400, width=20, device="cpu").fit(toy_reviews.text[:100], toy_reviews.label[:100]).classifier_
            for kind in KINDS}


@pytest.fixture(scope="module")
def files(students, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for kind, student in students.items():
        save_runtime(student, folder / f"{kind}.npz", HARD)
        save_onnx(student, folder / f"{kind}.onnx", HARD)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["npz", "onnx"])
def test_answers_are_those_of_pytorch(kind, ending, students, files):
    loaded = distillnb.runtime.load(files / f"{kind}.{ending}")
    expected = students[kind].predict_proba(HARD)
    assert loaded.names == students[kind].names
    assert abs(loaded.predict_proba(HARD) - expected).max() < 1e-4
    assert abs(np.concatenate([loaded.predict_proba([text]) for text in HARD]) - expected).max() < 1e-4, "company changes the answer"
    assert loaded.predict_proba([]).shape == (0, 3)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.text(max_size=60).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text)), min_size=1, max_size=5))
def test_any_text_gets_the_same_answer(texts, students, files):
    for kind in KINDS:
        loaded = distillnb.runtime.load(files / f"{kind}.npz")
        assert abs(loaded.predict_proba(texts) - students[kind].predict_proba(texts)).max() < 1e-4


def test_alone_without_torch_and_transformers(files, students, tmp_path):
    shutil.copy(distillnb.runtime.__file__, tmp_path / "runtime.py")  # as a service would have it
    code = """if True:
        import sys
        class Refuse:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "transformers", "pandas", "sklearn", "scipy", "distillnb"):
                    raise ImportError(name)
        sys.meta_path.insert(0, Refuse())
        from runtime import load
        import json
        print(json.dumps(load(sys.argv[1]).predict_proba(["a good film", "", "awful"]).tolist()))
        assert not {"torch", "transformers", "pandas"} & set(sys.modules)"""
    for kind in KINDS:
        done = subprocess.run([sys.executable, "-c", code, files / f"{kind}.npz"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert abs(np.array(json.loads(done.stdout)) - students[kind].predict_proba(["a good film", "", "awful"])).max() < 1e-4


def test_importing_it_from_the_package_brings_no_torch():
    code = "import sys, distillnb.runtime; sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


FIRST = Path(__file__).parent / "data" / "format1"
EXPECTED = json.loads((FIRST / "expected.json").read_text())


@pytest.mark.parametrize("name", EXPECTED["probabilities"])
def test_files_of_the_first_format_answer_as_ever(name):
    """Files that the code before programs wrote, with the answers that it gave: all kinds, trimmed, narrowed, folded, with several labels."""
    loaded = distillnb.runtime.load(FIRST / name)
    assert abs(loaded.predict_proba(EXPECTED["texts"]) - EXPECTED["probabilities"][name]).max() < 1e-6


def test_runs_are_hashed_as_in_training():
    """The runtime stands alone, so it has the numbers once more."""
    assert (distillnb.runtime.HASH, distillnb.runtime.HASH_PRIME) == (HASH, HASH_PRIME)


@pytest.mark.parametrize("ending", ["npz", "onnx"])
def test_damaged_files_are_refused_in_words(ending, files, tmp_path):
    """300 damaged files a format: a byte changed, a piece lost, a piece doubled, noise. The checksum sees them all."""
    good = (files / f"cnn.{ending}").read_bytes()
    generator, file = np.random.default_rng(0), tmp_path / f"bad.{ending}"
    for number in range(300):
        data, (first, last) = bytearray(good), sorted(generator.integers(0, len(good), 2))
        if number % 4 == 0:
            data[first] ^= 1 << int(generator.integers(8))
        elif number % 4 == 1:
            del data[first:last + 1]
        elif number % 4 == 2:
            data[first:first] = good[first:last + 1]
        else:
            data = bytearray(generator.bytes(last + 1))
        file.write_bytes(bytes(data))
        with pytest.raises(ValueError, match="bad"):
            distillnb.runtime.load(file)


def test_sealed_nonsense_is_refused_in_words(files, tmp_path):
    """200 archives with a right checksum and wrong contents, as a buggy writer would make them."""
    generator, file = np.random.default_rng(1), tmp_path / "bad.npz"
    with zipfile.ZipFile(files / "ensemble.npz") as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    refused = 0
    for number in range(200):
        changed = dict(entries)
        name = sorted(changed)[int(generator.integers(len(changed)))]
        if number % 2:
            del changed[name]
        else:
            noise = bytearray(changed[name])
            noise[int(generator.integers(len(noise)))] ^= 255
            changed[name] = bytes(noise)
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = distillnb.runtime._MARK + b"0" * 64
            for key, value in changed.items():
                archive.writestr(key, value)
        file.write_bytes(distillnb.runtime._sealed(file.read_bytes()))
        try:
            distillnb.runtime.load(file)  # another weight is another student: fine
        except ValueError as error:
            refused += "bad.npz" in str(error)
    assert refused >= 90


def test_bad_requests(students, tmp_path):
    student, file = students["linear"], tmp_path / "student.npz"
    with pytest.raises(Refused, match="was not written"):
        save_runtime(student, file, HARD, bits=8, bound=1e-9)
    with pytest.raises(Refused, match="cannot be made to fit"):
        fit_size(student, 1, file, HARD)
    for wrong, message in [({"bits": 5}, "32, 16 or 8"), ({"texts": []}, "no texts")]:
        with pytest.raises(ValueError, match=message):
            save_runtime(student, file, **{"texts": HARD} | wrong)
    assert not os.listdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        distillnb.runtime.load(file)
    with pytest.raises(TypeError, match="Give a list"):
        save_runtime(student, file, HARD)
        distillnb.runtime.load(file).predict("one text")
    with pytest.raises(TypeError, match="Text 1 is 7"):
        distillnb.runtime.load(file).predict(["one", 7])


@pytest.mark.parametrize("kind", KINDS)
def test_a_budget_is_kept(kind, students, tmp_path):
    found = fit_size(students[kind], 200, tmp_path / "small.npz", HARD, agreement=0)
    assert Path(tmp_path / "small.npz").stat().st_size <= 200_000 and found.chosen.tolist().count(True) == 1
    assert np.isfinite(distillnb.runtime.load(tmp_path / "small.npz").predict_proba(HARD)).all()
