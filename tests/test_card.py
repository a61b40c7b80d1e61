"""What is known of a student travels with it, is checked when it is read, and is told on its card."""
import json

import numpy as np
import pytest
import yaml

from distillnb.card import FACTS, read_facts, write_card
from distillnb.estimator import DistilledClassifier


@pytest.fixture(scope="module")
def student(toy_reviews):
    teacher = DistilledClassifier("linear", vocab_size=400, epochs=2, device="cpu").fit(toy_reviews.text, toy_reviews.label).classifier_
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


def test_loaded_students_remember(folder, student):
    assert DistilledClassifier.load(folder).facts_ == student.facts_


def test_other_weights_inherit_no_score(folder):
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="other weights"):
        read_facts(folder)


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
            text = good[:place] if number % 4 else good[:place] + chr(int(generator.integers(32, 127))) + good[place + 1:]
        (folder / FACTS).write_text(text)
        try:
            read_facts(folder)
        except ValueError as error:
            assert FACTS in str(error)
