"""The command line as its users meet it: what it prints where, and one line for each mistake."""
import contextlib
import csv
import dataclasses
import inspect
import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from distillnb import cli
from distillnb.cli import main
from distillnb.tables import read_table

COMMAND = [sys.executable, "-c", "import sys; from distillnb.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def table(toy_reviews, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    toy_reviews.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def run(table, tiny_bert, tmp_path_factory):
    """One finished run, its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    command = [*COMMAND, "run", table, "--teacher", tiny_bert, "--epochs", "1", "--labelled", "200",
               "--output", folder / "out", "--cache", folder / "cache", "--device", "cpu"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=os.environ | {"TQDM_DISABLE": ""})
    assert result.returncode == 0, result.stderr
    return folder / "out", result


def command(folder, *arguments, input=""):
    """The command in this process, which has PyTorch already."""
    out, err, stdin = (io.TextIOWrapper(io.BytesIO(text), "utf-8") for text in (b"", b"", input.encode()))
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch("sys.stdin", stdin):
        status = main(list(map(str, arguments)))
    out.flush(), err.flush()
    return subprocess.CompletedProcess(arguments, status, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def inside(capsys, *words):
    """The same where we are: exit status, standard output and standard error."""
    capsys.readouterr()
    done = command(".", *words)
    return done.returncode, done.stdout, done.stderr


def fails(capsys, *arguments):
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("distillnb: error: ")]
    assert status == 2 and len(lines) == 1 and "Traceback" not in captured.err and captured.out == ""
    return lines[0]


def test_results_on_stdout_progress_on_stderr(run):
    folder, result = run
    assert "cnn distilled" in result.stdout and "steps/s" not in result.stdout
    assert "asking it about" in result.stderr and "rows read" in result.stderr
    *verdicts, last = result.stdout.strip().splitlines()[-7:]
    names = ("linear", "cnn", "ensemble")
    assert [line.split(" distilled")[0] for line in verdicts] == [*names] * 2, "beside the twin, and beside the best baseline"
    students = {path.name for path in (folder / "students").iterdir()}
    assert students == {f"{name}-{way}" for name in names for way in ("direct", "distilled")}
    assert last.startswith("Recommended") and last.rpartition("/")[2] in students


TEXTS = ["a superb film", "awful, awful book", "", 'said "so-so", twice']


def predict(run, capsys, *more):
    assert main(["predict", str(run[0] / "students" / "cnn-distilled"), *more]) == 0
    return capsys.readouterr().out


def test_predict_in_every_form(run, capsys):
    plain = predict(run, capsys, *TEXTS).splitlines()
    table = list(csv.DictReader(io.StringIO(predict(run, capsys, *TEXTS, "--format", "csv"))))
    lines = [json.loads(line) for line in predict(run, capsys, *TEXTS, "--format", "jsonl").splitlines()]
    assert len(plain) == len(table) == len(lines) == 4
    for text, one, two, three in zip(TEXTS, plain, table, lines):
        assert text == two["text"] == three["text"]
        if not text.strip():  # nothing to answer
            assert two["label"] == two["probability"] == "" and three["label"] is three["probability"] is None
            continue
        assert one.split()[0] == two["label"] == three["label"]
        assert np.isclose(float(two["probability"]), three["probability"])
        assert np.isclose(sum(three["probabilities"].values()), 1, atol=1e-3)
        assert three["probability"] == max(three["probabilities"].values())


def test_predict_from_a_file_and_from_a_pipe(run, tmp_path, capsys, monkeypatch):
    expected = predict(run, capsys, *TEXTS, "--format", "csv")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    assert predict(run, capsys, "--file", str(tmp_path / "texts.txt"), "--format", "csv") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(("\r\n".join(TEXTS) + "\r\n").encode())))
    assert predict(run, capsys, "--format", "csv") == expected
    (tmp_path / "texts.csv").write_text("id,text\n1,a superb film\n2,awful\n")
    answers = predict(run, capsys, "--file", str(tmp_path / "texts.csv")).splitlines()  # not a screen, so CSV
    assert answers[0] == "label,probability,text" and len(answers) == 3


@pytest.mark.parametrize("content, name, message", [
    (None, "nowhere.csv", "no such file"),
    ("", "empty.csv", "empty"),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", "picture.csv", "not a UTF-8 text file"),
    ("a,b\n1,2\n", "columns.csv", "columns a, b"),
    ("text,label\nfine,1\ngood,1\n", "one.csv", "class"),
    ("text,label\nfine,1\ngood,2\n", "two.csv", ""),
    ("text,label\nfine,1\ngood,2\nbad,3\nodd,4\nugly,5\n", "few.csv", ""),
])
def test_tables_that_cannot_be_used(content, name, message, tmp_path, tiny_bert, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    error = fails(capsys, "run", path, "--teacher", tiny_bert, "--output", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--text", "body"], "body"), (["--teacher-labels", "a,b"], "2 names given"), (["--teacher-labels", "a,b,c"], "are not the data's"),
    (["--seeds", "0"], "--seeds 0"), (["--students", "linear,gru"], "no student 'gru'"), (["--alpha", "2"], "alpha=2"),
    (["--temperature", "3"], "--loss soft"), (["--rounds", "-1"], "rounds=-1"), (["--workers", "0"], "--workers 0"),
    (["--transfer", "/nowhere.txt"], "no such file"), (["--embeddings", "/nowhere.vec"], "no such file of word vectors"), (["--loss", "emd"], "have none"), (["--unlabelled", "-3"], "unlabelled=-3"), (["--device", "cuda:9"], "no device"), (["--teacher", "/nowhere/model"], "Cannot load a classifier"),
    (["--labelled", "100000"], "labelled"), (["--test", "1.5"], "test"), (["--output", "/dev/null/out"], "choose another output folder"),
])
def test_options_that_do_not_fit(arguments, message, table, tiny_bert, tmp_path, capsys):
    options = {"--teacher": tiny_bert, "--output": tmp_path / "out", "--cache": tmp_path / "cache", "--device": "cpu"}
    options.update(zip(arguments[::2], arguments[1::2]))
    assert message in fails(capsys, "run", table, *[word for pair in options.items() for word in pair])
    assert not (tmp_path / "out").exists()


def test_predict_mistakes(run, tmp_path, capsys):
    student = run[0] / "students" / "cnn-distilled"
    assert "not hold a saved student" in fails(capsys, "predict", tmp_path, "text")
    (tmp_path / "config.json").write_text("{}")
    assert "Cannot load" in fails(capsys, "predict", tmp_path, "text")
    assert "not both" in fails(capsys, "predict", student, "text", "--file", "x.txt")
    assert "nowhere.txt" in fails(capsys, "predict", student, "--file", tmp_path / "nowhere.txt")
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x01\x02\x03\x80\x81\x82")
    assert "not a UTF-8 text file" in fails(capsys, "predict", student, "--file", tmp_path / "binary.txt")
    (tmp_path / "empty.txt").write_text("")
    assert "the file is empty" in fails(capsys, "predict", student, "--file", tmp_path / "empty.txt")


@pytest.mark.parametrize("command", ["demo", "run", "label", "distill", "predict", "export", "bench", "card"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0 and f"distillnb {command}" in shown.split("examples:")[1]
    assert max(map(len, shown.splitlines())) <= 82, "as wide as the page that shows it"


def test_ctrl_c_keeps_what_is_finished(table, tiny_bert, tmp_path):
    command = [*COMMAND, "run", table, "--teacher", tiny_bert, "--epochs", "5000", "--students", "cnn", "--workers", "1", "--validation", "0",
               "--output", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    for line in process.stderr:
        if line.startswith("Students"):
            break
    time.sleep(12)  # an epoch or more, also where the loops are still to be compiled
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in err, err
    assert "cnn direct" in out
    assert (tmp_path / "out" / "history.csv").exists() and "interrupted" in (tmp_path / "out" / "report.html").read_text()


def test_one_answer_for_each_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "odd.txt").write_text("good\u2028bad film\n\nawful\x85phone\x0cbook\n", encoding="utf-8")
    assert len(predict(run, capsys, "--file", str(tmp_path / "odd.txt"), "--format", "jsonl").split("\n")) == 3 + 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 good\n"), errors="surrogateescape"))
    student = next((run[0] / "students").iterdir())
    assert main(["predict", str(student)]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_files_of_the_user_are_left_alone(table, tmp_path, capsys):
    (tmp_path / "students").mkdir()
    (tmp_path / "students" / "thesis.txt").write_text("years of work")
    assert main(["run", str(table), "--output", str(tmp_path)]) == 2
    assert "holds other files" in capsys.readouterr().err
    assert (tmp_path / "students" / "thesis.txt").read_text() == "years of work" and len(list(tmp_path.iterdir())) == 1


TEACHER = """
import numpy as np
import pandas as pd

def ask(texts):
    count = lambda words: np.array([sum(word in text.split() for word in words) for text in texts], float)
    points = count(["good", "great", "superb"]) - count(["bad", "awful", "poor"])
    return np.stack([-3 * points, 1 + 0 * points, 3 * points], 1)
"""


@pytest.fixture(scope="module")
def place(table, tmp_path_factory):
    """A folder with a teacher of our own in it, and a student that was distilled from it there."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "words.py").write_text(TEACHER)
    (folder / "distill.toml").write_text('teacher = "words:ask"\nnames = ["negative", "neutral", "positive"]\ngives = "logits"\n'
                                         '[distill]\nstudent = "linear"\nepochs = 9\nvocab-size = 400\n')
    done = command(folder, "distill", table, "--config", "distill.toml", "--epochs", "4", "--output", "student", "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def process(folder, *arguments, **options):
    """The command in a process of its own."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=folder, **options)


def test_distill_from_a_file_of_settings(place):
    folder, found = place
    scores = {row["model"]: row["accuracy"] for row in found["scores"]}
    assert scores["its teacher"] > .95 and scores["this student"] > .6 and "its direct twin" in scores
    assert found["texts"] == 480 and found["labelled"] == 0 and len(found["verdicts"]) == 1
    facts = json.loads((folder / "student" / "distillnb.json").read_text())
    assert facts["recipe"]["epochs"] == "4", "what is typed wins over the file"
    assert facts["loss"] == "SoftCrossEntropy(temperature=1.0)" and "this student" in (folder / "student" / "README.md").read_text()


def test_label_writes_a_table_that_teaches(place, table):
    folder, _ = place
    teacher = ("--teacher", "words:ask", "--names", "negative,neutral,positive", "--gives", "logits")
    done = command(folder, "label", "-", *teacher, input="a good film\n\nan awful one\n")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert done.returncode == 0 and [max(list(row)[1:], key=lambda name: float(row[name])) for row in rows] == ["positive", "neutral", "negative"]
    assert command(folder, "label", table, *teacher, "--output", "answers.csv").returncode == 0
    again = command(folder, "label", table, *teacher, "--output", "answers.csv")
    assert again.returncode == 0 and len(list(csv.reader((folder / "answers.csv").open()))) == 601
    done = command(folder, "distill", table, "--teacher", "answers.csv", "--student", "linear", "--epochs", "2", "--output", "other", "--test", "0")
    assert done.returncode == 0, done.stderr


def test_label_does_many_files_in_parts(place, table, tmp_path, capsys, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    asking = ("--teacher", "words:ask", "--names", "negative,neutral,positive", "--gives", "logits", "--text", "text",
              "--output", tmp_path / "answers")
    data = tmp_path / "data"
    data.mkdir()
    frame = pd.read_csv(table)[["text"]]
    for i in range(3):
        frame[200 * i:200 * (i + 1)].to_csv(data / f"{i}.csv", index=False)
    for share in ("1/2", "2/2"):
        status, _, err = inside(capsys, "label", data, *asking, "--part", share)
        assert status == 0, err
    assert "3 of 3 parts, 600 rows, 0 of them without an answer" in err
    assert read_table(tmp_path / "answers").frame.text.tolist() == frame.text.tolist()
    for wrong, said in ((("--workers", "2", "--output", "x.csv"), "--workers is for many files"), (("--part", "3/2"), "from 1 to 2"),
                        (("--names", "a,b,c"), "another classes"), (("--separator", ";"), "for one file"),
                        (("--dask", "tcp://127.0.0.1:1"), "no scheduler answers")):
        status, _, err = inside(capsys, "label", data, *asking, *wrong)
        assert status and said in err, err
    status, _, err = inside(capsys, "distill", table, "--teacher", tmp_path / "answers", "--student", "linear", "--epochs", "2",
                            "--output", tmp_path / "student", "--test", "0")
    assert status == 0, err


def test_a_run_with_a_table_of_answers(place, table, tmp_path, capsys, monkeypatch):
    """Such a teacher cannot answer fragments: none are made, and who asks for some is told why not."""
    folder, _ = place
    monkeypatch.chdir(folder)
    teacher = ("--teacher", "words:ask", "--names", "negative,neutral,positive", "--gives", "logits")
    assert inside(capsys, "label", table, *teacher, "--output", tmp_path / "answers.csv")[0] == 0
    words = ("run", table, "--teacher", tmp_path / "answers.csv", "--students", "linear", "--epochs", "2", "--no-baselines", "--workers", "1",
             "--output", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    status, out, err = inside(capsys, *words)
    assert status == 0 and "linear distilled" in out and "Fragments" not in err, err
    for more in ((), ("--key", "text")):  # as a file, and as the teacher that the command makes of it
        assert "its own texts only" in fails(capsys, *words, *more, "--fragments", "4")


def test_export_then_a_pipe_without_torch(place, table, capsys, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    for name in ("student.npz", "student.onnx"):
        status, out, err = inside(capsys, "export", "student", name, "--check", table, "--json")
        assert status == 0 and json.loads(out)["largest_difference"] < 1e-4, err
        answers = process(folder, "predict", name, input="a good film\n\nawful\n")
        assert [row["text"] for row in csv.DictReader(io.StringIO(answers.stdout))] == ["a good film", "", "awful"], answers.stderr
    code = "import sys\nfrom distillnb.cli import main\nstatus = main(['predict', 'student.npz', 'good'])\nassert 'torch' not in sys.modules\nsys.exit(status)"
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True).returncode == 0
    status, out, err = inside(capsys, "export", "student", "small.npz", "--check", table, "--max-size-kb", "12", "--agreement", ".5", "--json")
    assert status == 0 and os.path.getsize(folder / "small.npz") <= 12_000 and json.loads(out)[-1]["chosen"], err
    for refused in (("--max-size-kb", "1"), ("--bits", "8", "--bound", "1e-12")):
        status, _, err = inside(capsys, "export", "student", "no.npz", "--check", table, *refused)
        assert status == 1 and "distillnb: error:" in err and not (folder / "no.npz").exists()


def test_bench_and_card(place, table, capsys, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    monkeypatch.setattr("joblib.cpu_count", lambda: 1)  # each form once
    status, out, err = inside(capsys, "bench", "student", "--data", table, "--seconds", ".05", "--json")
    assert status == 0, err
    rows = json.loads(out)
    assert {"PyTorch", "ONNX, 32 bits", "ONNX, 8 bits", "numpy, 32 bits", "numpy, 8 bits"} == {row["form"] for row in rows}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] and row["accuracy"] > .5 for row in rows)
    assert {"bench.csv", "bench.json", "bench.svg"} <= set(os.listdir(folder / "student"))
    status, out, _ = inside(capsys, "card", "student", "--licence", "apache-2.0", "--language", "en")
    card = (folder / "student" / "README.md").read_text()
    assert out.strip() == "student/README.md" and "license: apache-2.0" in card and "| numpy, 8 bits | 1 |" in card


def test_mistakes_of_the_new_commands(place, table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(place[0])
    words = ("--teacher", "words:ask", "--names", "negative,neutral,positive", "--gives", "logits")
    assert "no attribute 'tell'" in fails(capsys, "label", table, "--teacher", "words:tell")
    assert "Cannot load" in fails(capsys, "label", table, "--teacher", "nowhere/model")
    assert "no such file" in fails(capsys, "label", "nowhere.csv", *words)
    assert "choose from" in fails(capsys, "distill", table, *words, "--student", "forest", "--output", tmp_path / "x")
    assert "choose another folder" in fails(capsys, "distill", table, *words, "--output", tmp_path)
    assert "end the name in" in fails(capsys, "export", "student", "student.zip", "--check", table)
    assert "not hold a saved student" in fails(capsys, "export", tmp_path, "student.npz", "--check", table)
    assert "leave --bits out" in fails(capsys, "export", "student", "x.npz", "--check", table, "--bits", "8", "--max-size-kb", "9")
    assert "not hold a saved student" in fails(capsys, "bench", tmp_path, "--data", table)
    assert "not hold a saved student" in fails(capsys, "card", tmp_path)
    assert "no such file" in fails(capsys, "predict", "nowhere.npz", "text")
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    assert "bad.npz" in fails(capsys, "predict", tmp_path / "bad.npz", "text")
    for text, message in [("epoch = 3", "no setting 'epoch'"), ("epochs = ", "not a TOML file"), ("data = 'x'", "has to be typed")]:
        (tmp_path / "bad.toml").write_text(text)
        assert message in fails(capsys, "distill", table, *words, "--config", tmp_path / "bad.toml")
    assert "no such file" in fails(capsys, "distill", table, *words, "--config", tmp_path / "none.toml")


def thing(name):
    """What a command's settings are documented by: a function or a class."""
    module, name = name.split(".")
    return getattr(import_module(f"distillnb.{module}"), name)


def default(of, name):
    """The default of a field or a parameter, as Python has it."""
    if dataclasses.is_dataclass(of):
        field = next(field for field in dataclasses.fields(of) if field.name == name)
        return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    value = inspect.signature(of).parameters[name].default
    return cli.REQUIRED if value is inspect.Parameter.empty else value


SETTINGS = {}
for a_command in cli.COMMANDS.values():
    for entry in (entry for entries in a_command.groups.values() for entry in entries if not isinstance(entry, cli.Setting)):
        SETTINGS.setdefault(entry[0], set()).update(word.partition("=")[0] for word in entry[1].split())


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_and_a_help_text_stand_in_one_place(name):
    for parameter in sorted(SETTINGS[name]):
        setting = cli.documented(name)[parameter]
        assert setting.default == default(thing(name), parameter)
        assert setting.comment, f"{name}: say what {parameter} is, behind it"


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_what_is_not_typed_is_not_passed_on(name):
    command = cli.COMMANDS[name]
    words = [word for word in command.arguments.split() if word != "texts"]
    words += [f"--{option}=x" for option in command.required.split()]
    args = vars(cli._parser().parse_args([name, *words]))
    own = {entry.name for entries in command.groups.values() for entry in entries if isinstance(entry, cli.Setting)}
    assert set(args) <= own | set(command.arguments.split()) | {"command"}


REACHED = {"experiment.Experiment": "run", "estimator.DistilledClassifier": "distill", "labelling.any_teacher": "label",
           "export.save_runtime": "export", "export.save_onnx": "export", "bench.bench": "bench", "card.write_card": "card"}
NOT_REACHED = {
    "estimator.DistilledClassifier": {"random_state": "--seed", "classes": "those of the table, or the teacher's"},
    "labelling.any_teacher": {"source": "--teacher", "texts": "a second table; join them first", "report": "standard error"},
    "export.save_runtime": {"classifier": "STUDENT", "texts": "--check"},
    "export.save_onnx": {"classifier": "STUDENT", "texts": "--check"},
    "bench.bench": {"texts": "--data", "labels": "--label"},
}


@pytest.mark.parametrize("name, command", REACHED.items())
def test_every_setting_can_be_reached(name, command):
    parser = cli._parser()._subparsers._group_actions[0].choices[command]
    assert set(cli.documented(name)) - {action.dest for action in parser._actions} == set(NOT_REACHED.get(name, {}))


def test_a_help_text_says_what_the_comment_says():
    settings = cli.documented("labelling.any_teacher")
    assert cli._help(settings["max_length"]).endswith("(128)") and cli._help(settings["device"]).endswith("(the best there is)")
    assert "None" not in " ".join(cli._help(setting) for command in cli.COMMANDS.values() for _, setting in cli._settings(command))


PLUGIN = """
import torch
from torch import nn
from transformers import PretrainedConfig

from distillnb.lesson import register_way
from distillnb.losses import Loss, register_loss
from distillnb.metrics import register_metric
from distillnb.student import Student, register_student


class ToyConfig(PretrainedConfig):
    model_type = "distillnb-toy"

    def __init__(self, vocab_size=1, tokenizer_size=None, pad_token_id=0, width=8, initial_std=.1, **kwargs):
        self.vocab_size, self.tokenizer_size, self.width, self.initial_std = vocab_size, tokenizer_size, width, initial_std
        super().__init__(pad_token_id=pad_token_id, **kwargs)


@register_student(ToyConfig, "toy: the mean of embeddings", rate=.05, epochs=2)
class ToyStudent(Student):
    config_class = ToyConfig

    def __init__(self, config, rows=None):
        super().__init__(config, rows)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.classifier = nn.Linear(config.width, config.num_labels)
        self.post_init()

    def logits(self, rows, mask):
        return self.classifier((self.embedding(rows) * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True).clip(1))


@register_loss("absolute", "the teacher's logits, far ones as well")
class Absolute(Loss):
    def __call__(self, student_logits, labels, teacher_logits):
        return (student_logits - teacher_logits).abs().mean()

    def __repr__(self):
        return "Absolute()"


@register_metric(title="sureness")
def sureness(truth, probabilities):
    return float(probabilities.max(1).mean())


@register_way("backwards", "all texts, in the other order", dash=(1, 1))
def backwards(lesson):
    return lesson[lesson.labelled[::-1]]
"""


def test_what_somebody_registers_is_a_choice(place, table, tmp_path):
    folder, _ = place
    (folder / "toys.py").write_text(PLUGIN)
    teacher = ("--teacher", "words:ask", "--names", "negative,neutral,positive", "--gives", "logits")
    shown = process(folder, "distill", "--import", "toys", "--help").stdout
    assert "toy" in shown and "absolute (the teacher's logits, far ones as well)" in " ".join(shown.split())
    (folder / "toys.toml").write_text('import = ["toys"]\n[run]\nstudents = ["toy"]\nways = ["direct", "backwards"]\nloss = "absolute"\n')
    done = process(folder, "run", table, "--config", "toys.toml", *teacher, "--output", tmp_path / "run", "--cache", tmp_path / "cache", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["summary"]
    facts = json.loads((tmp_path / "run" / "students" / "toy-backwards" / "distillnb.json").read_text())
    assert facts["student"] == "toy" and facts["loss"] == "Absolute()" and facts["recipe"]["epochs"] == "2"
    assert {"toy direct", "toy backwards"} <= {row["model"] for row in rows} and all(0 < row["sureness"] <= 1 for row in rows)


def test_old_names_work_with_a_note(table, tmp_path, capsys):
    error = fails(capsys, "run", table, "--teacher-labels", "a,b", "--seeds", "0")
    assert "--seeds 0" in error
    assert cli._modern(["run", "--teacher-labels=a,b"]) == ["run", "--names=a,b"]
    assert "--teacher-labels is called --names now" in capsys.readouterr().err
    (tmp_path / "old.toml").write_text('teacher_labels = ["a", "b"]\n')
    parser = cli._parser()._subparsers._group_actions[0].choices["run"]
    assert cli._from_file(tmp_path / "old.toml", "run", parser) == ["--names=a,b"]


def test_tune_may_stand_alone():
    for words, expected in [(["--tune", "x.csv"], (.3, 1, 3)), (["--tune", "1,2", "x.csv"], (1, 2)), (["x.csv", "--tune"], (.3, 1, 3))]:
        args = cli._parse(["run", *words])
        assert args.tune == expected and args.data == "x.csv"


def in_file(text, folder, name="distill"):
    """What a command makes of a settings file."""
    (folder / "settings.toml").write_text(text)
    parser = cli._parser()._subparsers._group_actions[0].choices[name]
    return parser.parse_args(["x.csv", *["--teacher=y"] * (name != "run"), *cli._from_file(folder / "settings.toml", name, parser)])


def test_a_file_says_what_could_be_typed(tmp_path):
    args = in_file('names = ["bad, awful", "good", "5 \\" \'screen\'"]\nseed = 3\nmultilabel = false\n[distill]\ntune = [0.5, 2]\n'
                   '[distill.class_weight]\nbad = 2.5\n[distill.recipe.sizes]\nwidth = 7\n[run]\nseeds = 4\n', tmp_path)
    assert args.names == ["bad, awful", "good", "5 \" 'screen'"] and args.seed == 3 and args.multilabel is False
    assert args.tune == (.5, 2) and args.class_weight == {"bad": 2.5} and args.recipe == {"sizes": {"width": 7}}
    args = in_file("seeds = [7]\nbaselines = true\ntune = true\n[run.teacher_options]\nepochs = 4\nlearning_rate = 3e-5\n", tmp_path, "run")
    assert args.seeds == (7,) and args.baselines is True and args.tune == (.3, 1, 3)
    assert args.teacher_options == {"epochs": 4, "learning_rate": 3e-5}
    args = cli._experiment(cli._parse(["run", "x.csv", "--config", str(tmp_path / "settings.toml"), "--seeds", "2", "--teacher-epochs", "1"]))
    assert args.seeds == (0, 1) and args.teacher_options == {"epochs": 1, "learning_rate": 3e-5}


@pytest.mark.parametrize("text, message", [
    ("distill = 5", "write [distill]"), ("[distil]\nepochs = 3", "no setting 'distil'"), ("epochs = 'five'", "give a whole number"),
    ("epochs = 2.5", "give a whole number"), ("epochs = true", "not a switch"), ("epochs = [1, 2]", "give a whole number"),
    ("multilabel = 1", "write true or false"), ("student = ['cnn', 'linear']", "student = ['cnn', 'linear']"),
    ("[rate]\nfirst = 1", "give one value"), ("recipe = 3", "give a table"), ("student = 'forest'", "choose from"), ("import = 'nowhere_at_all'", "--import nowhere_at_all"),
])
def test_mistakes_in_a_file(text, message, tmp_path, capsys):
    (tmp_path / "settings.toml").write_text(text)
    error = fails(capsys, "distill", "x.csv", "--teacher", "y", "--config", tmp_path / "settings.toml")
    assert message in error and ("settings.toml" in error or "--import" in error)


def test_a_recipe_that_cannot_be_is_refused_first(table, tmp_path, capsys):
    for wrong in (("--rate", "-1"), ("--width", "0"), ("--embeddings", "/nowhere.vec")):
        assert main(["run", str(table), *wrong, "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 2
        said = capsys.readouterr().err
        assert "distillnb: error: " in said and "Teacher" not in said, said


def test_a_row_without_text_has_an_empty_answer(place, tmp_path):
    folder, _ = place
    (tmp_path / "gaps.csv").write_text("id,text\n1,a good film\n2,\n3,awful\n4,   \n")
    done = command(folder, "predict", "student", "--file", tmp_path / "gaps.csv", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [bool(row["label"]) for row in rows] == [bool(row["probability"]) for row in rows] == [True, False, True, False], done.stderr
    done = command(folder, "predict", "student", "--file", tmp_path / "gaps.csv", "--json")
    assert [json.loads(line)["label"] is None for line in done.stdout.splitlines()] == [False, True, False, True]
    done = command(folder, "predict", "student", "--file", tmp_path / "gaps.csv", "--format", "plain")
    assert len(done.stdout.splitlines()) == 4


def test_answers_are_read_back_as_they_were(place, tmp_path):
    from distillnb.data import read_reviews

    folder, _ = place
    texts = ["=1+1", "-good", "@home", "+2", 'said "so, so"', "'quoted'", "plain good"]
    done = command(folder, "predict", "student", "--format", "csv", "--", *texts)
    (tmp_path / "answers.csv").write_text(done.stdout, encoding="utf-8")
    assert read_reviews(tmp_path / "answers.csv", label=False, report=None).text.tolist() == texts
    safe = command(folder, "predict", "student", "--safe-csv", "--format", "csv", "--", *texts)
    assert [row["text"] for row in csv.DictReader(io.StringIO(safe.stdout))] == ["'" + text for text in texts[:4]] + texts[4:]


@pytest.mark.parametrize("settings", [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_no_character_cuts_the_output_off(settings, place, tmp_path):
    folder, _ = place
    (tmp_path / "t.txt").write_text("good film\nnice \U0001f600\nbad film\n", encoding="utf-8")
    assert command(folder, "export", "student", "light.npz", "--check", tmp_path / "t.txt").returncode == 0
    done = subprocess.run([*COMMAND, "predict", "light.npz", "--file", str(tmp_path / "t.txt"), "--format", "csv"], cwd=folder,
                          capture_output=True, env=os.environ | {"PYTHONUTF8": "0"} | settings)
    assert done.returncode == 0 and done.stdout.count(b"\n") == 4, done.stderr
    shown = "\U0001f600".encode() if "LC_ALL" in settings else b"\\U0001f600"
    assert shown in done.stdout


@pytest.mark.parametrize("error", [RecursionError("too deep"), KeyError("scores"), csv.Error("field larger than limit"), AssertionError()])
def test_what_nobody_foresaw_is_one_line_too(error, capsys, monkeypatch):
    def fail(args):
        raise error
    monkeypatch.setitem(cli.COMMANDS, "card", cli.COMMANDS["card"]._replace(run=fail))
    line = fails(capsys, "card", "folder")
    assert type(error).__name__ in line and "DISTILLNB_TRACEBACK=1" in line
    monkeypatch.setenv("DISTILLNB_TRACEBACK", "1")
    assert main(["card", "folder"]) == 2 and "Traceback" in capsys.readouterr().err


def test_sigterm_ends_like_ctrl_c(tmp_path):
    code = ("import os, signal, sys\nfrom distillnb import cli\n"
            "def wait(args):\n    try:\n        os.kill(os.getpid(), getattr(signal, sys.argv[1]))\n        signal.pause()\n"
            "    finally:\n        open('kept', 'w').close()\n"
            "cli.COMMANDS['card'] = cli.COMMANDS['card']._replace(run=wait)\nsys.exit(cli.main(['card', 'x']))")
    for number, status in (("SIGTERM", 143), ("SIGINT", 130)):
        done = subprocess.run([sys.executable, "-c", code, number], capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == status and len(done.stderr.splitlines()) == 1 and "Interrupted" in done.stderr, done.stderr
        (tmp_path / "kept").unlink()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["predict", "--help"], ["export", "--help"], ["card", "--help"]])
def test_help_loads_nothing_heavy(words):
    code = ("import sys\nfrom distillnb.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
            "assert not {'torch', 'transformers', 'pandas', 'sklearn'} & {*sys.modules}")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 82


def test_options_are_not_abbreviated(table, capsys):
    assert "--epoch" in fails(capsys, "run", table, "--epoch", "3")


@pytest.mark.parametrize("number, status", [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_that_python_swallows_ends_the_command_too(number, status, tmp_path):
    code = ("import os, signal, sys, time\nfrom distillnb import cli\n"
            "class Gone:\n    def __del__(self):\n        os.kill(os.getpid(), getattr(signal, sys.argv[1]))\n        time.sleep(.01)\n"
            "def work(args):\n    Gone()\n    time.sleep(30)\n"
            "cli.COMMANDS['card'] = cli.COMMANDS['card']._replace(run=work)\nsys.exit(cli.main(['card', 'x']))")
    done = subprocess.run([sys.executable, "-c", code, number], capture_output=True, text=True, cwd=tmp_path, timeout=20)
    assert done.returncode == status and len(done.stderr.splitlines()) == 1 and "Interrupted" in done.stderr, done.stderr
