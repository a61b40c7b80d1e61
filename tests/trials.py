"""Longer trials than the tests have time for: `python tests/trials.py crash --trials 100`, or `disk`, `damage`, `fuzz`, `crowd`.

Everything happens in this process's children, which are forked after PyTorch has been loaded, so that a trial takes a second or two.
A trial that goes wrong is printed with all that it takes to repeat it, and the exit status is then 1."""
import argparse
import contextlib
import fcntl
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", NUMBA_NUM_THREADS="1")

import numpy as np
import pandas as pd
import torch
from conftest import make_tiny_bert, sentences

from distillnb import cli, lesson, results, shrink  # noqa: F401  all that a command will import

torch.set_num_threads(1)


# Texts, and the commands

def make_texts(path, n=700, seed=0):
    generator = np.random.default_rng(seed)
    rows = [(f"{text} {i}", ["negative", "neutral", "positive"][generator.integers(3)]) for i, text in enumerate(sentences(n, seed))]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path, index=False)


def student_options():
    return ["--students", "linear", "--epochs", "2", "--vocab-size", "400", "--tokenizer", "own", "--labelled", "200", "--width", "16", "--device", "cpu"]


COMMANDS = {
    "run": ["run", "texts.csv", "--teacher", "bert", "--output", "out/run", "--cache", "cache", *student_options()],
    "distill": ["distill", "texts.csv", "--teacher", "bert", "--output", "out/student", "--cache", "cache", "--student", "linear", "--epochs", "2",
                "--vocab-size", "400", "--tokenizer", "own", "--width", "16", "--device", "cpu"],
    "label": ["label", "texts.csv", "--teacher", "bert", "--output", "out/answers.csv", "--cache", "cache", "--device", "cpu"],
    "export": ["export", "student", "out/student.npz", "--check", "texts.csv"],
    "again": ["run", "texts.csv", "--teacher", "bert", "--output", "out/run", "--cache", "cache", *student_options(), "--epochs", "3"],
}


