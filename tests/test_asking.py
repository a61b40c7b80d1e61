"""What to ask about, and what to read again."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb.asking import ask_in_rounds, choose_texts, find_suspects
from distillnb.labelling import any_teacher

WORDS = st.lists(st.sampled_from("good bad film train late day crew nice the".split()), min_size=0, max_size=5).map(" ".join)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(WORDS, min_size=3, max_size=30), data=st.data())
def test_as_many_as_asked_for_and_each_once(texts, data):
    n = data.draw(st.integers(1, len(texts)))
    doubts = data.draw(st.sampled_from([None, np.random.default_rng(0).dirichlet([1, 1, 1], len(texts))]))
    chosen = choose_texts(texts, n, doubts)
    assert len({*chosen.tolist()}) == n and set(chosen.tolist()) <= set(range(len(texts)))
    assert np.array_equal(chosen, choose_texts(texts, n, doubts))


def test_doubtful_texts_come_first():
    texts = [f"text {i} of its own kind {i % 7}" for i in range(200)]
    sure = np.tile([[.99, .01]], (200, 1))
    sure[::20] = [.51, .49]
    assert set(choose_texts(texts, 10, sure)) <= set(range(0, 200, 20)) | set(np.argsort(sure[:, 0], kind="stable")[:50])
    assert set(choose_texts(texts[::20], 10, sure[::20])) == set(range(10))


def test_rounds_spend_the_budget_and_no_more(toy_reviews):
    asked = []

    def by_word(texts):
        asked.extend(texts)
        return [[.9, .1] if "bad" in text or "awful" in text else [.2, .8] for text in texts]
    texts = toy_reviews.text.drop_duplicates().tolist()
    answers = ask_in_rounds(any_teacher(by_word, ["no", "yes"]), texts, 60)
    assert len(answers) == 60 and answers.text.is_unique and sorted(asked) == sorted(answers.text)
    assert list(answers.columns) == ["text", "no", "yes"]
    for budget in (1, len(texts) + 1):
        with pytest.raises(ValueError, match=f"budget={budget}"):
            ask_in_rounds(any_teacher(by_word, ["no", "yes"]), texts, budget)


def test_rounds_go_on_from_their_file(toy_reviews, tmp_path):
    calls = []

    def by_word(texts):
        calls.append(len(texts))
        return [[.9, .1] if "bad" in text else [.2, .8] for text in texts]
    texts = toy_reviews.text.drop_duplicates().tolist()
    teacher = any_teacher(by_word, ["no", "yes"])
    first = ask_in_rounds(teacher, texts, 40, file=tmp_path / "answers.csv")
    before = sum(calls)
    again = ask_in_rounds(teacher, texts, 40, file=tmp_path / "answers.csv")
    assert sum(calls) == before == 40 and first.text.tolist() == again.text.tolist()


def test_exchanged_labels_are_found():
    rng = np.random.default_rng(0)
    words = {"sport": "goal match team", "food": "soup bread cook", "rail": "train ticket late"}
    rows = [(" ".join(rng.choice(words[name].split(), 4)), name) for name in words for _ in range(60)]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    wrong = rng.choice(len(frame), 12, replace=False)
    labels = frame.label.to_numpy(copy=True)
    labels[wrong] = ["food" if name == "sport" else "sport" for name in labels[wrong]]
    found = find_suspects(frame.text, labels)
    seen = sorted({*wrong} & {*found.index})
    assert len(seen) >= 10 and len(found) <= 20
    assert (found.loc[seen, "instead"] == frame.label[seen]).all()
    assert found.sure.is_monotonic_decreasing


@pytest.mark.parametrize("texts, labels, said", [(["a"], ["x", "y"], "1 texts and 2"), (["a", "b"] * 9, ["x"] * 17 + ["y"], "'y' has 1"),
                                                 (["a"] * 9, ["x"] * 9, "two or more classes")])
def test_suspects_refuse(texts, labels, said):
    with pytest.raises(ValueError, match=said):
        find_suspects(texts, labels)


def test_rounds_ask_once_about_texts_that_are_one(toy_reviews):
    asked = []

    def by_word(texts):
        asked.extend(texts)
        return [[.9, .1] if "bad" in text else [.2, .8] for text in texts]
    texts = toy_reviews.text.drop_duplicates().tolist()[:40]
    twice = [text + blank for text in texts for blank in ("", " ")]
    answers = ask_in_rounds(any_teacher(by_word, ["label", "n"]), twice, 40, first=4)
    assert len(answers) == 40 == len(asked) == answers.text.str.strip().nunique()


def test_rounds_with_several_labels(toy_reviews):
    teacher = any_teacher(lambda texts: [[.9, .8]] * len(texts), ["p", "n"], multilabel=True)
    assert len(ask_in_rounds(teacher, toy_reviews.text.tolist(), 12, first=4)) == 12


def test_doubts_of_other_shapes():
    texts = [f"text {i}" for i in range(6)]
    assert choose_texts(texts, 1, [[.9], [.5], [.9], [.9], [.9], [.9]]).tolist() in ([0], [1], [2], [3], [4], [5])
    with pytest.raises(ValueError, match="a row for each text"):
        choose_texts(texts, 2, np.ones((3, 2)) / 2)


def test_suspects_keep_their_index():
    frame = pd.DataFrame({"text": ["goal match", "soup bread"] * 20, "label": ["a", "b"] * 20}, index=range(100, 140))
    frame.loc[107, "label"] = "a"
    assert find_suspects(frame.text, frame.label).index.tolist() == [107]
