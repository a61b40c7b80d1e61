"""Our students beside what people would pick instead, on the demo and on every data set of a folder. See README.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path

import altair as alt
import joblib
import numpy as np
import pandas as pd
from jinja2 import Environment
from tqdm import tqdm

from benchmarks.compare_peers import FACTORS, LESSONS, PEERS, Peer, Task, student_peers
from distillnb.bench import machine
from distillnb.data import Splits, label_ids
from distillnb.experiment import PRESETS, Experiment
from distillnb.machine import written_whole
from distillnb.report import picture
from distillnb.significance import pooled_bootstrap, verdict
from distillnb.teacher import quiet_transformers
from distillnb.tokens import demo_model

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BASELINES = ("tf-idf words", "tf-idf words and letters")  # the best of them is what all are compared with
WORDS = {"helps": "better", "hurts": "worse", "inconclusive": "open"}
QUICK = {name: PRESETS["quick"][name] for name in ("epochs", "teacher_options")} | {"tune": (1.,)}
FEW = {"train": 500, "validation": 150, "test": 400, "transfer": 300}  # rows of each part with --quick
ALONE = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMBA")} | {
    "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}  # a process that answers
PACKAGES = ("distillnb", "transformers", "scikit-learn", "fasttext-wheel", "model2vec", "sentence-transformers")


def find_sets(data: Path | None) -> dict[str, Path | None]:
    "Folders of data sets by name, those with a train and a test part of their own; the demo, first, has none."
    folders = [] if data is None else sorted(folder for folder in data.iterdir() if folder.is_dir())
    parts = {folder: {file.name.split(".")[0] for file in folder.iterdir()} for folder in folders}
    return {"demo": None} | {folder.name: folder for folder in folders if {"train", "test"} <= parts[folder]}


def load_splits(name: str, folder: Path | None, quick: bool, say: Callable) -> Splits:
    "The parts of a set; a folder tweets_unlabelled beside it holds further texts for all sets called tweet_..."
    if folder is None:
        return Experiment.preset("quick" if quick else "demo").splits(say)
    further = sorted((folder.parent / f"{name.split('_')[0]}s_unlabelled").glob("transfer.*"))
    splits = Experiment(data=folder, transfer=further[0] if further else None, fragments=0).splits(say)
    few = {part: frame.sample(min(FEW[part], len(frame)), random_state=0).reset_index(drop=True)
           for part, frame in splits._asdict().items()}
    return Splits(**few) if quick else splits


def measure(peer: Peer, folder: Path, texts: list[str]) -> tuple[list[int], float, float]:
    "Class ids, kB and texts a second of processor time of what is shipped, in a process of its own, or `ValueError`."
    order = {"module": peer.load.__module__, "load": peer.load.__name__, "folder": str(folder), "texts": texts}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    done = subprocess.run([sys.executable, "-c", "from benchmarks.compare_peers import answer; answer()"], text=True,
                          input=json.dumps(order), capture_output=True, env=os.environ | ALONE | path)
    if done.returncode:
        raise ValueError(f"answering stopped: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return found["ids"], size / 1000, len(texts) / found["seconds"]


def try_peer(peer: Peer, task: Task, texts: list[str], seeds: int, bar: tqdm) -> list[dict]:
    "Train a peer on each seed and measure its forms: a row a form, `said` its class ids [S, n]; kB of the first seed."
    rows = {}
    for seed in range(seeds if peer.seeded else 1):
        bar.set_postfix_str(f"{peer.name}, {task.lesson}, seed {seed}")
        with tempfile.TemporaryDirectory() as temporary:
            start = time.perf_counter()
            spent = peer.fit(replace(task, seed=seed), Path(temporary))
            spent = time.perf_counter() - start if spent is None else spent
            for folder in sorted(path for path in Path(temporary).iterdir() if path.is_dir()):
                ids, kb, rate = measure(peer, folder, texts)
                row = rows.setdefault(folder.name, {
                    "peer": peer.name, "form": folder.name, "lesson": task.lesson, "kb": kb, "said": [],
                    "train_seconds": None if np.isnan(spent) else spent, "chosen": str([*task.chosen, ""][0])})
                row["said"].append(ids)
                row["texts_per_second"] = max(row.get("texts_per_second", 0), rate)
        bar.update()
    return list(rows.values())


def judge(rows: list[dict], truth: np.ndarray, k: int) -> list[dict]:
    "Rows with scores and 95 % intervals in place of `said`, each against the tf-idf with most of the n texts right."
    said = [np.array(row["said"]) for row in rows]
    scores = [{name: pooled_bootstrap(truth, own, metric=name, n_classes=k) for name in ("accuracy", "f1_macro")}
              for own in said]
    cheap = [number for number, row in enumerate(rows) if row["peer"] in BASELINES]
    best = max(cheap, key=lambda number: scores[number]["accuracy"].a, default=None)
    judged = []
    for number, (row, own) in enumerate(zip(rows, said)):
        row = {key: value for key, value in row.items() if key != "said"}
        row |= {"seeds": len(own), "baseline": number == best}
        for name, found in scores[number].items():
            row |= {name: found.a, f"{name}_low": found.low, f"{name}_high": found.high}
        if best not in (None, number):
            found = verdict(truth, own, np.resize(said[best], own.shape), n_classes=k)  # tf-idf has no seeds
            row |= {"verdict": WORDS[found.word], "difference": found.accuracy.difference, "low": found.accuracy.low,
                    "high": found.accuracy.high, "p": found.accuracy.p_value}
        judged.append(row)
    return judged


def run_set(splits: Splits, seeds: int, say: Callable, **changes) -> list[dict]:
    "A row for each form of each peer; `changes` are of the experiment. `KeyboardInterrupt` where Ctrl-C stops it."
    settings = {"data": splits, "seeds": tuple(range(seeds)), "tune": FACTORS, "baselines": False} | changes
    experiment = Experiment(**settings)
    results = experiment.run(say)
    if results.interrupted:
        raise KeyboardInterrupt
    texts = [*splits.train.text, *splits.transfer.text]  # fragments that the experiment makes for students come after
    lessons = {LESSONS[0]: (splits.train.text.tolist(), label_ids(splits.train)),
               LESSONS[1]: (texts, results.lesson.logits[:len(texts)].argmax(1))}
    encoder = demo_model() if experiment.teacher == "demo" else Path(experiment.teacher)
    common = (splits.validation.text.tolist(), label_ids(splits.validation), encoder,
              experiment.load_teacher(splits), results, say, {})
    peers = [peer for peer in (*PEERS.values(), *student_peers(results)) if not peer.missing]
    jobs, rows = [(peer, lesson) for peer in peers for lesson in peer.lessons], []
    total = sum(seeds if peer.seeded else 1 for peer, _ in jobs)
    with quiet_transformers(), tqdm(total=total, desc="Comparing", unit=" models") as bar:
        for peer, lesson in jobs:
            try:
                rows += try_peer(peer, Task(lesson, *lessons[lesson], *common), results.texts, seeds, bar)
            except Exception as error:  # one peer must not cost the others
                say(f"{peer.name}, {lesson}, is left out: {type(error).__name__}: {error}")
    return judge(rows, results.truth, len(results.names))


def _panel(frame: pd.DataFrame, name: str, column: str, title: str, peers: list[str]) -> alt.LayerChart:
    "One set: accuracy with its interval against a column, the forms of one model joined by a line."
    axis = {"gridColor": "#eeeeee", "titleFontWeight": "normal", "tickCount": 5}
    color = alt.Color("peer:N", scale=alt.Scale(domain=peers, scheme="tableau10"),
                      legend=alt.Legend(title=None, symbolOpacity=1))
    x = alt.X(f"{column}:Q", title=title, scale=alt.Scale(type="log"), axis=alt.Axis(format="~s", grid=False, **axis))
    y = {"title": "accuracy", "scale": alt.Scale(zero=False), "axis": alt.Axis(format="%", **axis)}
    shape = alt.Shape("lesson:N", scale=alt.Scale(domain=LESSONS, range=["circle", "diamond"]),
                      legend=alt.Legend(title="learned from"))
    base = alt.Chart(frame, width=300, height=240, title=name).encode(color=color, x=x)
    lines = base.mark_line(opacity=.5, strokeDash=[3, 3]).encode(y=alt.Y("accuracy:Q", **y), detail="lesson:N")
    bars = base.mark_rule(opacity=.35).encode(y=alt.Y("accuracy_low:Q", **y), y2="accuracy_high:Q")
    points = base.mark_point(filled=True, size=70, opacity=.9).encode(y=alt.Y("accuracy:Q", **y), shape=shape)
    return lines + bars + points


def pictures(sets: dict[str, dict]) -> dict[str, alt.ConcatChart]:
    "Accuracy against size and against speed, a panel a set."
    frames = {name: pd.DataFrame(entry["rows"]) for name, entry in sets.items() if entry["rows"]}
    peers = list(dict.fromkeys(peer for frame in frames.values() for peer in frame["peer"]))
    axes = {"size": ("kb", "kB on the disk"), "speed": ("texts_per_second", "texts a second, one thread")}
    return {kind: alt.concat(*(_panel(frame, name, *axis, peers) for name, frame in frames.items()), columns=3)
            for kind, axis in axes.items() if frames}


def readable(rows: list[dict]) -> pd.DataFrame:
    "The rows as people read them, the most accurate first."
    def percent(row, name):
        return f"{100 * row[name]:.1f} ({100 * row[f'{name}_low']:.1f} to {100 * row[f'{name}_high']:.1f})"

    def cells(row):
        against = "the baseline" if row["baseline"] else ""
        if "verdict" in row:
            p = "p < .001" if row["p"] < .001 else f"p {row['p']:.3f}"
            against = f"{row['verdict']}: {100 * row['difference']:+.1f} "
            against += f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], {p}"
        return {"model": row["peer"], "form": row["form"], "learned from": row["lesson"], "seeds": str(row["seeds"]),
                "accuracy %": percent(row, "accuracy"), "macro F1 %": percent(row, "f1_macro"),
                "against the best tf-idf": against, "kB": f"{row['kb']:,.0f}",
                "texts/s": f"{row['texts_per_second']:,.0f}",
                "seconds to train": "" if row["train_seconds"] is None else f"{row['train_seconds']:,.0f}"}
    return pd.DataFrame([cells(row) for row in sorted(rows, key=lambda row: -row["accuracy"])])


def markdown(sets: dict[str, dict]) -> str:
    "A table for each set."
    parts = []
    for name, entry in sets.items():
        frame = readable(entry["rows"])
        lines = [list(frame), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
        parts += [f"## {name}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]
    return "\n".join(parts)


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Side by side</title>
<style>body {font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1180px; padding: 0 1em}
table {border-collapse: collapse; font-size: 13px} th, td {padding: 3px 9px; border-bottom: 1px solid #ddd}
div {overflow-x: auto} svg {max-width: 100%; height: auto} th {text-align: left}</style>
<h1>Side by side</h1>
<p>Each model answers the test texts from what is shipped, in a process of its own, on one thread; processor time
counts, the best of three rounds, so that other work on the machine does not. Bars are 95 % intervals over test texts
and seeds. The tests are paired, against the tf-idf model with the highest accuracy on the test texts. Seconds of
training include the choice of settings on the validation texts. Students learn from the teacher's logits where others
learn from its classes, and, where a set has no texts without labels, from parts and mixtures of its texts too. Dashed
lines join the forms of one model.</p>
{% for kind, chart in charts.items() %}<h2>Accuracy against {{ kind }}</h2>{{ chart|safe }}{% endfor %}
{% for name, entry in sets.items() %}<h2>{{ name }}</h2>
<p>Texts: {{ entry.parts }}. Measured on: {{ entry.machine }}.</p><div>{{ entry.table|safe }}</div>
<ul>{% for line in entry.notes %}<li>{{ line }}</li>{% endfor %}</ul>{% endfor %}</html>"""


