"""What partitions cost and survive: `python -m benchmarks.partitions [SECTION ...]`. See README.md."""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.growth import untrained_teacher  # noqa: F401, for the lines of `model`
from distillnb.data import demo_reviews
from distillnb.partitions import check_partitions, label_partitions, read_partitions

HERE = Path(__file__).parent.parent
SAME = np.tile(np.float32([[.2, .3, .5]]), (10_000, 1))
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(HERE)}


def stub(texts):
    "A model that costs nothing, so that what is measured is ours"
    return SAME[:len(texts)]


def slow_stub(texts):
    "One that takes its time, so that there is something to interrupt"
    time.sleep(len(texts) / 20_000)
    return SAME[:len(texts)]


def write_texts(folder: Path, n: int, a_file: int = 500_000) -> Path:
    "`n` different short texts as Parquet files."
    folder.mkdir()
    tweets, rng = demo_reviews(report=None).text.str[:60].to_numpy(), np.random.default_rng(0)
    for start in range(0, n, a_file):
        some = tweets[rng.integers(0, len(tweets), min(a_file, n - start))]
        texts = [f"{tweet} {i}" for i, tweet in enumerate(some, start)]
        frame = pd.DataFrame({"id": start + np.arange(len(some)), "text": texts})
        frame.to_parquet(folder / f"{start:09d}.parquet", row_group_size=50_000, index=False)
    return folder


