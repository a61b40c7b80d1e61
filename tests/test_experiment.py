"""Whole experiments on small things: both presets' operations, the files they leave, and interruptions."""
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from transformers import pipeline

from distillnb import experiment as module
from distillnb.data import label_names, read_reviews, split
from distillnb.experiment import PRESETS, RECIPES, WALKTHROUGH_RECIPES, Experiment
from distillnb.losses import CrossEntropy, Mix, SoftCrossEntropy

FAST = {"linear": replace(RECIPES["linear"], epochs=2), "cnn": replace(RECIPES["cnn"], epochs=2, sizes={"filters": 8})}


@pytest.fixture
def toy(tiny_bert, toy_reviews, tmp_path):
    return Experiment(data=toy_reviews, teacher=str(tiny_bert), fine_tune=False, recipes=FAST, cache=tmp_path / "cache", device="cpu",
                      labelled=100, max_length=32)


def test_tables_belong_together(toy):
    results = replace(toy, seeds=(0, 1)).run(say=None)
    models = [f"{name} {twin}" for name in ("linear", "cnn") for twin in ("direct", "distilled")]
    assert list(results.history.groupby(["model", "seed"]).size()) == [2] * 8
    assert set(results.summary.model) == {*models, "teacher", "commonest class"}
    assert list(results.verdicts.student) == ["linear", "linear", "cnn", "cnn"]
    last = results.history[results.history.epoch == 1].set_index(["model", "seed"]).test_acc
    summary = results.summary[results.summary.model.isin(models)].set_index(["model", "seed"]).accuracy
    assert np.allclose(last.sort_index(), summary.sort_index())
    for row in results.verdicts.itertuples():
        difference = summary[f"{row.student} distilled", row.seed] - summary[f"{row.student} direct", row.seed]
        assert np.isclose(row.difference, difference)


def test_same_seed_same_everything(toy):
    one, two = (replace(toy).run(say=None) for _ in range(2))
    pd.testing.assert_frame_equal(one.history, two.history)
    pd.testing.assert_frame_equal(one.verdicts, two.verdicts)


def test_twins_differ_only_in_what_they_are_told(toy, monkeypatch):
    """Same initial weights, same number of steps; with a cross entropy for both and all labels, the same student."""
    results = replace(toy, labelled=None, loss=CrossEntropy()).run(say=None)
    for name in ("linear", "cnn"):
        assert np.array_equal(results.predictions[f"{name} direct", 0], results.predictions[f"{name} distilled", 0])
        assert results.verdict(name, 0).word == "inconclusive"


@pytest.mark.parametrize("loss", [SoftCrossEntropy(3.0), Mix(alpha=.3)])
def test_other_losses_run(toy, loss):
    assert replace(toy, loss=loss, recipes={"cnn": FAST["cnn"]}).run(say=None).pairs == [("cnn", 0)]


def test_files_and_their_content(toy, tmp_path):
    results = toy.run(say=None)
    folder = results.save(tmp_path / "out")
    results.save(folder)
    files = {path.name for path in folder.iterdir()}
    assert files == {"history.csv", "summary.csv", "verdicts.csv", "report.html", "students"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), results.history, check_dtype=False)
    report = (folder / "report.html").read_text()
    assert "http" not in report.replace("http://www.w3.org", "").replace("https://www.w3.org", ""), "opens offline"
    for needed in ("cnn distilled", "<svg", "Learning curves", "Could it be luck?", "torch", "split_seed", *results.notes[:1]):
        assert needed in report
    classify = pipeline("text-classification", str(folder / "students" / "linear-distilled"), device="cpu")
    assert classify("a superb film")[0]["label"] in results.names


def test_report_escapes_what_users_wrote(toy, toy_reviews):
    odd = toy_reviews.assign(label=toy_reviews.label.replace("positive", "<b>fine</b>"))
    results = replace(toy, data=odd, teacher_labels=["negative", "neutral", "<b>fine</b>"], recipes={"linear": FAST["linear"]}).run(say=None)
    assert "<b>fine" not in results.report()


def test_interrupted_run_keeps_what_is_done(toy, monkeypatch, tmp_path):
    calls, original = [], module.train_loop

    def interrupting(*arguments, **options):
        history = original(*arguments, **options)
        calls.append(1)
        if len(calls) == 3:
            history = history[:1].copy()
            history.attrs["interrupted"] = True
        return history

    monkeypatch.setattr(module, "train_loop", interrupting)
    results = toy.run(say=None)
    assert results.interrupted and results.pairs == [("linear", 0)]
    assert len(results.history) == 5
    folder = results.save(tmp_path / "out")
    assert "interrupted" in (folder / "report.html").read_text()
    assert len(pd.read_csv(folder / "verdicts.csv")) == 1


