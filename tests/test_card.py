"""What is known of a student travels with it, is checked when it is read, and is told on its card."""
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

from distillnb import card
from distillnb.card import FACTS, Facts, check_weights, model_card, read_facts, write_card, write_facts
from distillnb.estimator import DistilledClassifier
from distillnb.inference import load_student
from distillnb.metrics import METRICS, Metric
from distillnb.teacher import load_teacher


@pytest.fixture(scope="module")
def student(toy_reviews):
    teacher = DistilledClassifier("linear", vocab_size=400, epochs=2, device="cpu")
    teacher = teacher.fit(toy_reviews.text, toy_reviews.label).classifier_
    return DistilledClassifier("linear", teacher, epochs=1, device="cpu").fit(toy_reviews.text[:200])


@pytest.fixture
def folder(student, toy_reviews, tmp_path):
    twin = student.twin().fit(toy_reviews.text[:200], toy_reviews.label[:200])
    return student.save(tmp_path / "student", (toy_reviews.text[400:], toy_reviews.label[400:]), twin, "toy reviews")


def test_the_card_tells_what_was_measured(folder, student, toy_reviews):
    card = (folder / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    accuracy = student.score(toy_reviews.text[400:], toy_reviews.label[400:])
    metrics = {metric["type"]: metric["value"] for metric in head["model-index"][0]["results"][0]["metrics"]}
    assert metrics["accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert f"| this student | 200 | {accuracy:.3f} |" in card and "its direct twin" in card and "its teacher" in card
    assert "toy reviews" in card and "Limits" in card


def test_a_student_is_saved_whole_or_not_at_all(folder, student, monkeypatch):
    (folder / "notes.txt").write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = DistilledClassifier("linear", epochs=1, vocab_size=300, device="cpu").fit(["good film", "bad book"] * 9, ["a", "b"] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(type(other.classifier_.tokenizer), "save_pretrained", lambda *args: (_ for _ in ()).throw(OSError("the disk is full")))
        with pytest.raises(OSError, match="full"):
            other.save(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and len(list(folder.parent.iterdir())) == 1
    other.save(folder)
    assert DistilledClassifier.load(folder).classes_.tolist() == ["a", "b"] and (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_refused_by_every_loader(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    for load in (DistilledClassifier.load, load_student, load_teacher):
        with pytest.raises(ValueError, match=f"{name} is not the file that was saved"):
            load(folder)


def test_loaded_students_remember(folder, student):
    assert DistilledClassifier.load(folder).facts_ == student.facts_


def test_other_weights_inherit_no_score(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="other weights"):
        read_facts(folder)
    with pytest.raises(ValueError, match="other weights"):
        check_weights(folder)
    (folder / FACTS).unlink()
    check_weights(folder)  # of a student without facts nothing was claimed


def test_somebodys_own_card_stays(folder):
    (folder / "README.md").write_text("my own words")
    with pytest.raises(ValueError, match="somebody's own"):
        write_card(folder)
    assert (folder / "README.md").read_text() == "my own words"
    assert "Limits" in write_card(folder, "apache-2.0", "en", overwrite=True).read_text()


def test_damaged_facts_are_refused_in_words(folder):
    """400 damaged files: bytes changed, cut off, values of other kinds."""
    good, generator = (folder / FACTS).read_text(), np.random.default_rng(0)
    strange = [None, -1, "x", [], {}, True, [[1]], 1e400]
    for number in range(400):
        if number % 2:
            state = json.loads(good)
            state[sorted(state)[int(generator.integers(len(state)))]] = strange[int(generator.integers(len(strange)))]
            text = json.dumps(state)
        else:
            place = int(generator.integers(len(good)))
            sign = chr(int(generator.integers(32, 127)))
            text = good[:place] if number % 4 else good[:place] + sign + good[place + 1:]
        (folder / FACTS).write_text(text)
        try:
            read_facts(folder)
        except ValueError as error:
            assert FACTS in str(error)


SCORE = {"model": "this student", "texts": 90, "accuracy": .8, "low": .7, "high": .9, "f1_macro": .75}
FEW = Facts("linear", ["bad", "good"], False, 128, 1000, 100, .1, scores=[SCORE])


def test_a_registered_metric_is_a_column(monkeypatch):
    metric = Metric("top_two", "right in two", lambda truth, probabilities: .95, form="{:.1%}")
    monkeypatch.setitem(METRICS, "top_two", metric)
    card = str(model_card(replace(FEW, scores=[SCORE | {"top_two": .95}]), "here"))
    assert "| model | test texts | accuracy | 95 % interval | macro F1 | right in two |" in card
    assert "| this student | 90 | 0.800 | 0.700 to 0.900 | 0.750 | 95.0% |" in card


def test_a_metric_that_nobody_knows_here_is_shown_all_the_same():
    assert "| macro F1 | top two |" in str(model_card(replace(FEW, scores=[SCORE | {"top_two": .95}]), "here"))


def test_scores_that_are_not_finite_are_left_out(tmp_path):
    written = write_facts(replace(FEW, scores=[SCORE | {"kappa": math.nan}]), tmp_path)
    assert written.scores == [SCORE] and read_facts(tmp_path) == written
    json.loads((tmp_path / FACTS).read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("field, value", [
    ("names", ["bad", "<img src=x onerror=alert(1)>"]), ("data", "<script>alert(1)</script>"),
    ("licence", "<b>mine</b>"), ("teacher", "<i>big</i>\n# heading"), ("verdicts", ["a <u>b</u>"]),
    ("recipe", {"way": "<s>"}), ("versions", {"<s>": "1"}),
    ("scores", [SCORE | {"model": "<s>|</s>"}]), ("loss", "`<s>` `")])
def test_what_users_wrote_is_text(field, value):
    page = str(model_card(replace(FEW, texts=9, **{field: value}), "here")).split("---\n", 2)[2]
    outside_code = "".join(page.replace("```", "`").split("`")[::2])
    assert "<" not in outside_code.replace("<!--", ""), outside_code
    assert not any(line.startswith("# heading") for line in page.splitlines())
    assert page.count("`") % 2 == 0


def test_a_kind_that_is_not_registered_has_a_card_too():
    assert "This student is a text classifier." in str(model_card(replace(FEW, student="mine"), "here"))
    assert "linear classifier on token n-grams" in str(model_card(FEW, "here"))


def test_a_card_that_fails_changes_nothing(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*args, **options):
        raise OSError("No space left on device")
    monkeypatch.setattr(card.ModelCard, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_card(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
