"""The comparison with what people would pick instead: each peer from its training to an answer in another process, on a few texts."""
import ast
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_style import WIDEST, definitions, own_lines, wrong_negations
from tqdm import tqdm

import benchmarks.compare as compare
import benchmarks.compare_peers as peers
from benchmarks.compare_peers import LESSONS, PEERS, Peer, Task, tuned
from distillnb.data import Splits, label_ids, read_reviews
from distillnb.student import Recipe

FILES = sorted(Path(compare.__file__).parent.glob("compare*.py"))


@pytest.fixture(scope="module")
def splits(toy_reviews):
    frame = read_reviews(toy_reviews, report=None)
    train, validation, test, transfer = (frame.iloc[a:b].reset_index(drop=True) for a, b in ((0, 240), (240, 320), (320, 440), (440, 500)))
    return Splits(train=train, validation=validation, test=test, transfer=transfer.assign(label=pd.Categorical([None] * 60, dtype=transfer["label"].dtype)))


@pytest.fixture
def task(splits, tiny_bert):
    known = splits.validation.text.tolist(), label_ids(splits.validation)
    return Task(LESSONS[0], splits.train.text.tolist(), label_ids(splits.train), *known, tiny_bert, None, None, print, {})


def needs(module, extra="compare"):
    return pytest.mark.skipif(find_spec(module) is None, reason=f"{module} is not installed: pip install 'distillnb[{extra}]'")


def measured_here(peer, folder, texts):
    """As `measure`, but in this process, which has loaded all of it already."""
    return np.asarray(peer.load(folder)(texts)).tolist(), sum(file.stat().st_size for file in folder.rglob("*")) / 1000, 1.


def rows_of(name, task, splits, forms):
    """Train a peer on two seeds, where it has any, and check every form of it."""
    rows = compare.try_peer(PEERS[name], task, splits.test.text.tolist(), 2, tqdm(disable=True))
    assert [row["form"] for row in rows] == forms
    for row in rows:
        assert np.mean(np.array(row["said"]) == label_ids(splits.test)) > .6, row["form"]
        assert len(row["said"]) == 1 + PEERS[name].seeded
        assert row["kb"] > 0 and row["texts_per_second"] > 0 and row["train_seconds"] >= 0
    return rows


@pytest.mark.parametrize("name", ["tf-idf words", "tf-idf words and letters"])
def test_tfidf(name, task, splits):
    row, = rows_of(name, task, splits, ["pickle"])
    assert row["chosen"] in map(str, peers.REGULARISATION)


@needs("fasttext", "bench")
def test_fasttext(task, splits, monkeypatch):
    monkeypatch.setattr(compare, "measure", measured_here)
    monkeypatch.setitem(peers.FASTTEXT, "bucket", 5_000)
    monkeypatch.setitem(peers.FASTTEXT, "dim", 8)
    monkeypatch.setattr(peers, "FASTTEXT_GRID", ((.5, 2), (1., 25)))
    monkeypatch.setattr(peers, "FASTTEXT_CUTOFFS", {"ftz": 4_000, "ftz, small": 1_000})
    whole, medium, small = rows_of("fastText", task, splits, ["bin", "ftz", "ftz, small"])
    assert whole["kb"] > medium["kb"] > small["kb"]


@needs("fasttext", "bench")
def test_a_text_without_a_word_is_answered(task, tmp_path, monkeypatch):
    from fasttext import train_supervised
    (tmp_path / "train.txt").write_text("__label__0 good\n__label__1 bad\n")
    model = train_supervised(str(tmp_path / "train.txt"), bucket=100, dim=4, verbose=0, thread=1)
    assert len(peers._fasttext_ids(model, ["", "good", "(.)"])) == 3


@needs("model2vec")
def test_model2vec(task, splits, monkeypatch):
    monkeypatch.setattr(peers, "FACTORS", (3.,))
    whole, small = rows_of("model2vec", task, splits, ["32 bits", "8 bits"])
    assert whole["kb"] > small["kb"]


