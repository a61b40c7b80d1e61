"""Many files, a part at a time: nothing lost, nothing twice, whatever dies on the way."""
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb.data import read_reviews
from distillnb.labelling import any_teacher
from distillnb.partitions import (TooManyFailed, _source_key, check_partitions, find_parts, iterate_partitions, label_partitions,
                                  read_partitions)

pytest.importorskip("pyarrow")
NAMES = ["short", "long"]


def by_length(texts):
    return [[.9, .1] if len(text) < 8 else [.2, .8] for text in texts]


def by_length_or_death(texts):
    """Kills its process the first time that it meets a certain text."""
    mark = os.environ["DISTILLNB_MARK"]
    if "text 77" in texts and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return by_length(texts)


def hangs(texts):
    time.sleep(60)
    return by_length(texts)


def write(folder, sizes, group=20):
    """Parquet files with so many texts, numbered through."""
    folder.mkdir(exist_ok=True)
    start = 0
    for i, n in enumerate(sizes):
        frame = pd.DataFrame({"id": range(start, start + n), "text": [f"text {j}" for j in range(start, start + n)]})
        frame.to_parquet(folder / f"{i:03d}.parquet", row_group_size=group, index=False)
        start += n
    return folder


def label(folder, answers, teacher=by_length, **more):
    settings = {"names": NAMES, "rows": 20, "batch": 7, "report": None, "workers": 1} | more
    return label_partitions(folder, teacher, answers, **settings)


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4), group=st.integers(1, 30), rows=st.integers(1, 50),
       batch=st.integers(1, 30), n=st.integers(1, 4))
def test_every_row_once_and_in_order(tmp_path_factory, sizes, group, rows, batch, n):
    place = tmp_path_factory.mktemp("parts")
    data = write(place / "data", sizes, group)
    for i in reversed(range(1, n + 1)):  # shares in any order
        label(data, place / "answers", rows=rows, batch=batch, part=(i, n))
    found = read_partitions(place / "answers")
    assert found.id.tolist() == list(range(sum(sizes)))
    assert np.array_equal(found[NAMES].to_numpy(), np.float32(by_length(found.text)))
    assert sum(part.rows for part in find_parts(data, rows)) == sum(sizes)


def test_all_formats_are_parts_of_one_folder(tmp_path):
    data = write(tmp_path / "data", [30])
    frame = pd.DataFrame({"text": ["ein Wort", "noch eins, lang"], "id": [1, 2]})
    frame.to_csv(data / "a.csv", index=False)
    frame.to_json(data / "b.jsonl", orient="records", lines=True)
    (data / "c.txt").write_text("one\ntwo longer\n")
    (data / "_ignored.csv").write_text("x\n")
    done = label(data, tmp_path / "answers")
    assert done.rows.sum() == 30 + 6 and not done.failed.any()
    assert read_partitions(tmp_path / "answers", ["text"]).text.tolist()[-4:] == [
        *frame.text, "one", "two longer"]


def test_a_folder_of_answers_is_a_table(tmp_path):
    label(write(tmp_path / "data", [50]), tmp_path / "answers")
    assert len(read_reviews(tmp_path / "answers", "text", False, report=None)) == 50
    teacher = any_teacher(tmp_path / "answers")
    assert teacher.names == NAMES and np.allclose(teacher(["text 9", "text 49"]), [[.9, .1], [.9, .1]])
    (tmp_path / "answers" / "part-00001.parquet").unlink()
    for read in (read_partitions, any_teacher, lambda folder: [*iterate_partitions(folder)]):
        with pytest.raises(ValueError, match="part-00001"):
            read(tmp_path / "answers")


def test_rows_without_an_answer_are_kept_with_the_reason(tmp_path):
    data = write(tmp_path / "data", [40])
    frame = pd.read_parquet(data / "000.parquet")
    frame.loc[3, "text"] = None
    frame.to_parquet(data / "000.parquet")

    def picky(texts):
        if "text 11" in texts:
            raise KeyError("eleven")
        return by_length(texts)
    done = label(data, tmp_path / "answers", picky, rows=100)
    assert done.failed.tolist() == [2]
    raw = pd.read_parquet(tmp_path / "answers" / "part-00000.parquet")
    assert raw[raw.failed != ""].set_index("id").failed.to_dict() == {3: "no text", 11: "KeyError: 'eleven'"}
    assert raw[raw.failed != ""][NAMES].isna().all(axis=None)
    assert len(read_partitions(tmp_path / "answers")) == 38


def test_a_teacher_that_always_fails_is_not_asked_about_every_text(tmp_path):
    asked = []

    def broken(texts):
        asked.append(len(texts))
        raise RuntimeError("no weights")
    with pytest.raises(TooManyFailed, match="no weights"):
        label(write(tmp_path / "data", [5000], 5000), tmp_path / "answers", broken, rows=5000, batch=1000)
    assert len(asked) < 100 and not [*(tmp_path / "answers").glob("part-*")]


