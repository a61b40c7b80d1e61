"""Whole experiments on small things: both presets' operations, the files they leave, and interruptions."""
import sys
from dataclasses import replace
from html import unescape

import numpy as np
import pandas as pd
import pytest
from transformers import pipeline

from distillnb import experiment as module
from distillnb.data import label_names, read_reviews, split
from distillnb.inference import load_student
from distillnb.results import check_writable
from distillnb.experiment import PRESETS, Experiment, learning_curve
from distillnb.labelling import any_teacher
from distillnb.lesson import WALKTHROUGH_RECIPES, WAYS, Run
from distillnb.losses import CrossEntropy, Mix, SoftCrossEntropy, SquaredEMD
from distillnb.student import Recipe, architecture

BRIEF = {"epochs": 2, "least_examples": 1}
FAST = {"linear": Recipe("linear", {"width": 50}, "sgd", .5, .5, batch_size=4, **BRIEF),
        "cnn": Recipe("cnn", {"filters": 8}, decay=1.0, **BRIEF)}


@pytest.fixture
def toy(tiny_bert, toy_reviews, tmp_path):
    return Experiment(data=toy_reviews, teacher=str(tiny_bert), fine_tune=False, recipes=FAST, cache=tmp_path / "cache", device="cpu",
                      labelled=100, max_length=32, validation=0, baselines=False, fragments=0)


@pytest.mark.parametrize("validation", [0, .3])
def test_the_epoch_is_chosen_alike_for_both_twins(toy, validation):
    """By the validation texts where there are some; else the last epoch is taken, and the notes and the report say so."""
    results = replace(toy, validation=validation, recipes={name: replace(recipe, epochs=4) for name, recipe in FAST.items()}).run(say=None)
    for run, trained in results.students.items():
        losses = [scores["loss"] for scores in trained.chosen_by]
        assert trained.kept == (losses.index(min(losses)) if validation else 3), run
        assert results.history[results.history.model == run.model].test_acc.iloc[trained.kept] == results.answers[run].score.accuracy
    assert any("keeps its last epoch" in note for note in results.notes) == (not validation)
    assert ("validation texts chose" in results.report()) == bool(validation)


def test_baselines_are_there_by_default_and_in_the_verdicts(toy, toy_reviews):
    results = replace(toy, baselines=Experiment.baselines, teacher=lambda texts: [[.7, .1, .2] if "bad" in text else [.1, .2, .7] for text in texts],
                      names=["negative", "neutral", "positive"]).run(say=None)
    there = ["tf-idf direct", "tf-idf on the teacher's classes"]
    assert [model for model in results.summary.model if "tf-idf" in model] == there
    best = max(there, key=lambda model: results.summary.set_index("model").accuracy[model])
    assert [(found.name_a, found.name_b) for found in results.beside_baseline] == [(f"{name} distilled", best) for name in FAST]
    page = unescape(results.report())
    assert all(found.sentence in page for found in results.beside_baseline)
    assert not any("distillation" in found.sentence for found in results.beside_baseline), "they are no twins"
    assert replace(toy).run(say=None).beside_baseline == []


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
        assert np.array_equal(results.predictions[name, "direct", 0], results.predictions[name, "distilled", 0])
        assert results.verdict(Run(name, "distilled", 0)).word == "inconclusive"


@pytest.mark.parametrize("loss", [SoftCrossEntropy(3.0), Mix(alpha=.3)])
def test_other_losses_run(toy, loss):
    assert replace(toy, loss=loss, recipes={"cnn": FAST["cnn"]}).run(say=None).pairs == [("cnn", "distilled", 0)]


def test_files_and_their_content(toy, tmp_path):
    results = toy.run(say=None)
    folder = results.save(tmp_path / "out")
    results.save(folder)
    files = {path.name for path in folder.iterdir()}
    assert files == {"history.csv", "summary.csv", "verdicts.csv", "pooled.csv", "baseline.csv", "ladder.csv", "report.html",
                     "students"}
    pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv"), results.history, check_dtype=False)
    report = (folder / "report.html").read_text()
    assert "http" not in report.replace("http://www.w3.org", "").replace("https://www.w3.org", ""), "opens offline"
    for needed in ("cnn distilled", "<svg", "Learning curves", "Could it be luck?", "How far to trust them", "torch", "split_seed", *results.notes[:1]):
        assert needed in report
    classify = pipeline("text-classification", str(folder / "students" / "linear-distilled"), device="cpu")
    assert classify("a superb film")[0]["label"] in results.names


def test_report_escapes_what_users_wrote(toy, toy_reviews):
    odd = toy_reviews.assign(label=toy_reviews.label.replace("positive", "<b>fine</b>"))
    results = replace(toy, data=odd, names=["negative", "neutral", "<b>fine</b>"], recipes={"linear": FAST["linear"]}).run(say=None)
    assert "<b>fine" not in results.report()


