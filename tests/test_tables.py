"""One reader and one writer: whatever is written comes back, and whatever is read is text or a clear error. About 40 s.

More inputs: DISTILLNB_FUZZ=100000 pytest tests/test_tables.py"""
import gzip
import json
import multiprocessing
import os
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from distillnb.data import read_reviews, read_texts
from distillnb.tables import (ENDINGS, WRITTEN, alone, begun_table, ending, has_fasttext_labels, list_of_texts, read_table, whole_text,
                              with_numbers, write_table)

FUZZ = int(os.environ.get("DISTILLNB_FUZZ", 2000))
WRITABLE = [kind + packed for kind in WRITTEN for packed in ("", ".gz")]
ODD = ["", " ", "NA", "nan", "None", "null", "True", "007", "1e5", "1.10", "=1+1", "-", '"', '""', '"a"', '"a ""b"""', '"a\tb"', "a,b", "a;b|c",
       " blanks ", "\ttab", "\ufeffmark", "two\nlines", "cr\r", "\rcr", "cr\r\nlf", "a\r\n", "nul\0", "\u2028", "\x85", "\ufffd", "sep=;", "text", "label", "0",
       "é", "\U0001f600", "__label__x y", "{", '{"text": 1}', "word " * 40_000]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


def fit(texts, kind):
    "Those texts that the format can hold"
    return [text for text in texts if not kind.startswith(".tsv") or "\n" not in text and not text.endswith("\r")]


# Write, go on, read as answers, read as texts

def there_and_back(folder, kind, texts, names):
    from distillnb.labelling import any_teacher, label_texts

    def answer(asked):
        rows = np.array([[1 + (len(text) * 7 + i * 13) % 11 for i in range(len(names))] for text in asked], float)
        return rows / rows.sum(1, keepdims=True)

    file = folder / f"answers{kind}"
    file.unlink(missing_ok=True)
    teacher = any_teacher(answer, names)
    half = len(texts) // 2
    if half:
        label_texts(teacher, texts[:half], file, block=3)
    first = label_texts(teacher, texts, file, block=3)
    written = file.read_bytes()
    again = label_texts(any_teacher(lambda asked: 1 / 0, names), texts, file)  # nobody is asked
    assert file.read_bytes() == written and first["text"].tolist() == texts
    pd.testing.assert_frame_equal(first, again)
    read = any_teacher(file, names)
    assert read.names == names and np.allclose(read(texts), first[names], atol=1e-6)
    own = {text.strip(): text for text in reversed(texts)}
    found = read_texts(file, "text", report=None)["text"].tolist()
    assert {text.strip() for text in found} == set(own) and len(found) == len(own) and set(found) <= set(texts)
    if any(text.strip() for text in texts):
        assert read_reviews(file, "text", False, report=None)["text"].tolist() == [text for text in found if text.strip()]


NAMES = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=2, max_size=4, unique=True)


@pytest.mark.parametrize("kind", WRITABLE)
def test_odd_texts_and_labels_survive(tmp_path, kind):
    texts = fit(ODD, kind)
    there_and_back(tmp_path, kind, texts, ["no", "yes"])
    names = [name for name in texts if name != "text" and len(name) < 99]
    if kind.startswith(".tsv"):
        names = [name for name in names if name == name.strip() and name[:1] != "\ufeff"]
    there_and_back(tmp_path, kind, texts, names)
    there_and_back(tmp_path, kind, ["text", "a", "\ufefftext"][:2 if "tsv" in kind else 3], ["0.5", ".5"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WRITABLE), st.lists(st.one_of(st.sampled_from(ODD[:-1]), st.text(st.characters(codec="utf-8"))), min_size=1, max_size=8), NAMES)
@example(".csv", ["text"], ["1", "0"])
@example(".jsonl", ["a", "a "], ["x", "y"])
def test_any_text_and_any_label_survive(tmp_path_factory, kind, texts, names):
    assume("text" not in names)
    if kind.startswith(".tsv"):
        texts, names = fit(texts, kind), [name for name in fit(names, kind) if name == name.strip() and name[:1] != "\ufeff"]
        assume(texts and len(names) > 1)
    there_and_back(tmp_path_factory.getbasetemp(), kind, texts, names)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WRITABLE), st.lists(st.tuples(st.text(), st.text(), st.floats(width=32)), max_size=6))