def page(state: dict) -> str:
    "Pictures, tables and notes as one HTML page that needs no network."
    sets = {name: entry | {"table": readable(entry["rows"]).to_html(index=False, border=0, justify="left")}
            for name, entry in state["sets"].items()}
    charts = {kind: picture(chart, kind) for kind, chart in pictures(state["sets"]).items()}
    return Environment(autoescape=True).from_string(_PAGE).render(charts=charts, sets=sets)


def _run(state: dict, sets: dict[str, Path | None], args: argparse.Namespace) -> None:
    "Run each set that is not there with these settings, and write table and page after each."
    there = [peer.name for peer in PEERS.values() if not peer.missing]
    missing = [f"{peer.name} is left out, for want of {', '.join(peer.missing)}: run make compare, or pip install "
               '"distillnb[compare]"' for peer in PEERS.values() if peer.missing]
    for name in args.sets or sets:
        notes = []

        def say(text, notes=notes):
            notes.append(text)
            tqdm.write(text, file=sys.stderr)
        for text in (f"{name}:", *missing):
            say(text)
        splits = load_splits(name, sets[name], args.quick, say)
        texts = joblib.hash([frame.astype(str).to_numpy().tolist() for frame in splits])
        settings = {"seeds": args.seeds, "quick": args.quick, "texts": texts, "peers": there}
        if not args.again and state["sets"].get(name, {}).get("settings") == settings:
            say("It is there already: --again measures it anew.")
            continue
        rows = run_set(splits, args.seeds, say, **QUICK if args.quick else {})
        parts = ", ".join(f"{part} {len(frame):,}" for part, frame in splits._asdict().items())
        versions = [f"{each.name} {each.version}" for each in distributions() if each.name in PACKAGES]
        state["sets"][name] = {"settings": settings, "machine": ", ".join([machine(), *versions]), "parts": parts,
                               "notes": notes[1:], "rows": rows}
        for file, text in (("compare.json", json.dumps(state, indent=1) + "\n"), ("compare.html", page(state))):
            with written_whole(args.output / file) as new:
                new.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("sets", nargs="*", metavar="SET", help="which: demo, or folders of --data (all)")
    parser.add_argument("--data", type=Path, help="folder with a folder for each data set (../shared/data, if there)")
    parser.add_argument("--seeds", type=int, help="how many, of everything that has seeds (3; with --quick 1)")
    parser.add_argument("--output", type=Path, help="folder for compare.json and compare.html (benchmarks; with "
                        "--quick runs/compare)")
    parser.add_argument("--quick", action="store_true", help="a few hundred texts of each set: does everything work?")
    parser.add_argument("--again", action="store_true", help="measure again what is in compare.json already")
    return parser