def child(work, seconds=None, number=signal.SIGKILL, limit=None):
    """Fork, do the work there, send a signal after some seconds: how it ended, and what it said."""
    heard, said = os.pipe()
    fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 1 << 20)  # more than a command says
    process = os.fork()
    if not process:
        try:
            os.dup2(said, 1), os.dup2(said, 2)
            sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(os.dup(said), "wb"), "utf-8", write_through=True) for _ in (1, 2))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            os._exit(work() or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(process, number)
    os.close(said)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with os.fdopen(heard, "rb") as pipe:
        return status, pipe.read().decode("utf-8", "replace")


def command(name, folder):
    def work():
        os.chdir(folder)
        return cli.main(list(COMMANDS[name]))
    return work


# What a command leaves

TIMES = "seconds|per_second|texts/s"
VOLATILE = {"report.html", "README.md", "bench.json"}  # they show speeds or today's date


def content(folder):
    """Every file below a folder with a digest of its content, without what a clock has written."""
    found = {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not path.is_file() or path.name in VOLATILE or hidden:
            continue
        data = path.read_bytes()
        if path.suffix == ".csv" and path.name != "answers.csv":
            frame = pd.read_csv(path)
            data = frame.loc[:, ~frame.columns.str.contains(TIMES)].to_csv().encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()[:12]
    return found


def leftovers(folder):
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if ".partial" in path.name or path.name.startswith("tmp")]


def prepared(place):
    folder = place / "template"
    folder.mkdir()
    make_tiny_bert(folder / "bert")
    make_texts(folder / "texts.csv")
    (folder / "out").mkdir()
    status, said = child(lambda: (os.chdir(folder), cli.main([*COMMANDS["distill"][:5], "student", *COMMANDS["distill"][6:]]))[1])
    assert status == 0, said
    shutil.rmtree(folder / "cache")
    return folder


def differences(expected, found):
    return {path: (expected.get(path), found.get(path)) for path in {*expected, *found} if expected.get(path) != found.get(path)}


class Disturbed:
    """A command that is disturbed and then called again, beside an undisturbed one."""

    def __init__(self, name, template, place):
        self.name, self.start, self.reference, self.folder = name, place / f"{name}-start", place / f"{name}-reference", place / "trial"
        self.ends = {}
        shutil.copytree(template, self.start)
        if name == "again":  # over an old result
            self.must(child(command("run", self.start)))
        self.old = content(self.start / "out")
        shutil.copytree(self.start, self.reference)
        begin = time.perf_counter()
        self.must(child(command(name, self.reference)))
        self.length, self.expected = time.perf_counter() - begin, content(self.reference / "out")

    def must(self, ended):
        status, said = ended
        assert status == 0, said

    def trial(self, label, fits, keeps_old, **disturbance):
        """Whether all is well; `fits` says which exit statuses are right, `keeps_old` that the old result must be old or new."""
        shutil.copytree(self.start, self.folder)
        first, said = child(command(self.name, self.folder), **disturbance)
        now, wrong = content(self.folder / "out"), []
        self.ends[f"{label} {first}"] = self.ends.get(f"{label} {first}", 0) + 1
        if first not in fits or "Traceback" in said:
            wrong.append(f"status {first}: {said[-1500:]}")
        if self.old and keeps_old and now not in (self.old, self.expected):
            wrong.append(f"the old result is neither old nor new: {differences(self.old, now)} {differences(self.expected, now)}")
        left = leftovers(self.folder) if "limit" in disturbance else []  # whoever is killed cannot tidy up
        second, said = child(command(self.name, self.folder))
        found = content(self.folder / "out")
        if second != 0 or found != self.expected:
            wrong.append(f"again: status {second}, {differences(self.expected, found)}: {said[-600:]}")
        if left := left or leftovers(self.folder):
            wrong.append(f"left over: {left}")
        if wrong:
            print(f"{self.name}: {label} {disturbance}, undisturbed {self.length:.3f} s:", *wrong, sep="\n  ", flush=True)
        shutil.rmtree(self.folder)
        return not wrong


STATUSES = {signal.SIGKILL: (-9, 0), signal.SIGTERM: (143, 0, -15), signal.SIGINT: (130, 0)}


def crash(trials, names, generator, place):
    """Kill, terminate and interrupt a command at random moments; run it again: the result is that of an undisturbed one."""
    template, bad = prepared(place), 0
    for name in names:
        disturbed = Disturbed(name, template, place)
        for _ in range(trials):
            number, moment = generator.choice(list(STATUSES)), generator.uniform(0, 1.05 * disturbed.length)
            bad += not disturbed.trial(number.name, STATUSES[number], number == signal.SIGKILL, seconds=moment, number=number)
        print(f"{name}: {trials} trials of {disturbed.length:.1f} s, ended {dict(sorted(disturbed.ends.items()))}", flush=True)
    return bad


def disk(trials, names, generator, place):
    """No file may grow beyond a random limit, as on a full disk: one line, the old result whole, and all well once there is room."""
    template, bad = prepared(place), 0
    for name in names:
        disturbed = Disturbed(name, template, place)
        sizes = [path.stat().st_size for part in ("out", "cache") for path in (disturbed.reference / part).rglob("*") if path.is_file()]
        for _ in range(trials):
            limit = max(1, generator.choice(sizes) + generator.choice([-1, -1, 0, -500]))
            bad += not disturbed.trial("limit", (0, 1, 2), True, limit=limit)
        print(f"{name}: {trials} trials, ended {dict(sorted(disturbed.ends.items()))}", flush=True)
    return bad


# Damage

def damaged(data, generator):
    """The bytes with one random fault."""
    data, kind = bytearray(data), generator.randrange(6)
    place = generator.randrange(len(data))
    if kind == 0:
        data[place] ^= 1 << generator.randrange(8)
    elif kind == 1:
        del data[place:place + generator.randrange(1, 40)]
    elif kind == 2:
        data[place:place] = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 20)))
    elif kind == 3:
        del data[place:]
    elif kind == 4:
        other = generator.randrange(len(data))
        data[place:place + 16] = data[other:other + 16]
    else:
        size = generator.randrange(1, 64)
        data[place:place + size] = bytes(size)
    return bytes(data)