@pytest.fixture(scope="module")
def run(tiny_bert, tmp_path_factory):
    """Run all of a set, with a tiny teacher, beside peers that take no time; the rows, and what was said on the way."""
    recipes = {"linear": Recipe("linear", {"width": 20}, "sgd", .5, .5, batch_size=4, epochs=2, least_examples=1)}
    settings = {"teacher": str(tiny_bert), "fine_tune": True, "tune": (1.,), "workers": 1, "max_length": 32, "recipes": recipes,
                "teacher_options": {"epochs": 8, "learning_rate": 5e-3, "freeze_layers": 0}, "device": "cpu",
                "cache": tmp_path_factory.mktemp("cache")}

    def run(splits, seeds, *few):
        said = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compare, "PEERS", {peer.name: peer for peer in few})
            patch.setattr(compare, "measure", measured_here)
            return compare.run_set(splits, seeds, said.append, **settings), said
    return run


@pytest.fixture(scope="module")
def result(splits, run):
    def broken(task, folder):
        raise RuntimeError("no luck")
    return run(splits, 2, PEERS["tf-idf words"], PEERS["teacher"], Peer("broken", broken, print))


@pytest.mark.parametrize("further", [60, 0])
def test_classes_belong_to_their_texts(further, splits, run):
    """Without further texts the experiment makes fragments for its students, which the others do not see."""
    tasks = []
    run(splits._replace(transfer=splits.transfer[:further]), 1, Peer("watching", lambda task, folder: tasks.append(task), print))
    direct, taught = tasks
    assert direct.texts == splits.train.text.tolist() and direct.classes.tolist() == label_ids(splits.train).tolist()
    assert taught.texts == [*direct.texts, *splits.transfer.text[:further]]
    assert taught.classes.tolist() == taught.teacher.logits(taught.texts).argmax(1).tolist() and len({*taught.classes}) > 1
    assert len(taught.results.lesson) > len(taught.texts) or further


def test_a_set(result):
    rows, said = result
    assert [(row["peer"], row["lesson"]) for row in rows if row["form"] in ("pickle", "model", "whole")] == [
        *(("tf-idf words", lesson) for lesson in LESSONS), ("teacher", "labels"), *(("student linear", lesson) for lesson in LESSONS)]
    assert {row["seeds"] for row in rows if row["peer"] == "student linear"} == {2}
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in rows)
    assert sum(row["baseline"] for row in rows) == 1 and all(row["baseline"] or "verdict" in row for row in rows)
    assert any("broken, labels, is left out: RuntimeError: no luck" in text for text in said)
    assert all(row["kb"] <= peers.MAX_KB for row in rows if row["form"] == f"{peers.MAX_KB} kB")


def test_the_page_and_the_table(result):
    rows, _ = result
    state = {"sets": {"one & only": {"rows": rows, "parts": "train 240", "notes": ["<note>"], "machine": "slow", "settings": {}}}}
    html, table = compare.page(json.loads(json.dumps(state))), compare.markdown(state["sets"])
    assert html.count("<svg ") == 2 and "&lt;note&gt;" in html and "one &amp; only" in html and "http" not in html.replace("http://www.w3.org", "")
    assert len(table.strip().splitlines()) == len(rows) + 4 and "the baseline" in table


def test_judged_against_the_best_tfidf():
    truth = np.arange(200) % 2
    wrong = lambda many: np.where(np.arange(200) < many, 1 - truth, truth).tolist()
    rows = [{"peer": peer, "said": [wrong(many) for many in misses]} for peer, misses in (
        ("tf-idf words", [60]), ("tf-idf words and letters", [40]), ("good", [5, 7]), ("bad", [90]), ("equal", [41]))]
    judged = compare.judge(rows, truth, 2)
    assert [row["baseline"] for row in judged] == [False, True, False, False, False]
    assert [row.get("verdict") for row in judged] == ["worse", None, "better", "worse", "open"]
    assert judged[2]["accuracy"] == pytest.approx(.97) and judged[2]["seeds"] == 2 and "said" not in judged[2]


def test_the_first_seed_chooses_for_the_others(task):
    tried = []
    answers = {1: 1 - task.truth, 2: task.truth, 3: task.truth}
    for seed in (0, 1):
        kept = tuned(replace(task, seed=seed), (1, 2, 3), lambda option: tried.append(option) or option, answers.get)
        assert kept == 2
    assert tried == [1, 2, 3, 2]