def in_process(code: str, *given) -> dict:
    "Processor seconds, wall seconds and peak MB of some lines in a process of their own, and what they print as JSON."
    head = ("import json, resource, sys, time\nfrom pathlib import Path\nfrom benchmarks.partitions import *\n"
            "place = Path(sys.argv[1]); begun = time.time(), time.process_time()\n")
    tail = ("\nprint(json.dumps({'wall': time.time() - begun[0], 'processor': time.process_time() - begun[1], 'MB': "
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))")
    done = subprocess.run([sys.executable, "-c", head + code + tail, *map(str, given)], env=ALONE, text=True,
                          stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


LABEL = "label_partitions(place / 'data', {teacher}, place / 'answers{mark}', names=list('abc'), report=None, {more})"


def cost(place: Path) -> None:
    "A million texts with a model that costs nothing, beside datasets.map with the same."
    write_texts(place / "data", 1_000_000)
    ours = in_process(LABEL.format(teacher="stub", mark="", more="workers=1"), place)
    theirs = in_process("import datasets\ndatasets.disable_progress_bars()\n"
                        "data = datasets.load_dataset('parquet', data_files=str(place / 'data' / '*.parquet'),"
                        " cache_dir=str(place / 'cache'), split='train')\nbegun = time.time(), time.process_time()\n"
                        "data.map(lambda rows: dict(zip('abc', stub(rows['text']).T)), batched=True, batch_size=8192)",
                        place)
    print(f"1,000,000 texts, model free: {ours['processor']:.1f} s of processor time, datasets.map "
          f"{theirs['processor']:.1f} s (its reading of the files not counted)")


def memory(place: Path) -> None:
    "Peaks from 100,000 to 10,000,000 texts, with the linear student as the teacher."
    from distillnb.estimator import DistilledClassifier
    from distillnb.export import save_runtime
    from distillnb.tokens import demo_model
    tweets = demo_reviews(report=None).sample(5000, random_state=0)
    student = DistilledClassifier("linear", tokenizer=demo_model(), epochs=2).fit(tweets.text, tweets.label)
    save_runtime(student.classifier_, place / "student.npz", tweets.text[:500])
    for n in (100_000, 1_000_000, 10_000_000):
        own = place / str(n)
        own.mkdir()
        write_texts(own / "data", n)
        took = in_process("from distillnb.runtime import load\n" + LABEL.format(
            teacher="load(place.parent / 'student.npz')", mark="",
            more="workers=1").replace(", names=list('abc')", ""), own)
        whole = (check_partitions(own / "answers").state == "whole").all()
        print(f"{n:>10,} texts, linear student: {took['processor']:,.0f} s of processor time, "
              f"{n / took['processor']:,.0f} texts a second, peak {took['MB']:,.0f} MB, whole: {whole}", flush=True)


def model(place: Path, n: int = 5_000) -> None:
    "MiniLM with and without partitions, on one thread."
    write_texts(place / "data", n, n)
    bare = in_process("texts = pd.read_parquet(place / 'data').text.tolist(); teacher = untrained_teacher()\n"
                      "import torch; torch.set_num_threads(1); begun = time.time(), time.process_time()\n"
                      "teacher.probabilities(texts)", place)
    ours = in_process("teacher = untrained_teacher(); begun = time.time(), time.process_time()\n"
                      + LABEL.format(teacher="teacher", mark="", more="workers=1").replace(
                          ", names=list('abc')", ""), place)
    print(f"{n:,} texts, MiniLM: bare {bare['processor']:.1f} s of processor time, as partitions "
          f"{ours['processor']:.1f} s ({ours['processor'] / bare['processor'] - 1:+.1%})")


def workers(place: Path) -> None:
    "Wall time of one worker and of two, and of a Dask cluster of two, with a model that waits 50 microseconds a text."
    write_texts(place / "data", 1_000_000)
    seconds = {}
    for n in (1, 2):
        start = time.time()
        label_partitions(place / "data", slow_stub, place / f"answers{n}", names=list("abc"), workers=n, report=None)
        seconds[n] = time.time() - start
    from distributed import Client, LocalCluster
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.run(lambda: __import__("distillnb.partitions"))
        start = time.time()
        label_partitions(place / "data", slow_stub, place / "dask", names=list("abc"),
                         executor=client.get_executor(), report=None)
        seconds["dask"] = time.time() - start
    print(f"1,000,000 texts, 50 s of waiting: one process {seconds[1]:.1f} s, two {seconds[2]:.1f} s "
          f"({seconds[1] / 2 / seconds[2]:.0%}), Dask with two {seconds['dask']:.1f} s "
          f"({seconds[1] / 2 / seconds['dask']:.0%})")


def kills(place: Path, n: int = 50) -> None:
    "Fifty times at random moments a worker or the whole call is killed; then the answers are compared byte by byte."
    write_texts(place / "data", 400_000, 100_000)
    one = LABEL.format(teacher="slow_stub", mark="{}", more="workers={}, rows=1, batch=1000")
    in_process(one.format("", 1), place)
    expected = {file.name: file.read_bytes() for file in (place / "answers").glob("part-*")}
    rng, done = random.Random(0), {"worker": 0, "call": 0, "rounds": 0}
    while done["worker"] + done["call"] < n:
        mark, done["rounds"] = done["rounds"], done["rounds"] + 1
        command = [sys.executable, "-c", "from pathlib import Path; import sys; from benchmarks.partitions import *\n"
                   f"place = Path(sys.argv[1])\n{one.format(mark, 2)}", str(place)]
        status = None
        while status != 0:
            running = subprocess.Popen(command, env=ALONE, stderr=subprocess.DEVNULL)
            while (status := running.poll()) is None:
                time.sleep(rng.uniform(.1, 2))
                told = subprocess.run(["pgrep", "-P", str(running.pid), "-f", "loky"], capture_output=True,
                                      text=True).stdout.split()
                if told and done["worker"] + done["call"] < n:
                    kind = rng.choice(["worker", "worker", "call"])
                    with suppress(ProcessLookupError):  # it has ended by itself meanwhile
                        os.kill(int(rng.choice(told)) if kind == "worker" else running.pid, signal.SIGKILL)
                        done[kind] += 1
        found = {file.name: file.read_bytes() for file in (place / f"answers{mark}").glob("part-*")}
        assert found == expected, f"round {mark}: the answers differ"
        assert read_partitions(place / f"answers{mark}").id.tolist() == [*range(400_000)]
    print(f"{done['worker']} workers and {done['call']} whole calls killed in {done['rounds']} runs of 400,000 texts: "
          "no row missing, none twice, all files the same byte for byte")


SECTIONS = {each.__name__: each for each in (cost, memory, model, workers, kills)}


def main(argv: list[str] | None = None) -> None:
    "The command."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"which of {', '.join(SECTIONS)} (all)")
    args = parser.parse_args(argv)
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    for name in args.sections or SECTIONS:
        with tempfile.TemporaryDirectory() as folder:
            SECTIONS[name](Path(folder))


if __name__ == "__main__":
    main()
