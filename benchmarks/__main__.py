"""Everything side by side: `python -m benchmarks`, or `python -m benchmarks teacher cnn` for some sections. See README.md here."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from benchmarks import original
from benchmarks.growth import untrained_teacher
from distillnb.cnn import CNNConfig, CNNStudent
from distillnb.data import label_ids, label_names
from distillnb.experiment import Experiment
from distillnb.inference import Classifier
from distillnb.kernels import sgd_epoch
from distillnb.lesson import Lesson
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import CrossEntropy, LogitMSE
from distillnb.metrics import scores
from distillnb.student import Recipe
from distillnb.teacher import teacher_logits
from distillnb.tokens import Tokens, tokenize, trim_vocabulary
from distillnb.training import fit, predict_logits, step_rates

HERE = Path(__file__).parent
WALKTHROUGH_VOCABULARY = 119_547


def seconds(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def alternate(sides: dict, rounds: int = 3) -> dict[str, float]:
    "Median seconds of each side; each round runs every side once, so that a noisy moment is shared"
    times = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in times.items()}


def threads(n: int) -> None:
    torch.set_num_threads(n)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if n > 1 else "false"


class Demo:
    "The demo's texts, all with their labels, and 3,000 of them for what is slow"

    def __init__(self):
        self.splits = Experiment.preset("demo", labelled=None, validation=0.0).splits(None)
        self.names = label_names(self.splits.train)
        self.tokenizer = untrained_teacher().tokenizer
        self.texts, self.test_texts = self.splits.train.text.tolist(), self.splits.test.text.tolist()
        self.labels, self.test_labels = label_ids(self.splits.train), label_ids(self.splits.test)
        self.tokens, self.test_tokens = tokenize(self.texts, self.tokenizer), tokenize(self.test_texts, self.tokenizer)
        self.test, self.few = (self.test_tokens, self.test_labels), np.arange(3000)

    def lesson(self, rows=slice(None)):
        return Lesson(self.names, self.tokens[rows], self.labels[rows], vocab_size=len(self.tokenizer))

    def student(self, kind, seed=0, tokens=None, **sizes):
        torch.manual_seed(seed)
        config, student = {"linear": (LinearConfig, LinearStudent), "cnn": (CNNConfig, CNNStudent)}[kind]
        tokens = self.tokens if tokens is None else tokens
        return student(config(num_labels=3, **sizes), trim_vocabulary(tokens, len(self.tokenizer)))


def walkthrough_tokens(n: int, generator) -> Tokens:
    "Random texts of 10 to 128 tokens out of a vocabulary as large as the walkthrough's, rare words rare"
    lengths = generator.integers(10, 129, n)
    ids = (generator.zipf(1.2, lengths.sum()) % (WALKTHROUGH_VOCABULARY - 1) + 1).astype(np.int32)
    return Tokens(ids, np.append(0, lengths.cumsum()), np.zeros(n, dtype=bool), 128, 0, "random")


def fasttext_lines(tokens: Tokens, labels, path: Path) -> str:
    "The same tokens as fastText reads them: an id is a word"
    path.write_text("".join(f"__label__{label} " + " ".join(map(str, tokens[i].tolist())) + "\n" for i, label in enumerate(labels)))
    return str(path)


def linear(demo: Demo) -> dict:
    "Training at batch 1 with plain SGD, one thread"
    threads(1)
    n, k, result = len(demo.tokens), len(demo.names), {}
    long = walkthrough_tokens(4000, np.random.default_rng(0))
    for data, tokens, labels, vocabulary in (
        ("demo", demo.tokens, demo.labels, len(demo.tokenizer)),
        ("walkthrough's size", long, np.random.default_rng(1).integers(0, k, len(long)), WALKTHROUGH_VOCABULARY),
    ):
        some = 300 if vocabulary == WALKTHROUGH_VOCABULARY else 1000
        plain = original.Linear(vocabulary, k)
        sgd, batches = torch.optim.SGD(plain.parameters(), lr=0.05), original.loader(tokens[:some], labels[:some], 1)
        student, order = LinearStudent(LinearConfig(vocabulary, num_labels=k)), np.random.default_rng(0).permutation(len(tokens))
        rates = np.full(len(order), 0.05, np.float32)
        sgd_epoch(student, tokens, CrossEntropy(), order[:8], 1, rates[:8], labels)  # compiles
        times = alternate(
            {
                "original": lambda: original.train_epoch(plain, batches, sgd),
                "by hand, PyTorch": lambda: sgd_epoch(
                    student, tokens, CrossEntropy(), order[:2000], 1, rates[:2000], labels, compiled=False
                ),
                "by hand, compiled": lambda: sgd_epoch(student, tokens, CrossEntropy(), order, 1, rates, labels),
                "logit MSE, compiled": lambda: sgd_epoch(
                    student, tokens, LogitMSE(), order, 1, rates, labels, np.zeros((len(labels), k), np.float32)
                ),
            },
            5,
        )
        counts = {"original": some, "by hand, PyTorch": 2000}
        rates = {name: counts.get(name, len(tokens)) / spent for name, spent in times.items()}
        result[data] = {
            name: {"examples/s": rate, "tokens/s": rate * tokens.lengths.mean(), "ratio to original": rate / rates["original"]}
            for name, rate in rates.items()
        }
    # the original's steps and ours are the same computation: same weights from the same start
    plain, student = (
        original.Linear(len(demo.tokenizer), k),
        LinearStudent(LinearConfig(len(demo.tokenizer), num_labels=k, average="max_length")),
    )
    student.embedding.weight.data.copy_(plain.embedding.weight.data)
    original.train_epoch(plain, original.loader(demo.tokens[:600], demo.labels[:600], 1), torch.optim.SGD(plain.parameters(), lr=0.5))
    sgd_epoch(student, demo.tokens[:600], CrossEntropy(), np.arange(600), 1, np.full(600, 0.5), demo.labels[:600])
    result["largest difference of a weight after 600 steps of original and ours"] = max(
        (a - b).abs().max().item()
        for a, b in (
            (plain.embedding.weight.data, student.embedding.weight.data),
            (plain.classifier.weight.data, student.classifier.weight.data),
        )
    )
    try:
        import fasttext
    except ImportError:
        return result | {"fastText": "not installed"}
    with tempfile.TemporaryDirectory() as folder:
        train = fasttext_lines(demo.tokens, demo.labels, Path(folder) / "train.txt")
        test = fasttext_lines(demo.test_tokens, demo.test_labels, Path(folder) / "test.txt")
        options = {"dim": 50, "lr": 0.5, "minCount": 1, "bucket": 0, "loss": "softmax", "thread": 1, "verbose": 0}
        student = LinearStudent(LinearConfig(len(demo.tokenizer), num_labels=k))

        def ours(epochs):
            for epoch in range(epochs):
                order = np.random.default_rng(epoch).permutation(n)
                sgd_epoch(student, demo.tokens, CrossEntropy(), order, 1, step_rates(0.5, "linear", epoch, epochs, n), demo.labels)

        times = alternate(
            {
                f"{side} {epochs}": lambda run=run, epochs=epochs: run(epochs)
                for side, run in (("fastText", lambda epochs: fasttext.train_supervised(train, epoch=epochs, **options)), ("ours", ours))
                for epochs in (5, 25)
            },
            5,
        )
        per_epoch = {side: (times[f"{side} 25"] - times[f"{side} 5"]) / 20 for side in ("fastText", "ours")}  # without reading and set-up
        for side, spent in per_epoch.items():
            result["demo"][side + ", an epoch"] = {"examples/s": n / spent, "tokens/s": len(demo.tokens.ids) / spent}
        result["ours to fastText, a thread each"] = per_epoch["fastText"] / per_epoch["ours"]
        accuracy = {"fastText": [], "ours": [], "ours, halved rate": []}
        for seed in range(5):
            accuracy["fastText"].append(fasttext.train_supervised(train, epoch=5, seed=seed, **options).test(test)[1])
            for side, decay in (("ours", "linear"), ("ours, halved rate", 0.5)):
                recipe = Recipe("linear", {}, "sgd", 0.5, decay, batch_size=1, epochs=5)
                trained = fit(demo.student("linear", seed), demo.lesson(), recipe, seed, watch=demo.test, device="cpu")
                accuracy[side].append(trained.history.test_acc.iloc[-1])
    result["accuracy, 5 epochs, all training texts, 5 seeds"] = accuracy
    return result


def cnn(demo: Demo) -> dict:
    "Training in batches of 32 with Adam, and inference, on all cores"
    threads(os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0)))
    k, result = len(demo.names), {}
    long = walkthrough_tokens(4000, np.random.default_rng(0))
    long_labels = np.random.default_rng(1).integers(0, k, len(long))
    for data, tokens, labels, vocabulary in (
        ("demo", demo.tokens, demo.labels, len(demo.tokenizer)),
        ("walkthrough's size", long, long_labels, WALKTHROUGH_VOCABULARY),
    ):
        plain = original.CNN(vocabulary, k)
        adam, batches = torch.optim.Adam(plain.parameters()), original.loader(tokens[:640], labels[:640], 32)
        student = CNNStudent(CNNConfig(num_labels=k, initial_std=1.0), trim_vocabulary(tokens, vocabulary))
        lesson, once = Lesson(demo.names, tokens, labels, vocab_size=vocabulary), Recipe("cnn", decay=1.0, epochs=1)
        times = alternate(
            {
                "original": lambda: original.train_epoch(plain, batches, adam),
                "ours": lambda: fit(student, lesson, once, watch=(tokens[:2], labels[:2]), device="cpu"),
            }
        )
        rates = {"original": 640 / times["original"], "ours": len(tokens) / times["ours"]}
        result[f"training, {data}"] = {
            name: {"examples/s": rate, "ratio to original": rate / rates["original"]} for name, rate in rates.items()
        }
        times = alternate({"original": lambda: original.predict(plain, batches), "ours": lambda: predict_logits(student, tokens)})
        rates = {"original": 640 / times["original"], "ours": len(tokens) / times["ours"]}
        result[f"inference, {data}"] = {
            name: {"examples/s": rate, "ratio to original": rate / rates["original"]} for name, rate in rates.items()
        }
    few, labels = demo.tokens[demo.few], demo.labels[demo.few]
    accuracy = {"original": [], "ours": []}
    batches, test = original.loader(few, labels, 32), original.loader(demo.test_tokens, demo.test_labels, 32)
    for seed in range(3):
        torch.manual_seed(seed)
        plain = original.CNN(len(demo.tokenizer), k)
        adam = torch.optim.Adam(plain.parameters())
        for _ in range(5):
            original.train_epoch(plain, batches, adam)
        accuracy["original"].append(scores(demo.test_labels, original.predict(plain, test).argmax(1).numpy(), k)["acc"])
    for seed in range(5):
        recipe = Recipe("cnn", decay=1.0, epochs=5)
        trained = fit(demo.student("cnn", seed, few), demo.lesson(demo.few), recipe, seed, watch=demo.test, device="cpu")
        accuracy["ours"].append(trained.history.test_acc.iloc[-1])
    return result | {"accuracy, 3,000 labels, 5 epochs": accuracy}


def teacher(demo: Demo) -> dict:
    "Logits of 2,000 of the demo's texts, on all cores"
    threads(len(os.sched_getaffinity(0)))
    model = untrained_teacher()
    tokens, few = demo.tokens[:2000], demo.tokens[:160]

    @torch.inference_mode()
    def useful():
        "The same model on the same tokens without any padding: only texts of the same length share a batch, no mask, no cache, no check"
        for length in np.unique(tokens.lengths):
            rows = np.flatnonzero(tokens.lengths == length)
            for part in np.array_split(rows, -(-len(rows) * length // 2048)):
                model.model(input_ids=torch.from_numpy(tokens.padded(part)[0]))

    def ours(precision=None):
        return teacher_logits(model, tokens, model.names, None, precision, device="cpu", report=None)

    messages = []
    teacher_logits(model, tokens, model.names, None, "int8", device="cpu", report=messages.append)
    times = alternate(
        {
            "original": lambda: original.label(model.model, few),
            "ours": ours,
            "ours, int8": lambda: ours("int8"),
            "useful tokens alone": useful,
        }
    )
    rates = {name: (len(few) if name == "original" else len(tokens)) / spent for name, spent in times.items()}
    return {name: {"texts/s": rate, "ratio to original": rate / rates["original"]} for name, rate in rates.items()} | {
        "cost above the useful tokens alone": times["ours"] / times["useful tokens alone"] - 1,
        "int8": messages[0],
    }


def latency(run, texts: list[str]) -> dict[str, float]:
    "Microseconds for one text at a time, median and 95th percentile"
    run(texts[0])
    spent = [seconds(lambda: run(text)) * 1e6 for text in texts]
    return {"p50 us": float(np.percentile(spent, 50)), "p95 us": float(np.percentile(spent, 95))}


def inference(demo: Demo) -> dict:
    "From text to probabilities, one thread: in bulk, and one text at a time"
    threads(1)
    students = {"linear": demo.student("linear"), "cnn": demo.student("cnn")}
    recipes = Recipe("linear", {}, "sgd", 0.5, batch_size=1, epochs=5), Recipe("cnn", decay=1.0, epochs=5)
    for model, recipe in zip(students.values(), recipes):
        fit(model, demo.lesson(), recipe, device="cpu")
    classifiers = {name: Classifier(model, demo.tokenizer) for name, model in students.items()}
    classifiers["teacher"] = Classifier(untrained_teacher().model, demo.tokenizer)
    tfidf = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(max_iter=1000))
    fitting = seconds(lambda: tfidf.fit(demo.texts, demo.labels))
    long = [" ".join(demo.test_texts[i : i + 12]) for i in range(0, 4000, 4)]
    core, result = classifiers["linear"]._core, {}
    for data, texts in (("demo texts", demo.test_texts), ("128-token texts", long)):
        few = texts[:100]
        sides = {
            "tokenizer alone": lambda: core.encode_batch(texts),
            "tokenizer alone, ids only": lambda: core.encode_batch_fast(texts),
            "linear": lambda: classifiers["linear"].predict_proba(texts),
            "cnn": lambda: classifiers["cnn"].predict_proba(texts),
            "tf-idf + logistic regression": lambda: tfidf.predict_proba(texts),
            "teacher": lambda: classifiers["teacher"].predict_proba(few),
        }
        rates = {name: (len(few) if name == "teacher" else len(texts)) / spent for name, spent in alternate(sides).items()}
        single = {
            name: latency(lambda text, c=classifier: c.predict_proba([text]), texts[: 300 if name != "teacher" else 60])
            for name, classifier in classifiers.items()
        }
        single["tf-idf + logistic regression"] = latency(lambda text: tfidf.predict_proba([text]), texts[:300])
        single["tokenizer alone"] = latency(lambda text: core.encode(text), texts[:300])
        result[data] = {
            name: {
                "texts/s": rate,
                "time to the tokenizer's own": rates["tokenizer alone"] / rate,
                "ratio to teacher": rate / rates["teacher"],
                **single.get(name, {}),
            }
            for name, rate in rates.items()
        }
        result[data]["tokens a text"] = float(tokenize(texts, demo.tokenizer).lengths.mean())
    accuracy = {name: scores(demo.test_labels, classifiers[name].predict_proba(demo.test_texts).argmax(1), 3)["acc"] for name in students}
    accuracy["tf-idf + logistic regression"] = scores(demo.test_labels, tfidf.predict(demo.test_texts), 3)["acc"]
    sizes = {name: sum(array.nbytes for array in model.state_dict().values()) / 1e6 for name, model in students.items()}
    sizes["tf-idf + logistic regression"] = (tfidf[-1].coef_.nbytes + sum(map(len, tfidf[0].vocabulary_))) / 1e6
    return result | {"accuracy, all training texts": accuracy, "size in MB": sizes, "seconds to fit tf-idf + logistic regression": fitting}


def growth(demo: Demo) -> list[dict]:
    "Time and memory of N texts, each N in a process of its own; the teacher is stubbed, so this is the cost of our part alone"
    rows = []
    for n in (1_000, 10_000, 100_000, 1_000_000):
        done = subprocess.run([sys.executable, "-m", "benchmarks.growth", str(n)], capture_output=True, text=True, check=True, env=PLAIN)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], file=sys.stderr)
    return rows


SECTIONS = {section.__name__: section for section in (linear, cnn, teacher, inference, growth)}


def machine() -> dict:
    "Where this was measured"
    names = (
        [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        if Path("/proc/cpuinfo").exists()
        else []
    )
    return {
        "processor": names[0] if names else platform.processor(),
        "cores used": len(os.sched_getaffinity(0)),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numba", "numpy", "scikit-learn")},
    }


def show(value, indent: int = 0) -> list[str]:
    "Nested results as lines of text"
    lines = []
    for name, item in value.items():
        if isinstance(item, dict) and all(isinstance(cell, (int, float)) for cell in item.values()):
            lines.append(
                " " * indent
                + f"{name}: "
                + ", ".join(f"{key} {cell:,.4g}" if cell < 1e4 else f"{key} {cell:,.0f}" for key, cell in item.items())
            )
        elif isinstance(item, dict):
            lines += [" " * indent + f"{name}:", *show(item, indent + 2)]
        elif isinstance(item, list) and item and isinstance(item[0], float):
            lines.append(" " * indent + f"{name}: mean {np.mean(item):.4f} of " + ", ".join(f"{cell:.4f}" for cell in item))
        elif isinstance(item, list):
            lines += [
                line
                for row in item
                for line in [
                    " " * indent + f"{row['texts']:,} texts, {row['tokens']:,} tokens:",
                    *show({key: cell for key, cell in row.items() if isinstance(cell, dict)}, indent + 2),
                ]
            ]
        else:
            lines.append(" " * indent + (f"{name}: {item:.4g}" if isinstance(item, float) else f"{name}: {item}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split(":")[0])
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"which: {', '.join(SECTIONS)} (all)")
    args = parser.parse_args()
    unknown = [name for name in args.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]!r}: choose from {', '.join(SECTIONS)}")
    path, demo = HERE / "results.json", Demo()
    results = {"machine": machine()}
    if args.sections and path.exists():
        results |= {name: value for name, value in json.loads(path.read_text()).items() if name in SECTIONS}
    for name in args.sections or SECTIONS:
        start = time.perf_counter()
        results[name] = SECTIONS[name](demo)
        print(
            "\n".join(
                [
                    f"## {name} ({time.perf_counter() - start:.0f} s): {SECTIONS[name].__doc__}",
                    *show(results[name] if isinstance(results[name], dict) else {"": results[name]}),
                    "",
                ]
            ),
            flush=True,
        )
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Written to {path}")


# Large tensors stay with the process instead of going back to the system at each step. Without this the original's rate, with its
# dense gradients, differs threefold from one process to the next; this is its best.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
PLAIN = {name: value for name, value in os.environ.items() if name not in KEEP}  # growth measures memory as it is by default

if __name__ == "__main__":
    if not KEEP.items() <= os.environ.items():  # read by the C library when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks", *sys.argv[1:]], os.environ | KEEP)
    main()
