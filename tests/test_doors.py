"""What is given where texts belong, and what an answers file belongs to: the same rule at every door."""
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import sentences
from transformers import AutoTokenizer

from distillnb import runtime
from distillnb.cli import main
from distillnb.estimator import DistilledClassifier
from distillnb.export import save_runtime
from distillnb.inference import load_student
from distillnb.labelling import any_teacher, label_texts

TEXTS = sentences(60, seed=4)


@pytest.fixture(scope="module")
def doors(tiny_bert, tmp_path_factory):
    """Every function that takes texts and answers."""
    teacher = any_teacher(tiny_bert, device="cpu")
    student = DistilledClassifier("linear", teacher, epochs=1, vocab_size=400, tokenizer="own", device="cpu").fit(TEXTS)
    folder = student.save(tmp_path_factory.mktemp("doors") / "student")
    save_runtime(load_student(folder, "cpu"), folder.parent / "student.npz", TEXTS)
    return {"teacher": teacher.logits, "estimator": student.predict_proba, "student": load_student(folder, "cpu").predict_proba,
            "numpy": runtime.load(folder.parent / "student.npz").predict_proba, "label": lambda texts: label_texts(teacher, texts)}


FRAME = pd.DataFrame({"text": TEXTS[:3], "label": ["a", "b", "c"]})
NOT_TEXTS = {"frame": FRAME, "dict": {"text": TEXTS[:3]}, "set": set(TEXTS[:3]), "text": TEXTS[0], "columns": FRAME.groupby("label"),
             "big dict": dict.fromkeys(map(str, range(20_000)))}
NAMES = ["teacher", "estimator", "student", "numpy", "label"]


@pytest.mark.parametrize("what", NOT_TEXTS)
@pytest.mark.parametrize("door", NAMES)
def test_what_is_no_list_of_texts_is_refused(doors, door, what):
    with pytest.raises((TypeError, ValueError)) as error:
        doors[door](NOT_TEXTS[what])
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    assert any(advice in str(error.value).lower() for advice in ("give", "choose", "drop it"))


@pytest.mark.parametrize("door", NAMES)
def test_an_arrow_table_is_refused_by_its_names(doors, door):
    arrow = pytest.importorskip("pyarrow")
    with pytest.raises((TypeError, ValueError), match="table|list of texts") as error:
        doors[door](arrow.table({"text": TEXTS, "no": range(60)}))
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("door", NAMES)
@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Series, lambda texts: pd.Series(texts, index=range(60, 0, -1)), lambda texts: np.array(texts, object)])
def test_every_list_of_texts_gets_the_same_answers(doors, door, form):
    one, other = (np.asarray(doors[door](texts) if door != "label" else doors[door](texts).iloc[:, 1:]) for texts in (TEXTS, form(TEXTS)))
    assert np.array_equal(one, other)


def test_another_teacher_does_not_go_on_with_a_file(tiny_bert, tmp_path):
    file, names, said = tmp_path / "answers.csv", ["n", "p"], []

    def one(texts):
        return np.full((len(texts), 2), .5)

    def other(texts):
        return np.full((len(texts), 2), (.25, .75))
    label_texts(any_teacher(one, names), TEXTS[:20], file)
    label_texts(any_teacher(other, names), TEXTS[:25], file, report=said.append)  # a function can have changed its name
    assert "20 texts were answered there already; 5 are left" in said.pop()
    label_texts(any_teacher(one, names), TEXTS, file, report=said.append)
    assert "25 texts were answered there already; 35 are left" in said[0]
    bert = tmp_path / "bert.csv"
    label_texts(any_teacher(tiny_bert, device="cpu"), TEXTS[:9], bert)
    shutil.copytree(tiny_bert, tmp_path / "moved")
    label_texts(any_teacher(tmp_path / "moved", device="cpu"), TEXTS, bert)  # the same weights
    with pytest.raises(ValueError, match="other settings"):
        label_texts(any_teacher(tiny_bert, device="cpu", max_length=9), TEXTS, bert)