def test_interrupted_run_keeps_what_is_done(toy, monkeypatch, tmp_path):
    calls, original = [], module.train

    def interrupting(*arguments, **options):
        trained = original(*arguments, **options)
        calls.append(1)
        return trained if len(calls) < 3 else replace(trained, history=trained.history[:1].copy(), interrupted=True)

    monkeypatch.setattr(module, "train", interrupting)
    results = toy.run(say=None)
    assert results.interrupted and results.pairs == [("linear", "distilled", 0)]
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
    assert linear.sizes == {"average": "max_length", "positions": 128} and cnn.sizes == {"positions": 128, "initial_std": 1.0}
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


def test_a_hub_data_set_with_its_own_parts(toy_reviews, monkeypatch):
    datasets = pytest.importorskip("datasets")
    frame = toy_reviews.astype({"label": str})
    parts = {"train": datasets.Dataset.from_pandas(frame[:400], preserve_index=False), "test": datasets.Dataset.from_pandas(frame[400:600], preserve_index=False)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: parts)
    own = Experiment(data="hf://somebody/reviews").splits(None)
    assert (len(own.train) + len(own.validation), len(own.test)) == (400, 200)
    one = Experiment(data="hf://somebody/reviews:train").splits(None)
    assert len(one.train) + len(one.validation) + len(one.test) == 400


def test_a_student_that_dies_does_not_take_the_others_along(toy, tmp_path):
    recipes = {"linear": FAST["linear"], "cnn": replace(FAST["cnn"], optimizer="sgd", rate=1e30)}
    results = replace(toy, recipes=recipes).run(say=None)
    assert set(results.students) == {("linear", "direct", 0), ("linear", "distilled", 0)} and results.pairs == [("linear", "distilled", 0)]
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


def bytes_below(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_save_that_fails_leaves_the_old_result(toy, tmp_path, monkeypatch):
    results = replace(toy, recipes={"linear": FAST["linear"]}).run(say=None)
    results.save(tmp_path / "out")
    before = bytes_below(tmp_path)
    for what in ("history.to_csv", "tokenizer.save_pretrained"):
        with monkeypatch.context() as patch:
            holder = type(results.history) if what == "history.to_csv" else type(results.tokenizer)

            def full(*args, **options):
                raise OSError(28, "No space left on device")
            patch.setattr(holder, what.split(".")[1], full)
            with pytest.raises(OSError, match="No space left"):
                results.save(tmp_path / "out")
        assert bytes_below(tmp_path) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"model_type": 7}', b"\xff"])
def test_a_damaged_student_does_not_block_a_finished_run(toy, tmp_path, damage):
    results = replace(toy, recipes={"linear": FAST["linear"]}).run(say=None)
    results.save(tmp_path / "out")
    (tmp_path / "out" / "students" / "linear-direct" / "config.json").write_bytes(damage)
    load_student(results.save(tmp_path / "out") / "students" / "linear-direct")


