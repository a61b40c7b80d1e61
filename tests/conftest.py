"""Small real things that several tests need: a tiny BERT in a folder, and review tables."""
import gzip
import os
import signal

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models here are so small that threads would only wait for each other

import numpy as np
import pandas as pd
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored, here and in what we start

WORDS = "bad awful poor fine okay plain good great superb film book phone the a was is very not really and".split()


def make_tiny_bert(folder):
    """A BERT of two layers and width 32 with random weights, three named classes and a word-level tokenizer, as a folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])}
    torch.manual_seed(0)
    names = ["negative", "neutral", "positive"]
    config = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                        max_position_embeddings=160, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)})
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    return make_tiny_bert(tmp_path_factory.mktemp("tiny_bert"))


def sentences(n, seed=0, least=3, most=20):
    """`n` texts of random words."""
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(least, most))) for _ in range(n)]


@pytest.fixture(scope="session")
def toy_reviews():
    """600 distinct texts whose class is decided by the one opinion word in them."""
    generator = np.random.default_rng(0)
    rows = []
    for i in range(600):
        label = int(generator.integers(3))
        words = [*generator.choice(WORDS[9:], generator.integers(4, 9)), WORDS[3 * label + int(generator.integers(3))]]
        rows.append((" ".join(generator.permutation(words)) + f" {i}", ["negative", "neutral", "positive"][label]))
    return pd.DataFrame(rows, columns=["text", "label"])


AMAZON = ("marketplace customer_id review_id product_id product_parent product_title product_category star_rating helpful_votes "
          "total_votes vine verified_purchase review_headline review_body review_date").split()


@pytest.fixture(scope="session")
def amazon_file(tmp_path_factory):
    """A gzipped file in the Amazon format, with 500 good rows, and what such files have besides; and the counts of it."""
    generator = np.random.default_rng(1)
    lines = ["\t".join(AMAZON)]
    for i, text in enumerate(sentences(500, seed=2)):
        body = f'He said "{text}' if i % 50 == 0 else f"{text} {i}"  # a quote that is never closed
        row = dict.fromkeys(AMAZON, "x") | {"review_id": f"R{i}", "star_rating": str(generator.integers(1, 6)), "review_body": body}
        lines.append("\t".join(row.values()))
    good = lines[5].split("\t")
    lines.insert(100, "\t".join(good[:7]))  # the line stops early
    lines.insert(200, "\t".join([*good[:13], "a tab\tin the text", good[14]]))  # one field too many
    lines.insert(300, "\t".join(field if name != "review_body" else "" for name, field in zip(AMAZON, good)))
    lines.insert(400, "\t".join(field if name != "star_rating" else "" for name, field in zip(AMAZON, good)))
    path = tmp_path_factory.mktemp("amazon") / "amazon_reviews_multilingual_UK_v1_00.tsv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        file.write("\n".join(lines) + "\n")
    return path, {"kept": 500, "unreadable": 2, "without_text": 1, "without_label": 1}