def test_another_teacher_or_other_files_are_refused(tmp_path):
    data = write(tmp_path / "data", [30])
    label(data, tmp_path / "answers")
    before = (tmp_path / "answers" / "part-00000.parquet").read_bytes()
    for change, what in (({"teacher": lambda texts: [[.5, .5]] * len(texts)}, "another teacher's"),
                         ({"names": NAMES[::-1]}, "another classes"), ({"rows": 30}, "other parts"),
                         ({"gives": "logits"}, "another gives")):
        with pytest.raises(ValueError, match=what):
            label(data, tmp_path / "answers", **change)
    write(tmp_path / "data", [30, 5])
    with pytest.raises(ValueError, match="other files"):
        label(data, tmp_path / "answers")
    assert (tmp_path / "answers" / "part-00000.parquet").read_bytes() == before
    (tmp_path / "answers" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        label(data, tmp_path / "answers")


def test_the_checker_sees_what_is_wrong(tmp_path):
    label(write(tmp_path / "data", [60]), tmp_path / "answers")
    parts = sorted((tmp_path / "answers").glob("part-*"))
    parts[0].unlink()
    parts[1].write_bytes(parts[1].read_bytes()[:50])
    assert check_partitions(tmp_path / "answers").state.tolist() == ["missing", "damaged", "whole"]


def test_a_damaged_part_is_done_again(tmp_path):
    data = write(tmp_path / "data", [60])
    label(data, tmp_path / "answers")
    file = tmp_path / "answers" / "part-00001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:50])
    assert label(data, tmp_path / "answers").part.tolist() == ["part-00001.parquet"]
    assert file.read_bytes() == whole


def test_a_dead_process_costs_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILLNB_MARK", str(tmp_path / "mark"))
    data = write(tmp_path / "data", [200])
    done = label(data, tmp_path / "answers", by_length_or_death, workers=2)
    assert (tmp_path / "mark").exists() and done.part.nunique() == 10
    assert read_partitions(tmp_path / "answers").id.tolist() == list(range(200))


def test_a_hanging_teacher_is_given_up(tmp_path):
    start = time.time()
    with pytest.raises(TimeoutError, match="the same call goes on"):
        label(write(tmp_path / "data", [60]), tmp_path / "answers", hangs, workers=2, timeout=5)
    assert time.time() - start < 50


def test_any_executor_will_do(tmp_path):
    data = write(tmp_path / "data", [100])
    with ThreadPoolExecutor(3) as executor:
        label(data, tmp_path / "answers", executor=executor)
    assert read_partitions(tmp_path / "answers").id.tolist() == list(range(100))


def test_dask_will_do(tmp_path):
    distributed = pytest.importorskip("distributed")
    data = write(tmp_path / "data", [100])
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            label(data, tmp_path / "answers", executor=client.get_executor())
    assert read_partitions(tmp_path / "answers").id.tolist() == list(range(100))


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_partitions import by_length, label
import time
def slow(texts):
    time.sleep(.01)
    return by_length(texts)
label(Path(sys.argv[1]) / "data", Path(sys.argv[1]) / "answers", slow)
"""


def test_killed_at_any_moment_it_goes_on(tmp_path):
    data, rng = write(tmp_path / "data", [400]), np.random.default_rng(0)
    command = [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)]
    subprocess.run(command, check=True)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "answers").glob("part-*")}
    (tmp_path / "answers").rename(tmp_path / "first")
    for _ in range(2):
        running, begun = subprocess.Popen(command), time.time()
        while not (tmp_path / "answers" / "manifest.json").exists() and time.time() - begun < 60:
            time.sleep(.05)
        time.sleep(rng.uniform(0, .5))
        running.kill()
        running.wait()
    subprocess.run(command, check=True)
    assert {file.name: file.read_bytes() for file in (tmp_path / "answers").glob("part-*")} == whole
    assert (check_partitions(tmp_path / "answers").state == "whole").all()
    assert data.is_dir()


def made(p):
    return lambda texts: [[p, 1 - p]] * len(texts)


class Model:
    def __init__(self, p):
        self.p = p

    def ask(self, texts):
        return [[self.p, 1 - self.p]] * len(texts)


@pytest.mark.parametrize("one, other, same", [
    (made(.9), made(.1), made(.9)), (Model(.9).ask, Model(.1).ask, Model(.9).ask)])
def test_a_function_is_what_it_refers_to(tmp_path, one, other, same):
    data = write(tmp_path / "data", [10])
    label(data, tmp_path / "answers", one)
    assert label(data, tmp_path / "answers", same).empty
    with pytest.raises(ValueError, match="another teacher's"):
        label(data, tmp_path / "answers", other)
    (tmp_path / "answers").rename(tmp_path / "before")
    label(data, tmp_path / "answers", other)
    assert np.allclose(read_partitions(tmp_path / "answers").short, .1)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_has_changed_is_another_file(tmp_path, ending):
    file, frame = tmp_path / f"a.{ending}", pd.DataFrame({"text": ["one", "two"]})
    save = getattr(frame, f"to_{ending}")
    save(file, index=False)
    label(file, tmp_path / "answers")
    frame.loc[1, "text"] = "six"
    save(file, index=False)
    with pytest.raises(ValueError, match="other files"):
        label(file, tmp_path / "answers")


def test_several_labels_and_logits_come_back_as_they_were(tmp_path):
    data = write(tmp_path / "data", [5])
    for gives, said in (("logits", [3., 2.]), ("probabilities", [.9, .8])):
        teacher = any_teacher(lambda texts, said=said: [said] * len(texts), NAMES, gives=gives, multilabel=True)
        label(data, tmp_path / gives, teacher, gives=gives)
        again = any_teacher(tmp_path / gives)
        assert again.multilabel and np.allclose(again.probabilities(["text 1"]), teacher.probabilities(["text 1"]))


def test_a_fault_in_a_later_file_is_found_before_anything_is_asked(tmp_path):
    for i, (column, said) in enumerate((("short", "column 'short'"), ("failed", "column 'failed'"), ("id", "text"))):
        data = write(tmp_path / f"data{i}", [5])
        kept = {} if column == "id" else {"text": ["x"]}
        pd.DataFrame(kept | {column: [1.]}).to_parquet(data / "later.parquet")
        with pytest.raises(ValueError, match=said):
            label(data, tmp_path / f"answers{i}")
        assert not [*tmp_path.glob(f"answers{i}/part-*")]
    with pytest.raises(ValueError, match="rename it"):
        label(write(tmp_path / "data", [5]), tmp_path / "answers", names=["failed", "b"])


def test_odd_tables(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    mixed = [{"text": f"t{i}", "v": None if i < 9 else 1.5 if i < 12 else "x"} for i in range(15)]
    pd.DataFrame(mixed).to_json(data / "a.jsonl", orient="records", lines=True)
    pd.DataFrame({"text": pd.Series([], dtype=str)}).to_parquet(data / "b.parquet")
    (data / "c.csv").write_text("text\n")
    pd.DataFrame({"text": ["i"], "id": [7]}).set_index("id").to_parquet(data / "d.parquet")
    (data / "README.md").write_text("not a table")
    label(str(data / "*"), tmp_path / "answers")
    assert read_partitions(tmp_path / "answers", ["text"]).text.tolist() == [*(row["text"] for row in mixed), "i"]
    last = read_partitions(tmp_path / "answers")
    assert last.id.tolist()[-1] == 7


def test_paths_are_one_however_they_are_written(tmp_path, monkeypatch):
    write(tmp_path / "data", [5, 5])
    monkeypatch.chdir(tmp_path)
    assert len(find_parts(["data", "data/000.parquet", "./data/*.parquet", tmp_path / "data"])) == 2
    label("data", "answers")
    assert label(tmp_path / "data", tmp_path / "answers").empty
    with pytest.raises(ValueError, match="texts are there"):
        label("data", tmp_path / "data")


def test_a_limit_is_counted_by_one_process(tmp_path):
    prompt = pytest.importorskip("distillnb.prompt")
    teacher = any_teacher(by_length, NAMES)
    teacher.answer = Limited(prompt.Budget(max_requests=3))
    data = write(tmp_path / "data", [5])
    for more in ({"part": "1/2"}, {"executor": ThreadPoolExecutor(2)}):
        with pytest.raises(ValueError, match="one process must count"):
            label(data, tmp_path / "answers", teacher, **more)


class Limited:
    def __init__(self, budget):
        self.max_requests = budget.max_requests

    @property
    def budget(self):
        return self

    max_cost = None

    def __call__(self, texts):
        return by_length(texts)


def test_a_foreign_manifest_is_none_of_ours(tmp_path):
    (tmp_path / "manifest.json").write_text('{"files": []}')
    write(tmp_path, [5])
    with pytest.raises(ValueError, match="not a folder of answers"):
        check_partitions(tmp_path)


def test_a_prompt_whose_limit_is_raised_is_the_same_prompt(tmp_path):
    pytest.importorskip("openai")
    keys = []
    for limit in (1, 2):
        (tmp_path / "moods.toml").write_text(
            f'model = "m"\nmax_requests = {limit}\ncache = "{tmp_path.as_posix()}"\n[classes]\nbad = ""\ngood = ""\n')
        keys.append(_source_key(tmp_path / "moods.toml", any_teacher(tmp_path / "moods.toml")))
    assert keys[0] == keys[1]