def test_walkthrough_preset_on_an_amazon_file(amazon_file, tiny_bert, tmp_path):
    path, counts = amazon_file
    said = []
    experiment = Experiment.preset("walkthrough", data=path, teacher=str(tiny_bert), cache=tmp_path, device="cpu",
                                   teacher_options={"epochs": 1, "freeze_layers": 0})
    results = experiment.run(say=said.append)
    assert results.names == ["1", "2", "3", "4", "5"]
    assert len(results.history) == 20 and len(results.verdicts) == 2
    report = next(text for text in said if "rows read" in text)
    assert f"{counts['kept']} kept" in report and f"{counts['unreadable']} unreadable" in report
    assert any("research only" in text for text in said)


def test_walkthrough_preset_is_faithful():
    linear, cnn = WALKTHROUGH_RECIPES["linear"], WALKTHROUGH_RECIPES["cnn"]
    assert (linear.batch_size, linear.optimizer, linear.rate, linear.decay, linear.epochs) == (1, "sgd", .5, .5, 5)
    assert (cnn.batch_size, cnn.optimizer, cnn.rate, cnn.epochs) == (32, "adam", 1e-3, 5)
    assert not linear.shuffle and not cnn.shuffle
    assert linear.sizes == {"average": "max_length", "positions": 128} and cnn.sizes == {"positions": 128}
    assert PRESETS["walkthrough"]["per_class"] == 10_000


def test_splits_of_the_user(toy, toy_reviews):
    parts = split(read_reviews(toy_reviews, report=None), labelled=200, validation=50, report=None)
    with pytest.raises(ValueError, match="labelled=.* does not apply"):
        replace(toy, data=parts).splits(None)
    results = replace(toy, data=parts, labelled=None, test=.2, balanced=False, per_class=None, recipes={"linear": FAST["linear"]}).run(say=None)
    assert len(results.truth) == len(parts.test)


def test_parts_with_other_label_lists_are_matched_by_name(toy_reviews):
    parts = split(read_reviews(toy_reviews, report=None), report=None)
    few = read_reviews(parts.test[parts.test.label != "neutral"].astype({"label": object}), report=None)
    assert label_names(few) == ["negative", "positive"]
    aligned = Experiment(data=parts._replace(test=few)).splits(None)
    assert label_names(aligned.test) == ["negative", "neutral", "positive"] and aligned.test.label.tolist() == few.label.tolist()
    stranger = read_reviews(few.assign(label=few.label.astype(object).replace("positive", "great")), report=None)
    with pytest.raises(ValueError, match="'great'.*are not among"):
        Experiment(data=parts._replace(test=stranger)).splits(None)


def test_a_folder_with_its_own_parts(toy_reviews, tmp_path):
    for name, rows in (("train", slice(0, 400)), ("test", slice(400, 600))):
        toy_reviews[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    cut = Experiment(data=tmp_path, labelled=100, validation=30).splits(None)
    assert (len(cut.train), len(cut.validation), len(cut.test), len(cut.transfer)) == (70, 30, 200, 300)
    with pytest.raises(ValueError, match="balanced=True does not apply"):
        Experiment(data=tmp_path, balanced=True).splits(None)


def test_a_student_that_dies_does_not_take_the_others_along(toy, tmp_path):
    recipes = {"linear": FAST["linear"], "cnn": replace(FAST["cnn"], optimizer="sgd", rate=1e30)}
    results = replace(toy, recipes=recipes).run(say=None)
    assert set(results.students) == {("linear direct", 0), ("linear distilled", 0)} and results.pairs == [("linear", 0)]
    assert any("cnn direct, seed 0, has died" in note for note in results.notes)
    results.save(tmp_path / "out")
    assert "has died" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(FloatingPointError):
        replace(toy, recipes={"cnn": recipes["cnn"]}).run(say=None)


def test_saving_again_replaces_our_students_only(toy, tmp_path):
    results = replace(toy, recipes={"linear": FAST["linear"]}).run(say=None)
    results.save(tmp_path / "out")
    (tmp_path / "out" / "students" / "linear-direct").rename(tmp_path / "out" / "students" / "linear-of-before")
    (tmp_path / "out" / "students" / "notes").mkdir()
    results.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "students").iterdir()} == {"linear-direct", "linear-distilled", "notes"}


def test_positions_follow_the_length_limit(toy):
    sizes = replace(toy, max_length=40, recipes={"cnn": replace(FAST["cnn"], sizes={"positions": 128}, trim=False)})
    assert sizes.run(say=None).students["cnn direct", 0].config.positions == 40


def test_a_test_part_of_one_class(toy):
    with pytest.raises(ValueError, match="hold out more"):
        replace(toy, test=1, stratify=False).run(say=None)


def test_labels_that_the_teacher_does_not_know(toy, toy_reviews):
    with pytest.raises(ValueError, match="negative, neutral, positive.*a, b, c"):
        replace(toy, data=toy_reviews.assign(label=toy_reviews.label.map(dict(zip(["negative", "neutral", "positive"], "abc"))))).run(say=None)


def test_a_precision_that_is_not_there_is_refused_at_once(toy):
    with pytest.raises(ValueError, match="no precision 'float16' on cpu"):
        replace(toy, data="nowhere.csv", precision="float16").run(say=None)