def main(argv: list[str] | None = None) -> None:
    "The command. Exits with 2 for what cannot be asked for, with 130 when it is interrupted."
    parser = _parser()
    args = parser.parse_args(argv)
    if args.data is not None and not args.data.is_dir():
        parser.error(f"{args.data} is not a folder: give one with a folder for each data set")
    sets = find_sets(args.data or (DATA if DATA.is_dir() else None))
    if unknown := [name for name in args.sets if name not in sets]:
        parser.error(f"there is no set {unknown[0]!r}: choose from {', '.join(sets)}, or say where it is with --data")
    args.seeds = (1 if args.quick else 3) if args.seeds is None else args.seeds
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: give 1 or more")
    args.output = args.output or ROOT / ("runs/compare" if args.quick else "benchmarks")
    file = args.output / "compare.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"sets": {}}
    except ValueError:
        parser.error(f"{file} is damaged: delete it, or choose another folder with --output")
    try:
        _run(state, sets, args)
    except KeyboardInterrupt:
        print(f"Interrupted: {len(state['sets'])} sets are kept in {file}; the same command goes on.", file=sys.stderr)
        sys.exit(130)
    print(markdown({name: state["sets"][name] for name in args.sets or sets}))
    print(f"Written to {file} and {file.with_suffix('.html')}")


if __name__ == "__main__":
    main()