def folder_of_sets(tmp_path, splits):
    for name in ("tweet_mood", "other"):
        (tmp_path / name).mkdir()
        for part in ("train", "validation", "test"):
            getattr(splits, part).to_csv(tmp_path / name / f"{part}.csv", index=False)
    (tmp_path / "tweets_unlabelled").mkdir()
    pd.DataFrame({"text": ["a good book", "an awful film"]}).to_csv(tmp_path / "tweets_unlabelled" / "transfer.csv", index=False)
    return tmp_path


def test_sets_are_found_and_read(tmp_path, splits):
    sets = compare.find_sets(folder_of_sets(tmp_path, splits))
    assert list(sets) == ["demo", "other", "tweet_mood"] and list(compare.find_sets(None)) == ["demo"]
    sizes = {name: [len(part) for part in compare.load_splits(name, sets[name], False, lambda text: None)] for name in ("other", "tweet_mood")}
    assert sizes["tweet_mood"][:3] == sizes["other"][:3] and {*sizes["tweet_mood"]} - {*sizes["other"]} == {2}
    assert max(len(part) for part in compare.load_splits("other", sets["other"], True, lambda text: None)) <= 500


@pytest.mark.parametrize("arguments, message", [
    (["nothing"], "there is no set 'nothing': choose from demo, other, tweet_mood"), (["--seeds", "0"], "give 1 or more"),
    (["--data", "nowhere"], "nowhere is not a folder"), (["--output", "damaged"], "is damaged: delete it")])
def test_what_cannot_be_asked_for(arguments, message, tmp_path, splits, capsys, monkeypatch):
    folder_of_sets(tmp_path, splits)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "compare.json").write_text("{")
    with pytest.raises(SystemExit) as stop:
        compare.main(["--data", str(tmp_path), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_what_is_there_is_skipped_and_what_was_done_is_kept(tmp_path, splits, result, monkeypatch, capsys):
    (tmp_path / "data").mkdir()
    folder_of_sets(tmp_path / "data", splits)
    runs = []

    def run_set(splits, seeds, say, **changes):
        runs.append(seeds)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return result[0]
    monkeypatch.setattr(compare, "run_set", run_set)
    command = ["other", "tweet_mood", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        compare.main(command)
    assert stop.value.code == 130 and "1 sets are kept" in capsys.readouterr().err
    compare.main(command)
    assert len(runs) == 3 and {*json.loads((tmp_path / "out" / "compare.json").read_text())["sets"]} == {"other", "tweet_mood"}
    assert (tmp_path / "out" / "compare.html").is_file() and "## tweet_mood" in capsys.readouterr().out
    compare.main(command)
    assert len(runs) == 3
    compare.main([*command, "--seeds", "1"])
    compare.main([*command, "--seeds", "1", "--again"])
    assert runs[3:] == [1] * 4


def test_what_is_not_installed_is_named(monkeypatch, tmp_path, splits, result, capsys):
    folder_of_sets(tmp_path, splits)
    monkeypatch.setitem(PEERS, "missing", Peer("missing", print, print, needs=("no_such_module",)))
    monkeypatch.setattr(compare, "run_set", lambda *_, **__: result[0])
    compare.main(["other", "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    assert "missing is left out, for want of no_such_module: run make compare" in capsys.readouterr().err


def test_every_peer_is_there():
    assert list(PEERS) == ["tf-idf words", "tf-idf words and letters", "fastText", "model2vec", "model2vec of the teacher",
                           "MiniLM frozen", "teacher"]
    assert {*compare.BASELINES} <= {*PEERS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_form(path):
    assert not {number: len(line) for number, line in own_lines(path) if len(line) > WIDEST}
    for name, node in definitions(ast.parse(path.read_text())):
        text = ast.get_docstring(node)
        public = not any(part.startswith(("_", "<")) for part in name.split("."))
        assert text and text.strip().endswith((".", "...")) if public else text is None or text.strip().endswith((".", "..."))
        assert node.end_lineno - node.lineno < 60, name
        assert not wrong_negations(text or "")
