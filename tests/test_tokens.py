"""The ragged store and its batches: properties that hold for any texts and any settings."""
from functools import cache

import numpy as np
import pytest
from conftest import sentences
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from distillnb import runtime, tokens
from distillnb.tokens import Tokens, batches, demo_model, encode, load_tokens, save_tokens, tokenize, train_tokenizer

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def store(lengths, seed=0):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.random.default_rng(seed).integers(0, 99, offsets[-1]).astype(np.int32)
    return Tokens(ids, offsets, np.zeros(len(lengths), dtype=bool), 128, 0, "toy")


@given(lengths, st.one_of(st.none(), st.integers(1, 9)), st.one_of(st.none(), st.integers(1, 90)),
       st.one_of(st.none(), st.integers(1, 5)), st.integers(0, 99))
def test_batches_visit_each_row_exactly_once(lengths, batch_size, max_tokens, bucket, seed):
    if batch_size is None and max_tokens is None:
        return
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(lengths))
    groups = batches(np.array(lengths), order, batch_size, max_tokens, bucket, generator)
    assert sorted(np.concatenate(groups)) == list(range(len(lengths)))
    for rows in groups:
        assert batch_size is None or len(rows) <= batch_size
        assert max_tokens is None or len(rows) == 1 or len(rows) * np.array(lengths)[rows].max() <= max_tokens


@given(lengths, st.data())
def test_padded_and_bag_hold_the_same_ids(lengths, data):
    tokens = store(lengths)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=8)))
    input_ids, mask = tokens.padded(rows)
    flat, starts = tokens.bag(rows)
    assert np.array_equal(input_ids[mask], flat)
    assert np.array_equal(mask.sum(1), tokens.lengths[rows])
    assert (input_ids[~mask] == tokens.pad_id).all()
    for row, start in zip(rows, starts):
        assert np.array_equal(flat[start:start + tokens.lengths[row]], tokens[int(row)])


@given(lengths, st.data())
def test_slices_and_picks_agree_with_single_texts(lengths, data):
    tokens = store(lengths)
    start = data.draw(st.integers(0, len(lengths)))
    stop = data.draw(st.integers(start, len(lengths)))
    part, picked = tokens[start:stop], tokens[np.arange(start, stop)]
    assert len(part) == len(picked) == stop - start
    assert part.fingerprint == picked.fingerprint
    assert all(np.array_equal(part[i], tokens[start + i]) for i in range(stop - start))


@settings(max_examples=20)
@given(lengths)
def test_disk_and_back(tmp_path_factory, lengths):
    folder = tmp_path_factory.mktemp("store")
    tokens = store(lengths)[len(lengths) // 2:]
    save_tokens(tokens, folder)
    assert load_tokens(folder).fingerprint == tokens.fingerprint


def test_truncation_is_counted(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = sentences(200, least=1, most=30)
    tokens = tokenize(texts, tokenizer, max_length=12, block=7)
    words = np.array([len(text.split()) for text in texts])
    assert np.array_equal(tokens.truncated, words > 10)
    assert np.array_equal(tokens.lengths, np.minimum(words, 10) + 2)


def test_fingerprint_follows_content_only(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    texts = sentences(30)
    fingerprint = tokenize(texts, tokenizer).fingerprint
    tokenizer(texts, padding=True, truncation=True, max_length=4)  # leaves its settings in the tokenizer
    assert tokenize(texts, tokenizer, block=3).fingerprint == fingerprint
    assert tokenize(texts[::-1], tokenizer).fingerprint != fingerprint
    assert tokenize(texts, tokenizer, max_length=64).fingerprint != fingerprint


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_tokens": 0}, {"bucket": 0}, {"batch_size": None}])
def test_impossible_batches(options):
    with pytest.raises(ValueError):
        batches(np.array([3, 4]), **options)


def test_wrong_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ValueError, match="not the tested file"):
        demo_model(tmp_path)
    with pytest.raises(ValueError, match="missing"):
        demo_model(tmp_path / "nowhere")


def test_missing_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="save_tokens"):
        load_tokens(tmp_path)


def test_rewriting_a_store_leaves_mapped_ones_whole(tmp_path):
    save_tokens(store([5] * 40), tmp_path)
    mapped = load_tokens(tmp_path)
    before = mapped.fingerprint
    save_tokens(store([2]), tmp_path)
    assert mapped.fingerprint == before and len(load_tokens(tmp_path)) == 1
    save_tokens(mapped[:3], tmp_path)
    assert len(load_tokens(tmp_path)) == 3 and len(list(tmp_path.iterdir())) == 4


def test_a_damaged_store_is_refused(tmp_path):
    save_tokens(store([5] * 40), tmp_path)
    np.save(tmp_path / "ids.npy", np.zeros(7, np.int32))
    with pytest.raises(ValueError, match="is damaged"):
        load_tokens(tmp_path)


def test_room_for_the_text_and_letters_that_are_none(tiny_bert):
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with pytest.raises(ValueError, match="leaves no room"):
        tokenize(["good film"], tokenizer, max_length=2)
    with pytest.raises(ValueError, match="Text 5 holds half an emoji"):
        tokenize(["good"] * 5 + ["bad \ud83d"], tokenizer, block=4)


@cache
def tokenizer_of(kind):
    """A tokenizer that knows words, or one that knows all bytes."""
    return AutoTokenizer.from_pretrained(demo_model()) if kind == "words" else train_tokenizer(sentences(300), 400)


pieces = st.sampled_from(["good film ", "a", "!", " ", "\n", "😀", "漢", "e\u0301", "\0", "don't ", "x" * 300, "ab,", "\u3000", "7"])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(pieces, st.integers(1, 900)), min_size=1, max_size=6), st.integers(4, 40), st.booleans(), st.sampled_from(["words", "bytes"]))
def test_a_long_text_is_cut_as_if_it_had_been_read_whole(parts, limit, from_right, kind):
    text = "".join(piece * times for piece, times in parts)
    core = Tokenizer.from_str(tokenizer_of(kind).backend_tokenizer.to_str())
    core.enable_truncation(limit, direction="left" if from_right else "right")
    core.no_padding()
    whole = core.encode(text)
    ids, lengths, cut = encode(core, [text, "good", text])
    assert ids[:lengths[0]].tolist() == ids[-lengths[2]:].tolist() == whole.ids
    assert cut.tolist() == [bool(whole.overflowing), False, bool(whole.overflowing)]
    again = runtime._encode(core, [text, "good", text])  # which stands alone, and has the same lines again
    assert np.array_equal(again[0], ids) and np.array_equal(again[1], lengths)


@pytest.mark.parametrize("text", ["ab " * 3_000_000, "x" * 9_000_000, "漢" * 9_000_000, " " * 9_000_000], ids=["words", "word", "signs", "blanks"])
def test_no_more_of_a_huge_text_is_read_than_it_takes(text, monkeypatch):
    read = []
    end = tokens._end
    monkeypatch.setattr(tokens, "_end", lambda *given: read.append(len(end(*given))) or end(*given))
    for kind in ("words", "bytes"):
        read.clear()
        assert tokenize([text], tokenizer_of(kind)).truncated[0]
        assert sum(read) <= 1.3 * tokens._AT_MOST