def test_a_student_without_its_tokenizer_is_refused(doors, tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "bert" / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="every word would be unknown|Cannot load"):
        load_student(tmp_path / "bert", "cpu")


@pytest.mark.parametrize("length", ["-1", "0", '"x"', "null"])
def test_an_odd_length_limit_is_named(tmp_path, tiny_bert, length):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    file = tmp_path / "bert" / "tokenizer_config.json"
    assert AutoTokenizer.from_pretrained(tiny_bert).model_max_length > 1e6
    state = json.loads(file.read_text()) | {"model_max_length": json.loads(length)}
    file.write_text(json.dumps(state))
    try:
        assert load_student(tmp_path / "bert", "cpu").max_length == 512
    except ValueError as error:
        assert "model_max_length" in str(error) or "Cannot load" in str(error)


def test_weights_that_do_not_fit_their_configuration(tmp_path, tiny_bert):
    shutil.copytree(tiny_bert, tmp_path / "bert")
    file = tmp_path / "bert" / "config.json"
    file.write_text(file.read_text().replace('"hidden_size": 32', '"hidden_size": 16'))
    with pytest.raises(ValueError, match="config.json does not fit its weights"):
        any_teacher(tmp_path / "bert", device="cpu")
    file.write_text("[]")
    with pytest.raises(ValueError, match="damaged|Cannot load") as error:
        any_teacher(tmp_path / "bert", device="cpu")
    assert "\n" not in str(error.value)


def test_xlnet_teaches(tmp_path):
    from transformers import XLNetConfig, XLNetForSequenceClassification

    from distillnb.teacher import model_teacher
    from distillnb.tokens import train_tokenizer

    tokenizer = train_tokenizer(TEXTS, 300)
    model = XLNetForSequenceClassification(XLNetConfig(vocab_size=len(tokenizer), d_model=16, n_layer=1, n_head=2, d_inner=16, num_labels=3,
                                                       pad_token_id=tokenizer.pad_token_id))
    teacher = model_teacher(model, tokenizer, ["a", "b", "c"], device="cpu")
    alone = np.concatenate([teacher.logits([text]) for text in TEXTS[:8]])
    assert np.allclose(teacher.logits(TEXTS[:8]), alone, atol=1e-4)


@pytest.mark.parametrize("content, options", [("café good\n\nbad\n".encode("cp1252"), []), ("café good\n\nbad\n".encode("cp1252"), ["--encoding", "cp1252"]),
                                              ("café good\n\nbad\n".encode("utf-16"), []), ("café good\n\nbad\n".encode("utf-16"), ["--encoding", "utf-16-le"])])
def test_a_txt_file_is_read_as_any_other(doors, tmp_path, tiny_bert, content, options, capsys):
    (tmp_path / "t.txt").write_bytes(content)
    assert main(["predict", str(tiny_bert), "--file", str(tmp_path / "t.txt"), "--format", "csv", "--device", "cpu", *options]) == 0
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out), keep_default_na=False)
    assert rows.text.tolist() == ["café good", "", "bad"] and [bool(label) for label in rows.label] == [True, False, True]


@pytest.mark.parametrize("separator", ["\\t", "tab", "\t"])
def test_a_tab_can_be_typed(tmp_path, tiny_bert, separator, capsys):
    (tmp_path / "t.csv").write_text("id\ttext\n1\tgood film\n")
    assert main(["predict", str(tiny_bert), "--file", str(tmp_path / "t.csv"), "--separator", separator, "--format", "csv", "--device", "cpu"]) == 0
    assert "good film" in capsys.readouterr().out


def test_a_file_where_a_folder_goes_is_kept(doors, tmp_path):
    (tmp_path / "thesis").write_text("years of work")
    student = DistilledClassifier("linear", epochs=1, vocab_size=400, device="cpu").fit(TEXTS[:20], ["a", "b"] * 10)
    with pytest.raises(ValueError, match="is a file: choose another name"):
        student.save(tmp_path / "thesis")
    assert (tmp_path / "thesis").read_text() == "years of work" and len(list(tmp_path.iterdir())) == 1