def test_the_reader_gives_what_the_writer_got(tmp_path_factory, kind, rows):
    path = tmp_path_factory.getbasetemp() / f"table{kind}"
    frame = pd.DataFrame(rows, columns=["text", "label, really", "number"]).astype({"number": np.float32})
    try:
        write_table(frame, path)
    except ValueError as error:
        assert ".tsv" in kind and "cannot hold" in str(error)
        return
    if not rows and "jsonl" in kind:
        return
    back = read_table(path).frame
    assert back["text"].tolist() == frame["text"].tolist() and back["label, really"].tolist() == frame["label, really"].tolist()
    numbers = [np.float32(value) if value not in ("", None) else np.float32("nan") for value in back["number"]]
    assert np.array_equal(numbers, frame["number"].to_numpy(), equal_nan=True)


def test_what_a_format_cannot_hold_is_said_before_anything_is_written(tmp_path):
    from distillnb.labelling import any_teacher, label_texts
    teacher = any_teacher(lambda texts: 1 / 0, ["no", "yes"])
    for name, texts, match in (("a.tsv", ["fine", "two\nlines"], "row 1 has a line break"), ("a.csv", ["half \ud83d"], "half an emoji"),
                               ("a.txt", ["fine"], "written as .csv, .tsv, .jsonl"), ("answers", ["fine"], "written as")):
        with pytest.raises(ValueError, match=match):
            label_texts(teacher, texts, tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(ValueError, match="two cannot have one name"):
        label_texts(any_teacher(lambda texts: 1 / 0, ["text", "other"]), ["fine"])


# Going on with a file

@pytest.mark.parametrize("kind", WRITABLE)
def test_a_file_cut_at_any_byte_is_mended(tmp_path, kind):
    from distillnb.labelling import any_teacher, label_texts
    texts = fit(["one", 'two "quoted", é', "three\nlines\n\nin it", "", "four"], kind)
    teacher = any_teacher(lambda asked: [[.25, .75]] * len(asked), ["no, no", "yes"])
    file = tmp_path / f"answers{kind}"
    whole = label_texts(teacher, texts, file, block=2)
    content = file.read_bytes()
    for cut in range(len(content)):
        file.write_bytes(content[:cut])
        pd.testing.assert_frame_equal(label_texts(teacher, texts, file, block=2), whole)
        assert sorted(read_table(file).frame["text"]) == sorted(texts)


@pytest.mark.parametrize("kind", [".csv", ".csv.gz", ".jsonl"])
def test_a_row_that_is_whole_is_not_asked_for_again(tmp_path, kind):
    file = tmp_path / f"a{kind}"
    rows = pd.DataFrame({"text": ["one", "two\nlines", "three " * 9], "no": [.25, .5, .75]})
    begun_table(file, ["text", "no"])
    for start in range(3):
        write_table(rows[start:start + 1], file, append=True)
    content = file.read_bytes()
    file.write_bytes(content[:-14])  # in a .gz the last eight bytes are only a check
    assert begun_table(file, ["text", "no"])["text"].tolist() == ["one", "two\nlines"]
    assert read_table(file).frame["text"].tolist() == ["one", "two\nlines"]


@pytest.mark.parametrize("content, match", [
    ("text,no,yes\na,nan,.5\n", "row 0, of 'a', and column 'no' is missing"), ("text,no,yes\na,,1\n", "is missing"),
    ("text,no,yes\na,inf,.5\n", "infinity"), ("text,no,yes\na,.9,.9\n", "sum to 1.8"), ("text,no,yes\na,-1,2\n", "between 0 and 1"),
    ("text,no,yes\na,x,.5\n", "is 'x', which is not a number"), ("text,no,yes\na,.5\nb,.5,.5\n", "1 lines are damaged, the first after 0 rows"),
    ("text;no;yes\na;.5;.5\n", "saved by another program"), ("text,yes,no\na,.5,.5\n", "has the columns text, yes, no"),
    ("a letter to my aunt", "has the columns"), ("text,yes", "has the columns"), ("t,no,yes\n\"", "has the columns"),
])
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path, content, match):
    from distillnb.labelling import any_teacher, label_texts
    file = tmp_path / "a.csv"
    file.write_text(content)
    with pytest.raises(ValueError, match=match):
        label_texts(any_teacher(lambda asked: 1 / 0, ["no", "yes"]), ["b"], file)
    assert file.read_text() == content


