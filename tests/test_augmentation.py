"""Distorted texts: what may come out, how often, and from what."""
import numpy as np
import pytest
from conftest import WORDS, sentences
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb.augmentation import augment, lexicon_tags

TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=8)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 4), st.integers(0, 5), TEXTS)
def test_nothing_old_nothing_twice_nothing_forbidden(texts, rounds, seed, forbidden):
    made = augment(texts, rounds, exclude=forbidden, seed=seed, tagger=None)
    assert made.text.is_unique and not set(made.text) & {*texts, *forbidden, ""}
    known = {word for text in texts for word in text.split()} | {"[MASK]"}
    for text, source in zip(made.text, made.source):
        assert set(text.split()) <= known and len(text.split()) <= len(texts[source].split())
    assert made.equals(augment(texts, rounds, exclude=forbidden, seed=seed, tagger=None))


def test_a_word_is_replaced_by_one_of_its_kind():
    texts = ["good book", "bad film", "great phone"] * 5
    kind = {"good": 0, "bad": 0, "great": 0, "book": 1, "film": 1, "phone": 1}
    made = augment(texts, 30, p_mask=0., p_pos=.9, p_ngram=0., tagger=lambda words: [kind[word] for word in words])
    assert len(made) == 6 and all([kind[word] for word in text.split()] == [0, 1] for text in made.text)


def test_the_chances_are_those_asked_for():
    texts = [" ".join(f"w{i}x{j}" for j in range(20)) for i in range(2000)]
    cut = augment(texts, 1, p_mask=0., p_pos=0., p_ngram=.25, tagger=None)
    lengths = cut.text.str.split().str.len()
    assert abs(len(cut) / 2000 - .25) < .04 and lengths.between(1, 5).all() and lengths.value_counts(normalize=True).between(.12, .28).all()
    assert len(augment(texts, 1, p_mask=0., p_pos=0., p_ngram=0.)) == 0
    words = np.array([text.split() for text in augment(texts, 1, p_mask=.2, p_pos=0., p_ngram=0., tagger=None).text])
    assert abs((words == "[MASK]").mean() - .2) < .02


@pytest.mark.parametrize("options, error, message", [
    ({"p_mask": 1.2}, ValueError, "between 0 and 1"), ({"p_pos": -.1}, ValueError, "p_pos=-0.1"), ({"rounds": -1}, ValueError, "0 or more"),
    ({"longest": 0}, ValueError, "1 or more words"), ({"tagger": lambda words: []}, ValueError, "one a word")])
def test_bad_settings(options, error, message):
    with pytest.raises(error, match=message):
        augment(sentences(3), **options)


def test_texts_that_are_none():
    with pytest.raises(TypeError, match="Text 1 is nan"):
        augment(["good", float("nan")])
    assert augment([], 3).empty and augment(["", "  "], 3).empty


def test_default_tags():
    assert lexicon_tags("the dull film was badly played.".split()) == ["DT", "JJ", "NN", "VBD", "RB", "VBD"]
    odd = ["...", "\U0001f600", "http://x.y/z", "a/b", "#tag", "", "&amp;"]
    assert len(lexicon_tags(odd)) == len(odd)