def damage(trials, names, generator, place):
    """Damage a file that is read again: it is refused in words or made anew, and no number changes silently."""
    from distillnb.data import read_reviews, split
    from distillnb.inference import load_student
    from distillnb.labelling import any_teacher, label_texts
    from distillnb.runtime import load
    from distillnb.teacher import cached_fine_tune, load_teacher

    template, texts = prepared(place), sentences(40, seed=5)
    os.chdir(template)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for file in ("student.npz", "student.onnx"):
            assert cli.main(["export", "student", file, "--check", "texts.csv"]) == 0
        frame = read_reviews("texts.csv", report=None)
        parts = split(frame, test=100, validation=100, report=None)
        label_texts(any_teacher("bert", device="cpu"), texts, "answers.csv")
        fine_tune = lambda: cached_fine_tune("bert", parts.train, parts.validation, "cache", device="cpu", epochs=1, freeze_layers=0, max_length=32)
        tuned = fine_tune()

    def logits():
        return any_teacher("bert", device="cpu", cache="logits").logits(texts)

    def answers():
        return label_texts(any_teacher("bert", device="cpu"), texts, "answers.csv").iloc[:, 1:]

    def table():
        return any_teacher("answers.csv").probabilities(texts)
    logits()
    written = [Path("answers.csv"), Path(".answers.csv.digests")]
    kinds = {
        "logits": (sorted(Path("logits").rglob("*.npy")), logits),
        "teacher": ([path for path in sorted(tuned.iterdir()) if path.is_file()], lambda: load_teacher(fine_tune(), device="cpu").logits(texts)),
        "student": ([path for path in sorted(Path("student").iterdir()) if path.name not in ("README.md", "distillnb.json", "digests.json")],
                    lambda: load_student("student", "cpu").logits(texts)),
        "answers": (written, answers), "table": (written, table),
        "npz": ([Path("student.npz")], lambda: load("student.npz").logits(texts)),
        "onnx": ([Path("student.onnx")], lambda: load("student.onnx").logits(texts)),
    }
    bad = 0
    for name in names:
        files, use = kinds[name]
        with contextlib.redirect_stderr(io.StringIO()):
            right = np.asarray(use())
        ends, everything = {}, {file: file.read_bytes() for file in files}
        for trial in range(trials):
            file = generator.choice(files)
            whole = everything[file]
            file.write_bytes(broken := damaged(whole, generator))
            try:
                with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                    found = np.asarray(use())
                end = "same" if broken == whole or np.array_equal(found, right) else "OTHER NUMBERS"
            except (ValueError, FileNotFoundError) as error:
                end = "refused" if str(error).strip() else "NO WORDS"
            except BaseException as error:
                end = f"FOREIGN {type(error).__name__}: {str(error)[:100]}"
            ends[end.split(":")[0]] = ends.get(end.split(":")[0], 0) + 1
            if end not in ("same", "refused"):
                bad += 1
                spot = next((i for i, (a, b) in enumerate(zip(whole, broken)) if a != b), len(broken))
                print(f"{name}, trial {trial}: {file.name} from byte {spot} ({whole[spot:spot + 20]} -> {broken[spot:spot + 20]}): {end}", flush=True)
            for other, before in everything.items():
                other.parent.mkdir(parents=True, exist_ok=True)
                other.write_bytes(before)
        print(f"{name}: {trials} damages of {len(files)} files: {ends}", flush=True)
    return bad


# Fuzz

PIECES = ["text", "label", ",", ";", "\t", '"', "\n", "\r", "\r\n", "\0", "\ufeff", "é", "\U0001f600", "1", "0.5", "nan", "inf", "-1e999", "True",
          "__label__", "{", "}", "[", "]", ":", '{"text": "a", "label": 1}', "good film", " ", "\u2028", "=1+1", "sep=;", "'", "\\", "null", "a" * 300]
