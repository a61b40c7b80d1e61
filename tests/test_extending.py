"""What `extension.py` adds, one new thing of each kind in a file of its own, goes through every door with no edit anywhere else."""
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from distillnb.bench import bench
from distillnb.card import write_card
from distillnb.cli import main
from distillnb.estimator import DistilledClassifier
from distillnb.experiment import Experiment
from distillnb.export import save_onnx, save_runtime
from distillnb.inference import load_student
from distillnb.labelling import KINDS
from distillnb.lesson import WAYS
from distillnb.losses import LOSSES
from distillnb.metrics import METRICS
from distillnb.runtime import load
from distillnb.shrink import fit_size
from distillnb.student import STUDENTS

HERE = Path(__file__).parent
REGISTERS = STUDENTS, WAYS, LOSSES, METRICS, KINDS


@pytest.fixture(scope="module", autouse=True)
def extension():
    """The module with the new things, which no other test shall meet."""
    before = [register.copy() for register in REGISTERS]
    sys.modules.pop("extension", None)
    yield import_module("extension")
    for register, content in zip(REGISTERS, before):
        register.clear()
        register.extend(content) if isinstance(register, list) else register.update(content)


@pytest.fixture(scope="module")
def table(toy_reviews, tmp_path_factory):
    file = tmp_path_factory.mktemp("extending") / "reviews.csv"
    toy_reviews.to_csv(file, index=False)
    return file


@pytest.fixture(scope="module")
def results(toy_reviews, extension):
    ways = ("direct", "distilled", "distilled where the teacher is sure")
    return Experiment(toy_reviews, teacher=extension.Lexicon(), students=("mean", "linear"), ways=ways, loss="absolute", labelled=150,
                      vocab_size=400, max_length=32, epochs=3, device="cpu").run(say=None)


def test_the_experiment_knows_all_of_them(results, extension, tmp_path):
    assert {run.model for run in results.runs} == {
        f"{student} {way}" for student in ("mean", "linear") for way in ("direct", "distilled", "distilled where the teacher is sure")}
    assert isinstance(results.students["mean", "distilled", 0].model, extension.MeanStudent)
    assert str(results.lesson.loss) == "AbsoluteError()"
    assert "top two" in results.table() and results.summary.top_two.between(.3, 1).all()
    assert len(results.pairs) == 4 and {"curves mean", "ladder"} <= set(results.charts())
    folder = results.save(tmp_path / "out")
    report = (folder / "report.html").read_text()
    for needed in ("mean distilled where the teacher is sure", "the texts on which the teacher leaves no doubt", "top two"):
        assert needed in report
    card = (folder / "students" / "mean-distilled" / "README.md").read_text()
    for needed in ("mean of embeddings with one hidden layer", "AbsoluteError", "top two"):
        assert needed in card


@pytest.fixture(scope="module")
def student(toy_reviews, extension):
    model = DistilledClassifier("mean", extension.Lexicon(), vocab_size=400, max_length=32, loss="absolute")
    return model.fit(toy_reviews.text[:400])


def test_the_estimator_and_a_new_process(student, toy_reviews, tmp_path):
    texts, labels = toy_reviews.text[400:].tolist(), toy_reviews.label[400:].tolist()
    assert student.score(texts, labels) > .8
    folder = student.save(tmp_path / "mean", test=(texts, labels))
    assert "top two" in (folder / "README.md").read_text()
    code = ("import sys, json, extension\nfrom distillnb.inference import load_student\n"
            "print(json.dumps(load_student(sys.argv[1], 'cpu').predict_proba(json.loads(sys.argv[2])).tolist()))")
    done = subprocess.run([sys.executable, "-c", code, folder, json.dumps(texts[:20])], cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), student.predict_proba(texts[:20]), atol=1e-6)


def test_files(student, toy_reviews, tmp_path):
    texts, one = toy_reviews.text[400:].tolist(), student.classifier_
    for save, name, bits in ((save_runtime, "32.npz", 32), (save_runtime, "8.npz", 8), (save_onnx, "32.onnx", 32), (save_onnx, "8.onnx", 8)):
        save(one, tmp_path / name, texts, bits)
        assert (np.array(load(tmp_path / name).predict(texts)) == student.predict(texts)).mean() > .98
    whole = (tmp_path / "32.npz").stat().st_size
    fit_size(one, .8 * whole / 1000, tmp_path / "small.npz", texts, agreement=.5)
    assert (tmp_path / "small.npz").stat().st_size <= .8 * whole


def test_benchmark_and_card(student, toy_reviews, tmp_path, monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)  # each form once
    texts, labels = toy_reviews.text[400:].tolist(), toy_reviews.label[400:].tolist()
    folder = student.save(tmp_path / "mean", test=(texts, labels))
    measured = bench(folder, texts, labels, seconds=.01)
    assert {"PyTorch", "numpy, 8 bits", "ONNX, 32 bits"} <= set(measured.form) and measured.accuracy.min() > .8
    assert "numpy, 8 bits" in write_card(folder).read_text()


@pytest.mark.parametrize("arguments", [
    ["distill", "--student", "mean", "--loss", "absolute", "--vocab-size", "400"],
    ["run", "--students", "mean", "--ways", "direct,distilled where the teacher is sure", "--loss", "absolute", "--vocab-size", "400"]])
def test_the_command_line(arguments, table, extension, tmp_path, capsys):
    command, *options = arguments
    status = main([command, str(table), "--import", "extension", "--teacher", "lexicon", "--output", str(tmp_path / "out"), "--device", "cpu",
                   "--epochs", "2", "--max-length", "32", *options])
    said = capsys.readouterr()
    assert status == 0, said.err
    folder = tmp_path / "out" if command == "distill" else tmp_path / "out" / "students" / "mean-distilled-where-the-teacher-is-sure"
    assert isinstance(load_student(folder, "cpu").model, extension.MeanStudent)
    assert "top two" in (folder / "README.md").read_text()