@pytest.mark.parametrize("content", ["a letter to my aunt", '{"texts": "', '{"id": 5}\n{"te', "[1]\n"])
def test_lines_of_json_that_are_not_ours_are_left_alone(tmp_path, content):
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    with pytest.raises(ValueError, match="no JSON objects|has the columns"):
        begun_table(file, ["text", "no"])
    assert file.read_text() == content


def test_a_file_that_was_opened_in_a_spreadsheet_is_gone_on_with(tmp_path):
    from distillnb.labelling import any_teacher, label_texts
    file = tmp_path / "a.csv"
    file.write_bytes("\ufefftext,no,yes\r\nä,.5,.5\r\n".encode())
    label_texts(any_teacher(lambda asked: [[.1, .9]] * len(asked), ["no", "yes"]), ["ä", "b"], file)
    assert any_teacher(file)(["ä", "b"]).round(1).tolist() == np.array([[.5, .5], [.1, .9]], np.float32).tolist()


def hold(path, held, done):
    with alone(path):
        held.set()
        done.wait(30)


def test_two_processes_do_not_write_one_file(tmp_path):
    from distillnb.labelling import any_teacher, label_texts
    start = multiprocessing.get_context("spawn")
    held, done = start.Event(), start.Event()
    other = start.Process(target=hold, args=(tmp_path / "new" / "a.csv", held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(ValueError, match="is being written by another process"):
        label_texts(any_teacher(lambda asked: 1 / 0, ["no", "yes"]), ["a"], tmp_path / "new" / "a.csv")
    other.kill()  # and a lock does not outlive its process
    other.join()
    assert len(label_texts(any_teacher(lambda asked: [[.1, .9]], ["no", "yes"]), ["a"], tmp_path / "new" / "a.csv")) == 1


# Encodings, marks, separators, line ends

CAFE = "text,label\nDas Café ist schön,1\n“Très” – élégant €,2\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding, said", [("utf-8", None), ("utf-8-sig", None), ("cp1252", "Read as cp1252."), ("utf-16", "Read as utf-16."),
                                            ("utf-32", "Read as utf-32.")])
def test_encodings_are_detected_and_said(tmp_path, encoding, said, packed):
    path = tmp_path / ("r.csv" + ".gz" * packed)
    content = CAFE.encode(encoding)
    path.write_bytes(gzip.compress(content) if packed else content)
    reports = []
    frame = read_reviews(path, report=reports.append)
    assert frame["text"].tolist() == ["Das Café ist schön", "“Très” – élégant €"] and frame.attrs["report"]["undecodable"] == 0
    assert said in reports[0] if said else "Read as" not in reports[0]


def test_encodings_are_told(tmp_path):
    path = tmp_path / "r.csv"
    russian = "text,label\nплохая книга,1\nхорошая книга,2\n"
    path.write_bytes(russian.encode("cp1251"))
    with pytest.raises(ValueError, match="encoding="):
        read_reviews(path)
    assert read_reviews(path, encoding="cp1251", report=None)["text"].tolist() == ["плохая книга", "хорошая книга"]
    path.write_bytes(russian.encode("utf-16-le"))
    with pytest.raises(ValueError, match='encoding="utf-16-le"'):
        read_reviews(path)
    assert read_reviews(path, encoding="utf-16-le", report=None)["text"].tolist() == ["плохая книга", "хорошая книга"]
    for wrong in ("klingon", "hex", "idna", "rot13"):
        with pytest.raises(ValueError):
            read_reviews(path, encoding=wrong)


def test_a_file_that_is_mostly_utf8_stays_so(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes("text,label\nschön,1\n".encode() + b"sch\xf6n,2\n" + "\ufffd,1\n".encode())
    frame = read_reviews(path, report=None)
    assert frame["text"].tolist() == ["schön", "sch\ufffdn", "\ufffd"] and frame.attrs["report"]["undecodable"] == 1


@pytest.mark.parametrize("kind, body", [
    ("csv", "text,no,yes\na,.5,.5\n"), ("csv", '"text","no","yes"\n"a",".5",".5"\n'), ("tsv", "text\tno\tyes\na\t.5\t.5\n"),
    ("jsonl", '{"text": "a", "no": 0.5, "yes": 0.5}\n'), ("json", '[{"text": "a", "no": 0.5, "yes": 0.5}]'),
])
def test_a_byte_order_mark_is_seen_by_every_reader(tmp_path, kind, body):
    from distillnb.labelling import any_teacher
    for name, content in ((f"a.{kind}", body.encode("utf-8-sig")), (f"A.{kind.upper()}", body.encode("utf-16")),
                          (f"a.{kind}.gz", gzip.compress(body.encode("utf-8-sig")))):
        (tmp_path / name).write_bytes(content)
        assert any_teacher(tmp_path / name)(["a"]).tolist() == [[.5, .5]]
        assert read_reviews(tmp_path / name, "text", False, report=None)["text"].tolist() == ["a"]


def test_fasttext_labels_are_seen_behind_a_mark(tmp_path):
    (tmp_path / "a.txt").write_text("\n__label__pos good\n", encoding="utf-8-sig")
    (tmp_path / "b.txt").write_text("good __label__pos\n")
    assert has_fasttext_labels(tmp_path / "a.txt") and not has_fasttext_labels(tmp_path / "b.txt")


@pytest.mark.parametrize("separator, said", [(",", None), (";", "fields separated by ;"), ("\t", "fields separated by tabs"), ("|", "fields separated by |")])
def test_separators_are_detected_told_and_said(tmp_path, separator, said):
    rows = [["id", "text", "label"], ["1", '"a, b; c"', "x"], ["2", "d", "y"]]
    (tmp_path / "r.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
    reports = []
    assert read_reviews(tmp_path / "r.csv", report=reports.append)["text"].tolist() == ["a, b; c", "d"]
    assert said in reports[0] if said else "separated" not in reports[0]
    assert read_reviews(tmp_path / "r.csv", separator=separator, report=None)["text"].tolist() == ["a, b; c", "d"]
    (tmp_path / "e.csv").write_text(f"sep={separator}\n" + (tmp_path / "r.csv").read_text())
    assert read_reviews(tmp_path / "e.csv", report=None)["text"].tolist() == ["a, b; c", "d"]


def test_separators_of_our_own(tmp_path):
    (tmp_path / "r.csv").write_text("text~label\na,b~1\nc~2\n")
    with pytest.raises(ValueError, match="columns text~label"):
        read_reviews(tmp_path / "r.csv")
    assert read_reviews(tmp_path / "r.csv", separator="~", report=None)["text"].tolist() == ["a,b", "c"]
    (tmp_path / "r.tsv").write_text("text;label\na;1\nc;2\n")
    with pytest.raises(ValueError, match="separator=';'"):
        read_reviews(tmp_path / "r.tsv")
    for wrong in ("", ", ", "\n", '"'):
        with pytest.raises(ValueError, match="one character"):
            read_reviews(tmp_path / "r.csv", separator=wrong)


def test_commas_in_numbers_and_saved_row_numbers(tmp_path):
    from distillnb.labelling import any_teacher
    (tmp_path / "a.csv").write_text(";text;no;yes\n0;good;0,25;0,75\n1;bad;0,5;0,5\n")
    teacher = any_teacher(tmp_path / "a.csv")
    assert teacher.names == ["no", "yes"] and teacher(["bad", "good"]).tolist() == [[.5, .5], [.25, .75]]
    frame = pd.DataFrame({"Unnamed: 0": [0, 1], "text": ["good", "bad"], "no": [.25, .5], "yes": [.75, .5]})
    assert any_teacher(frame).names == ["no", "yes"]


def test_files_of_an_old_macintosh(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"text,label\rone,1\rtwo,2\r")
    (tmp_path / "r.tsv").write_bytes(b"text\tlabel\rone\t1\rtwo\t2\r")
    (tmp_path / "r.txt").write_bytes(b"1 one\r2 two\r")
    assert all(read_reviews(tmp_path / f"r.{kind}", report=None)["text"].tolist() == ["one", "two"] for kind in ("csv", "tsv", "txt"))


@pytest.mark.parametrize("kind, separator", [("csv", ","), ("tsv", "\t")])
def test_a_header_that_comes_again_is_left_out_and_said(tmp_path, kind, separator):
    part = "text,label\na,1\nb,2\n".replace(",", separator)
    (tmp_path / f"r.{kind}").write_text(part + "\ufeff" + part)
    reports = []
    frame = read_reviews(tmp_path / f"r.{kind}", report=reports.append)
    assert frame["text"].tolist() == list("abab") and frame.attrs["report"]["read"] == 4 and "header came 1 times more" in reports[0]


def test_spreadsheets_and_zips_are_called_what_they_are(tmp_path):
    noise = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))
    for begin, match in ((b"PK\x03\x04", "spreadsheet or a zip"), (b"\x1f\x8b", r"ending \.gz"), (b"PAR1", r"ending \.parquet")):
        (tmp_path / "r.csv").write_bytes(begin + noise)
        with pytest.raises(ValueError, match=match):
            read_table(tmp_path / "r.csv")


# Quotes in a .tsv

@pytest.mark.parametrize("quoted", ['"good start', 'he said "fine"', '"Quiet" they said', '"all of it"', '""', '"""', 'five" screen', "''", '"a" and "b"'])
def test_quotes_in_a_tsv_are_characters(tmp_path, quoted):
    from distillnb.labelling import any_teacher
    path = tmp_path / "a.tsv"
    path.write_text(f"text\tno\tyes\nbefore\t.5\t.5\n{quoted}\t.25\t.75\nafter\t.5\t.5\n")
    assert read_reviews(path, "text", False, report=None)["text"].tolist() == ["before", quoted, "after"]
    assert any_teacher(path)(["before", quoted, "after"])[:, 0].tolist() == [.5, .25, .5]


def test_a_tsv_that_pandas_has_quoted(tmp_path):
    texts = ["plain", 'say "hi"', '"', "a\ttab", 'a\t"tab"', "it's"]
    pd.DataFrame({"text": texts, "label": list("ababab")}).to_csv(tmp_path / "r.tsv", sep="\t", index=False)
    assert read_reviews(tmp_path / "r.tsv", report=None)["text"].tolist() == texts


# Answers

@pytest.mark.parametrize("missing", [np.nan, None, pd.NA, "", " ", "nan"])
def test_a_missing_number_is_named_by_row_and_column(missing):
    from distillnb.labelling import any_teacher
    frame = pd.DataFrame({"text": ["good", "bad"], "no": [.25, .5], "yes": pd.Series([.75, missing], dtype=object)})
    with pytest.raises(ValueError, match="row 1, of 'bad', and column 'yes' is missing"):
        any_teacher(frame)


def test_an_odd_number_is_named_and_words_are_no_classes():
    with pytest.raises(ValueError, match="row 1, of 'b', and column 'no' is 'n/a', which is not a number"):
        with_numbers(pd.DataFrame({"text": ["a", "b"], "no": ["1", "n/a"]}), "text")
    table = with_numbers(pd.DataFrame({"text": ["1", "2"], "who": ["me", "you"], "no": ["1", "0"]}), "text")
    assert table["text"].tolist() == ["1", "2"] and table["who"].tolist() == ["me", "you"] and table["no"].tolist() == [1., 0.]
    with pytest.raises(ValueError, match="two columns 'a'"):
        with_numbers(pd.DataFrame([["x", 1, 2]], columns=["text", "a", "a"]), "text")


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_texts_that_look_like_something_else_stay_texts(tmp_path, kind):
    from distillnb.labelling import any_teacher
    frame = pd.DataFrame({"text": ["12", "007", "True", "nan", "NA"], "no": [.1, .2, .3, .4, .5], "yes": [.9, .8, .7, .6, .5]})
    path = tmp_path / f"a.{kind}"
    frame.to_parquet(path) if kind == "parquet" else frame.to_json(path, orient="records") if kind == "json" else write_table(frame, path)
    assert np.allclose(any_teacher(path)(frame["text"].tolist()), frame[["no", "yes"]])
    assert read_reviews(path, "text", False, report=None)["text"].tolist() == frame["text"].tolist()


# A list of texts

@pytest.mark.parametrize("table, match", [
    (pd.DataFrame({"id": [1], "text": ["a"]}), r"table\['text'\]"), ({"Comment": ["a"]}, "one of its columns .Comment"), ("a text", r"\[text\]"),
])
def test_a_table_is_not_a_list_of_texts(table, match):
    from distillnb.labelling import any_teacher, label_texts
    with pytest.raises(TypeError, match=match):
        list_of_texts(table)
    with pytest.raises(TypeError, match=match):
        label_texts(any_teacher(lambda texts: 1 / 0, ["no", "yes"]), table)


def test_lists_of_texts():
    for texts in (["a", "b"], ("a", "b"), np.array(["a", "b"]), pd.Series(["a", "b"]), (letter for letter in "ab"), dict(a=1, b=2).keys()):
        assert list_of_texts(texts) == ["a", "b"]


# Every row

def test_read_texts_keeps_every_row(tmp_path):
    (tmp_path / "r.csv").write_text("id,text\n1,good film\n2,\n3,too,many\n4,bad film\n")
    frame = read_texts(tmp_path / "r.csv", report=None)
    assert frame["text"].tolist() == ["good film", "", "", "bad film"] and frame["row"].tolist() == [0, 1, 2, 3]
    (tmp_path / "r.txt").write_text("good film\n\n__label__x bad film\n")
    assert read_texts(tmp_path / "r.txt", report=None)["text"].tolist() == ["good film", "", "bad film"]
    (tmp_path / "one.csv").write_text("text\na\n\nb\n")
    assert read_texts(tmp_path / "one.csv", report=None)["text"].tolist() == ["a", "", "b"]
    (tmp_path / "r.jsonl").write_text('{"text": "a"}\n7\n{"text": null}\n{"text": "b"}\n')
    said = []
    assert read_texts(tmp_path / "r.jsonl", report=said.append)["text"].tolist() == ["a", "", "", "b"]
    assert said == ["r.jsonl: 4 rows read, 4 kept. 2 have no text."]
    assert read_texts({"review": ["a", None]}, "review", report=None)["text"].tolist() == ["a", ""]


# Whatever the bytes are

PIECES = [b"text", b"label", b",", b";", b"\t", b"\n", b"\r", b"\r\n", b'"', b'""', b"1", b".5", b"a", b" ", b"\xff", b"\0", b"{", b"}", b":", b"[", b"]",
          b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\xa9", b"\xe9", b"sep=", b"nan", b"1e999", b"\\ud83d", b"[" * 3000, b"9" * 5000,
          b'{"text": "a", "label": 1}\n', b"text,label\n", b"text\tlabel\n", b"text,no,yes\n", b"a,1\nb,2\n", b"a\t1\nb\t2\n", b"1 a\n2 b\n", b"__label__x a\n"]


def damaged(chance):
    "A file that was fine, or never was"
    if chance.random() < .3:
        return b"".join(chance.choices(PIECES, k=chance.randrange(25)))
    if chance.random() < .2:
        return chance.randbytes(chance.randrange(300))
    rows = "".join(f"text {i},{i % 2}\n" for i in range(5))
    content = bytearray(chance.choice([b"text,label\n" + rows.encode(), ("text,label\n" + rows).replace(",", "\t").encode(), rows.encode("utf-16"),
                                       "".join(json.dumps({"text": "é", "label": i}) + "\n" for i in range(4)).encode()]))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(content) + 1)
        content[at:at + chance.randrange(3)] = chance.choice(PIECES)
    return bytes(content[:chance.randrange(len(content) + 1)] if chance.random() < .3 else content)


def test_whatever_the_bytes_are_there_is_a_table_or_a_clear_error(tmp_path):
    from distillnb.labelling import _read_table
    chance, parquet = random.Random(0), tmp_path / "whole.parquet"
    pd.DataFrame({"text": ["a", "b"], "label": [1, 2]}).to_parquet(parquet)
    whole = parquet.read_bytes()
    for _ in range(FUZZ):
        kind, content = chance.choice([*ENDINGS, ".csv", ".tsv", ".csv.gz", ".jsonl.gz"]), damaged(chance)
        if kind == ".parquet" and chance.random() < .8:
            content = bytearray(whole)
            content[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"r{kind}"
        if kind.endswith(".gz") and chance.random() < .9:
            content = gzip.compress(bytes(content))[:chance.choice([None, None, -1, -9, 5])]
        path.write_bytes(content)
        for read in (lambda: read_reviews(path, report=None), lambda: read_texts(path, "text", report=None), lambda: _read_table(path, "text", None)):
            try:
                read()
            except ValueError as error:
                assert str(error) and not isinstance(error, UnicodeError), content


# Small things

def test_endings():
    assert [ending(path) for path in ("a.csv", "A.CSV.GZ", "b/c.jsonl.gz", "model", "x.parquet", "a.gz")] == [".csv", ".csv", ".jsonl", "", ".parquet", ""]


def test_half_an_emoji():
    assert [whole_text(value) for value in ("a\ud83d", "\ud83d\ude00", "é", None, 5)] == ["a\ufffd", "\U0001f600", "é", None, 5]


def test_tables_and_data_are_light():
    heavy = "torch transformers datasets pyarrow.parquet sklearn".split()
    code = f"import sys, distillnb.tables; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