ODD_BYTES = [b"\xff\xfe", b"\xef\xbb\xbf", b"\x80", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\xc3", b"\xed\xa0\x80", b"\x00\x00"]


def some_bytes(generator):
    parts = [generator.choice(ODD_BYTES) if generator.random() < .08 else generator.choice(PIECES).encode() for _ in range(generator.randrange(40))]
    return (b"text,label\n" if generator.random() < .4 else b"") + b"".join(parts)


def fuzz(trials, names, generator, place):
    """Random bytes to every reader: an answer, or a `ValueError` (`FileNotFoundError`, `TypeError`) in words."""
    from distillnb.card import read_facts
    from distillnb.data import read_reviews, read_texts
    from distillnb.embeddings import read_vectors
    from distillnb.inference import load_student
    from distillnb.labelling import any_teacher
    from distillnb.machine import check_seal
    from distillnb.runtime import load
    from distillnb.tables import begun_table, read_table
    from distillnb.tokens import load_tokens, train_tokenizer

    tokenizer = train_tokenizer(sentences(50), 300)
    file = lambda ending: place / f"x{ending}"
    endings = [".csv", ".tsv", ".jsonl", ".json", ".txt", ".csv.gz", ".parquet", ".CSV", ".tsv.gz"]

    def a_file(names):
        path = file(generator.choice(names))
        path.write_bytes(some_bytes(generator))
        return path

    def in_folder(name, others=()):
        folder = place / "folder"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for part in (name, *others):
            (folder / part).write_bytes(some_bytes(generator))
        return folder
    readers = {
        "table": lambda: read_table(a_file(endings)), "reviews": lambda: read_reviews(a_file(endings), report=None),
        "texts": lambda: read_texts(a_file(endings), report=None), "begun": lambda: begun_table(a_file([".csv", ".tsv", ".jsonl", ".csv.gz"]), ["text", "a", "b"]),
        "teacher": lambda: any_teacher(a_file(endings)), "vectors": lambda: read_vectors(a_file([".vec", ".txt", ".vec.gz"]), tokenizer),
        "facts": lambda: read_facts(in_folder("distillnb.json")), "runtime": lambda: load(a_file([".npz", ".onnx"])),
        "student": lambda: load_student(in_folder("config.json", ["model.safetensors", "tokenizer.json"])),
        "seal": lambda: check_seal(in_folder("digests.json")), "tokens": lambda: load_tokens(in_folder("settings.json", ["ids.npy", "offsets.npy", "truncated.npy"])),
        "settings": lambda: cli._read_settings(a_file([".toml"]), "run", {}),
    }
    bad, foreign = 0, {}
    chosen = [name for name in readers if not names or name in names]
    cheap = [name for name in chosen if name != "student"]
    for trial in range(trials):
        name = "student" if "student" in chosen and trial % 50 == 0 or not cheap else generator.choice(cheap)
        state = generator.getstate()
        try:
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                readers[name]()
        except (ValueError, FileNotFoundError, TypeError) as error:
            if str(error).strip():
                continue
            kind = f"{name}: {type(error).__name__} without words"
        except BaseException as error:
            kind = f"{name}: {type(error).__name__} {str(error)[:80]!r}"
        else:
            continue
        bad += 1
        if kind not in foreign:
            foreign[kind] = state
            print(f"trial {trial}: {kind}", flush=True)
            if os.environ.get("TRIALS_TRACEBACK"):
                traceback.print_exc()
    print(f"{trials:,} inputs over {len(chosen)} readers: {len(foreign)} unique foreign exceptions")
    return bad


# A crowd

def together(works):
    """Fork all, wait for all: how each ended, and what it said."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(child, works))


def crowd(trials, names, generator, place):
    """Processes that share a cache or an output, and threads that share a teacher, a tokenizer or a cascade: all right, every time."""
    from concurrent.futures import ThreadPoolExecutor

    from transformers import AutoTokenizer

    from distillnb.cascade import CascadeClassifier
    from distillnb.data import read_reviews, split
    from distillnb.estimator import DistilledClassifier
    from distillnb.labelling import any_teacher
    from distillnb.teacher import cached_fine_tune
    from distillnb.tokens import tokenize

    template, bad = prepared(place), 0
    reference = place / "reference"
    shutil.copytree(template, reference)
    for name in ("run", "label"):
        status, said = child(command(name, reference))
        assert status == 0, said
    expected = content(reference / "out")
    alone = {path: digest for path, digest in expected.items() if path.startswith("run")}
    parts = split(read_reviews(template / "texts.csv", report=None), test=100, validation=100, report=None)

    def fine_tune():
        cached_fine_tune(str(template / "bert"), parts.train, parts.validation, str(place / "trial" / "cache"), device="cpu", epochs=1,
                         freeze_layers=0, max_length=32)
    texts, tokenizer = sentences(400, seed=9), AutoTokenizer.from_pretrained(template / "bert")
    teacher = any_teacher(template / "bert", device="cpu", cache=place / "logits")
    answers, ids = teacher.logits(texts), tokenize(texts, tokenizer, 32).ids.tolist()
    student = DistilledClassifier("linear", teacher, epochs=1, vocab_size=400, tokenizer="own", device="cpu").fit(texts)
    cascade = CascadeClassifier(student, teacher, budget=.3).fit(texts)
    asked = cascade.predict_proba(texts)

    def check(what, right, said=""):
        nonlocal bad
        if not right:
            bad += 1
            print(f"trial {trial}: {what}: {said}", flush=True)
    for trial in range(trials):
        folder = place / "trial"
        shutil.copytree(template, folder)
        ends = together([command("run", folder)] * 4)  # one cache, and one output too
        check("four runs", all(status == 0 for status, _ in ends) and content(folder / "out") == alone and not leftovers(folder),
              [said[-300:] for status, said in ends if status])
        ends = together([fine_tune] * 3)
        check("three fine-tunings", all(status == 0 for status, _ in ends) and not leftovers(folder / "cache"), [said[-300:] for _, said in ends])
        ends = together([command("label", folder)] * 2)
        refused = [said for status, said in ends if status]
        check("two answers", sum(status == 0 for status, _ in ends) >= 1 and all("being written by another process" in said for said in refused)
              and content(folder / "out") == expected, ends)
        shutil.rmtree(folder)
        with ThreadPoolExecutor(16) as pool:
            orders = [generator.sample(range(400), generator.randrange(1, 60)) for _ in range(64)]
            found = list(pool.map(lambda rows: teacher.logits([texts[i] for i in rows]), orders))
            check("a teacher", all(np.allclose(logits, answers[rows], atol=1e-4) for logits, rows in zip(found, orders)))
            lengths = [generator.choice([8, 16, 32, 32, 32]) for _ in range(64)]
            found = list(pool.map(lambda length: tokenize(texts, tokenizer, length).ids.tolist(), lengths))
            check("a tokenizer", all(length != 32 or mine == ids for mine, length in zip(found, lengths)))
            found = list(pool.map(lambda _: cascade.predict_proba(texts), range(16)))
            check("a cascade", all(np.allclose(mine, asked, atol=1e-4) for mine in found))
    print(f"crowd: {trials} trials, {bad} wrong")
    return bad


TRIALS = {"crash": (crash, list(COMMANDS)), "disk": (disk, list(COMMANDS)),
          "damage": (damage, ["logits", "teacher", "student", "answers", "table", "npz", "onnx"]), "fuzz": (fuzz, []), "crowd": (crowd, [])}
SHORT = [(crash, ["label", "export"], 3), (disk, ["label"], 3), (damage, ["logits", "student", "answers", "table", "npz", "onnx"], 20), (fuzz, [], 3000)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*TRIALS, "short"], help="short: a little of each, in half a minute")
    parser.add_argument("names", nargs="*", help="commands (run, distill, label, export, again), files, or readers; all by default")
    parser.add_argument("--trials", type=int, default=20, help="of each (20)")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is chosen at random (0)")
    args = parser.parse_args(argv)
    wanted = SHORT if args.kind == "short" else [(TRIALS[args.kind][0], args.names or TRIALS[args.kind][1], args.trials)]
    bad = 0
    for trial, names, trials in wanted:
        with tempfile.TemporaryDirectory() as place:
            bad += trial(trials, names, random.Random(args.seed), Path(place).resolve())
            os.chdir(Path(__file__).parent)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