def test_what_a_killed_first_save_leaves_does_not_refuse_the_next(tmp_path):
    (tmp_path / "out" / ".out.abc.partial" / "out").mkdir(parents=True)
    check_writable(tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").touch()
    with pytest.raises(ValueError, match="holds other files"):
        check_writable(tmp_path / "out")


def test_positions_follow_the_length_limit(toy):
    sizes = replace(toy, max_length=40, recipes={"cnn": replace(FAST["cnn"], sizes={"positions": 128}, trim=False)})
    assert sizes.run(say=None).students["cnn", "direct", 0].model.config.positions == 40


def test_a_test_part_of_one_class(toy):
    with pytest.raises(ValueError, match="hold out more"):
        replace(toy, test=1, stratify=False).run(say=None)


def test_labels_that_the_teacher_does_not_know(toy, toy_reviews):
    with pytest.raises(ValueError, match="negative, neutral, positive.*a, b, c"):
        replace(toy, data=toy_reviews.assign(label=toy_reviews.label.map(dict(zip(["negative", "neutral", "positive"], "abc"))))).run(say=None)


def test_a_precision_that_is_not_there_is_refused_at_once(toy):
    with pytest.raises(ValueError, match="no precision 'float16' on cpu"):
        replace(toy, data="nowhere.csv", precision="float16").run(say=None)


SIZES = {"linear": {"width": 8, "ngrams": 2, "buckets": 64}, "cnn": {"filters": 8, "width": 10},
         "bilstm": {"width": 10, "hidden": 8, "dense": 8}, "ensemble": {"filters": 8, "width": 10, "buckets": 64}}
SMALL = {name: replace(architecture(name).recipe, sizes=sizes, **BRIEF) for name, sizes in SIZES.items()}


@pytest.fixture
def long(toy):
    return replace(toy, recipes=SMALL, ways=tuple(WAYS), rounds=2, tune=(.5, 2.), baselines=True, validation=40, seeds=(0, 1))


def test_the_long_comparison(long, tmp_path):
    results = long.run(say=None)
    models = {f"{name} {way}" for name in SMALL for way in WAYS}
    assert set(results.summary.model) == models | {"commonest class", "teacher", "tf-idf direct"}
    assert any("tf-idf on the teacher's classes is left out" in note for note in results.notes), "this teacher, untrained, says one class"
    assert list(results.history.groupby(["model", "seed"]).size().unique()) == [2] and len(results.students) == 32
    steps = results.ladder()
    assert len(steps) == 16 and steps.on_rung_before.notna().sum() == 12 and (steps.seeds == 2).all()
    assert len(results.pooled_verdicts) == 12 and len(results.verdicts) == 24 and len(results.sentences()) == 24
    for row in results.summary.dropna(subset="rate_factor").itertuples():
        kept = results.history[(results.history.model == row.model) & (results.history.seed == row.seed)].test_acc.iloc[int(row.epoch_kept)]
        assert np.isclose(kept, row.accuracy) and row.rate_factor in long.tune
    assert results.summary.groupby("model").rate_factor.nunique().max() == 1, "the first seed chooses the rate for all"
    folder = results.save(tmp_path / "out")
    assert len(list((folder / "students").iterdir())) == 32
    report = (folder / "report.html").read_text()
    assert "What each step brings" in report and "tf-idf direct" in report and "seed by seed" in report


def test_several_workers_find_the_same(long):
    few = replace(long, recipes={"cnn": SMALL["cnn"]}, ways=("direct", "distilled"), rounds=0, tune=None, baselines=False)
    one, two = few.run(say=None), replace(few, workers=2).run(say=None)
    pd.testing.assert_frame_equal(one.history, two.history)
    for key, logits in one.logits.items():
        assert np.array_equal(logits, two.logits[key])


def test_the_same_way_twice_is_left_out_where_all_texts_have_labels(long):
    results = replace(long, labelled=None, recipes={"cnn": SMALL["cnn"]}, tune=None, seeds=(0,)).run(say=None)
    assert [way for _, way, _ in results.pairs] == ["distilled", "distilled with augmentation"]
    assert any("left out" in note for note in results.notes)


def test_the_lessons_keep_texts_labels_and_logits_together(long):
    results = replace(long, recipes={"linear": SMALL["linear"]}, tune=None, seeds=(0,)).run(say=None)
    lesson, lessons = results.lesson, {name: way.lesson(results.lesson) for name, way in WAYS.items()}
    opinion = {tuple(lesson.tokens[row]): lesson.logits[row] for row in range(len(lesson))}
    for way, size in (("distilled", 440), ("distilled on the same texts", 60)):
        own = lessons[way]
        assert len(own.tokens) == len(own.labels) == len(own.logits) == size
        assert all(np.array_equal(opinion[tuple(own.tokens[row])], own.logits[row]) for row in range(size))
    assert len(lessons["direct"]) == 440 and lessons["direct"].logits is None and len(lessons["direct"].labelled) == 60
    assert (lessons["distilled on the same texts"].labels >= 0).all()
    more = lessons["distilled with augmentation"]
    assert len(more.tokens) == len(more.labels) == len(more.logits) > 440 and (more.labels[440:] == -1).all()
    assert all(own.vocabulary is lesson.vocabulary for own in lessons.values())
    test = {tuple(results.test[0][row]) for row in range(len(results.test[0]))}
    assert not test & {tuple(more.tokens[row]) for row in range(len(more))}


def test_texts_for_the_transfer_set_from_elsewhere(toy):
    parts = toy.splits(None)
    crawl = pd.DataFrame({"text": [parts.test.text[0], parts.train.text[0], "quite new and plain", " quite new and plain "]})
    said = []
    more = replace(toy, transfer=crawl).splits(said.append)
    assert more.transfer.text.tolist() == [*parts.transfer.text, "quite new and plain"] and more.transfer.label.isna().all()
    assert "1 of 4 further texts added" in said[-1] and "1 that are test" in said[-1]
    assert len(replace(toy, unlabelled=7).splits(None).transfer) == 7
    with pytest.raises(ValueError, match="None of the further texts is new"):
        replace(toy, transfer=crawl[:2]).splits(None)


def test_trust_of_a_student(long):
    results = replace(long, recipes={"cnn": SMALL["cnn"]}, ways=("direct", "distilled"), rounds=0, tune=None, baselines=False).run(say=None)
    trust = results.trust("cnn", seed=1)
    assert trust.name == "cnn distilled" and len(trust.disagreements) == 20 and trust.temperature > 0
    assert trust.agreement.n.sum() == len(results.truth) and len(trust.calibration) == 3
    assert trust.slices.groupby("slice").n.sum().eq(len(results.truth)).all()
    with pytest.raises(ValueError, match="choose from cnn direct, cnn distilled"):
        results.trust("bilstm")


def test_curves_over_sizes(toy):
    curve = learning_curve(replace(toy, recipes={"linear": FAST["linear"]}), "unlabelled", [0, 100], say=None)
    assert curve.texts.tolist() == [0] * 3 + [100] * 3
    assert set(curve.model) == {"teacher", "linear direct", "linear distilled"}
    rounds = learning_curve(replace(toy, recipes={"linear": FAST["linear"]}, rounds=1, ways=("direct", "distilled with augmentation")),
                            "rounds", [0, 1], say=None)
    assert rounds.texts.iloc[0] == 0 < rounds.texts.iloc[-1]
    with pytest.raises(ValueError, match="choose labelled"):
        learning_curve(toy, "seeds", [1])


@pytest.mark.parametrize("settings, message", [
    ({"ways": ("direct", "by magic")}, "choose from direct"), ({"rounds": 3}, "both or neither"), ({"tune": ()}, "factors above 0"),
    ({"ways": ("direct", "distilled with augmentation")}, "both or neither"), ({"workers": 0}, "one worker or more"),
    ({"seeds": (1, 1)}, "different seeds"), ({"tune": (1.,), "validation": 0}, "set some aside"), ({"unlabelled": -1}, "0 or more"), ({"fragments": -1}, "0 or more"),
    ({"teachers": 0}, "1 or more"), ({"teachers": 2}, "fine_tune=True"),
    ({"loss": SquaredEMD()}, "SquaredEMD is for classes in an order")])
def test_settings_that_cannot_be(toy, settings, message):
    with pytest.raises(ValueError, match=message):
        replace(toy, **settings).run(say=None)


@pytest.mark.parametrize("kind", ["frame", "file", "teacher"])
def test_a_table_of_answers_is_asked_about_its_own_texts_only(toy, toy_reviews, tmp_path, kind):
    """By default it gets no fragments, which it could not answer; who asks for some is told why not."""
    answers = toy_reviews.drop_duplicates("text")[["text"]]
    answers = answers.assign(**{name: (toy_reviews.label == name) * .8 + .2 / 3 for name in ("negative", "neutral", "positive")})
    answers.to_csv(tmp_path / "answers.csv", index=False)
    source = {"frame": answers, "file": str(tmp_path / "answers.csv"), "teacher": any_teacher(answers)}[kind]
    told = replace(toy, teacher=source, fragments=None, labelled=None, recipes={"linear": FAST["linear"]}, students=())
    assert told.splits(None).transfer.empty and len(replace(told, teacher=toy.teacher).splits(None).transfer)
    assert {"linear direct", "linear distilled"} <= set(told.run(say=None).summary.model)
    with pytest.raises(ValueError, match="fragments=4: .* its own texts only"):
        replace(told, fragments=4).run(say=None)


def test_ordered_classes_get_ordered_scores_and_losses(toy):
    ordered = replace(toy, labels=["negative", "neutral", "positive"], loss=SquaredEMD(), recipes=FAST)
    results = ordered.run(say=None)
    assert {"mae", "off_by_one", "kappa"} <= set(results.summary) and "kappa" in results.table()
    assert "kappa" not in toy.run(say=None).table()


def test_what_is_missing_is_found_before_the_work_begins(long, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such file of word vectors"):
        replace(long, data="nowhere.csv", recipes={"cnn": replace(SMALL["cnn"], embeddings="/nowhere.vec")}).run(say=None)
    monkeypatch.setitem(sys.modules, "textblob.en", None)
    with pytest.raises(ImportError, match=r"distillnb\[augment\]"):
        replace(long, data="nowhere.csv").run(say=None)


def test_word_vectors_from_a_file(toy, tmp_path):
    (tmp_path / "v.vec").write_text("3 4\ngood 1 0 0 1\nbad -1 0 0 1\nfilm 0 1 0 1\nbook 0 1 .1 1\nthe 0 0 1 1\n")
    recipe = replace(FAST["cnn"], sizes={"filters": 8, "width": 4}, embeddings=tmp_path / "v.vec", epochs=1)
    assert replace(toy, recipes={"cnn": recipe}).run(say=None).pairs == [("cnn", "distilled", 0)]
