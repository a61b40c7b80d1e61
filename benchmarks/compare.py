"""Ours beside what people would pick instead, on the demo and on every data set of a folder.

`make compare`, or `python -m benchmarks.compare banking77 sst5 --seeds 1` for some of it. See README.md here."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import altair as alt
import joblib
import numpy as np
import pandas as pd
from jinja2 import Environment
from tqdm import tqdm

from benchmarks.compare_peers import FACTORS, LESSONS, PEERS, Peer, Task, student_peers
from distillnb.bench import machine
from distillnb.data import Splits, has_parts, label_ids
from distillnb.experiment import PRESETS, Experiment
from distillnb.machine import written_whole
from distillnb.report import picture
from distillnb.significance import pooled_bootstrap, verdict
from distillnb.tokens import demo_model

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BASELINES = ("tf-idf words", "tf-idf words and characters")  # the best of them is what all are compared with
WORDS = {"helps": "better", "hurts": "worse", "inconclusive": "open"}
QUICK = {name: PRESETS["quick"][name] for name in ("epochs", "teacher_options")} | {"tune": (1.,)}
FEW = {"train": 500, "validation": 150, "test": 400, "transfer": 300}  # rows of each part with --quick
ONE_THREAD = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMBA")}


def find_sets(
    data: Path | None,  # folder with a folder for each set; None: there is none
) -> dict[str, Path | None]:  # by name; the demo comes first, and has none
    "The data sets that have a train and a test part of their own."
    folders = [] if data is None else sorted(folder for folder in data.iterdir() if folder.is_dir())
    return {"demo": None} | {folder.name: folder for folder in folders if has_parts(folder)}


def load_splits(
    name: str,  # of the set
    folder: Path | None,  # where it is; None: the demo
    quick: bool = False,  # a few hundred rows of it
    note=print,  # told what was read and dropped
) -> Splits:
    "The parts of a set; a folder tweets_unlabelled beside it has further texts for the sets tweet_..."
    if folder is None:
        return Experiment.preset("quick" if quick else "demo").splits(note)
    further = sorted((folder.parent / f"{name.split('_')[0]}s_unlabelled").glob("transfer.*"))
    splits = Experiment(data=folder, transfer=further[0] if further else None).splits(note)
    if not quick:
        return splits
    return Splits(**{part: frame.sample(min(FEW[part], len(frame)), random_state=0).reset_index(drop=True)
                     for part, frame in splits._asdict().items()})


# Measuring

def measure(
    peer: Peer,  # whose `load` is used
    folder: Path,  # what is shipped
    texts: list[str],  # to answer
) -> dict:  # ids, kb, texts_per_second
    "Answer all texts from a file on one thread, in a process of its own. Raises `ValueError` when that fails."
    order = {"module": peer.load.__module__, "load": peer.load.__name__, "folder": str(folder), "texts": texts}
    quiet = {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
    done = subprocess.run([sys.executable, "-c", "from benchmarks.compare_peers import answer; answer()"], text=True,
                          input=json.dumps(order), capture_output=True, env=os.environ | ONE_THREAD | quiet | path)
    if done.returncode:
        raise ValueError(f"answering stopped: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"ids": found["ids"], "kb": size / 1000, "texts_per_second": len(texts) / found["seconds"]}


def try_peer(
    peer: Peer,  # to train
    task: Task,  # for which
    texts: list[str],  # test texts
    seeds: int,  # how many; only one where they make no difference
    bar: tqdm,  # moved on by each seed
) -> list[dict]:  # a row for each form, with `said`, its class ids, [S, n]
    "Train a peer on each seed, and measure each form of it."
    rows = {}
    for seed in range(seeds if peer.seeded else 1):
        bar.set_postfix_str(f"{peer.name}, {task.lesson}, seed {seed}")
        with tempfile.TemporaryDirectory() as temporary:
            start = time.perf_counter()
            spent = peer.fit(replace(task, seed=seed), Path(temporary))
            spent = time.perf_counter() - start if spent is None else spent
            for folder in sorted(path for path in Path(temporary).iterdir() if path.is_dir()):
                found = measure(peer, folder, texts)
                row = rows.setdefault(folder.name, {
                    "peer": peer.name, "form": folder.name, "lesson": task.lesson, "kb": found["kb"],
                    "train_seconds": spent if spent == spent else None, "texts_per_second": 0., "said": [],
                    "chosen": str(task.chosen[0]) if task.chosen else ""})
                row["said"].append(found["ids"])
                row["texts_per_second"] = max(row["texts_per_second"], found["texts_per_second"])
        bar.update()
    return list(rows.values())


def judge(
    rows: list[dict],  # of `try_peer`
    truth: np.ndarray,  # class ids of the test texts, [n]
    k: int,  # classes
) -> list[dict]:  # the same with scores, intervals, and the test against the baseline instead of `said`
    "Accuracy and macro F1 with 95 % intervals, and each row against the best cheap baseline."
    said = [np.array(row["said"]) for row in rows]
    scores = [{name: pooled_bootstrap(truth, own, metric=name, n_classes=k) for name in ("accuracy", "f1_macro")}
              for own in said]
    cheap = [number for number, row in enumerate(rows) if row["peer"] in BASELINES]
    best = max(cheap, key=lambda number: scores[number]["accuracy"].a, default=None)
    judged = []
    for number, (row, own) in enumerate(zip(rows, said)):
        row = {key: value for key, value in row.items() if key != "said"} | {"seeds": len(own)}
        for name, found in scores[number].items():
            row |= {name: found.a, f"{name}_low": found.low, f"{name}_high": found.high}
        if best is not None and number != best:
            seeds = max(len(own), len(said[best]))
            both = [np.resize(ids, (seeds, len(truth))) for ids in (own, said[best])]
            found = verdict(truth, *both, n_classes=k)
            row |= {"verdict": WORDS[found.word], "difference": found.accuracy.difference, "low": found.accuracy.low,
                    "high": found.accuracy.high, "p": found.accuracy.p_value}
        judged.append(row | {"baseline": number == best})
    return judged


def run_set(
    splits: Splits,  # the parts of the set
    seeds: int,  # how many
    say,  # told what happens, and what is left out
    **changes,  # of the `Experiment`
) -> list[dict]:  # a row for each form of each peer
    "Everything on one set. Raises `KeyboardInterrupt` where Ctrl-C stops it."
    settings = {"data": splits, "seeds": tuple(range(seeds)), "tune": FACTORS, "baselines": False} | changes
    experiment = Experiment(**settings)
    results = experiment.run(say)
    if results.interrupted:
        raise KeyboardInterrupt
    lesson, shared = results.lesson, {}
    texts = [*splits.train.text, *splits.transfer.text]
    lessons = {LESSONS[0]: (splits.train.text.tolist(), label_ids(splits.train)),
               LESSONS[1]: (texts, lesson.logits.argmax(1))}
    encoder = demo_model() if experiment.teacher == "demo" else Path(experiment.teacher)
    common = (splits.validation.text.tolist(), label_ids(splits.validation), encoder,
              experiment.load_teacher(splits), results, say, shared)
    peers = [peer for peer in (*PEERS.values(), *student_peers(results)) if not peer.missing]
    jobs = [(peer, name) for peer in peers for name in peer.lessons]
    rows = []
    with tqdm(total=sum(seeds if peer.seeded else 1 for peer, _ in jobs), desc="Comparing", unit=" models") as bar:
        for peer, name in jobs:
            try:
                rows += try_peer(peer, Task(name, *lessons[name], *common, chosen=[]), results.texts, seeds, bar)
            except Exception as error:  # one peer must not cost the others
                say(f"{peer.name}, {name}, is left out: {type(error).__name__}: {error}")
    return judge(rows, results.truth, len(results.names))


# The page

def _panel(frame: pd.DataFrame, name: str, column: str, title: str, peers: list[str]) -> alt.LayerChart:
    "One set: accuracy with its interval against a column, forms of one model joined by a line."
    axis = {"gridColor": "#eeeeee", "titleFontWeight": "normal"}
    color = alt.Color("peer:N", scale=alt.Scale(domain=peers, scheme="tableau10"), legend=alt.Legend(title=None))
    base = alt.Chart(frame).encode(color=color, x=alt.X(f"{column}:Q", title=title, scale=alt.Scale(type="log"),
                                                        axis=alt.Axis(format="~s", tickCount=6, **axis)))
    y = {"title": "accuracy", "scale": alt.Scale(zero=False), "axis": alt.Axis(format="%", tickCount=6, **axis)}
    lines = base.mark_line(opacity=.4, strokeDash=[3, 3]).encode(y=alt.Y("accuracy:Q", **y), detail="lesson:N")
    bars = base.mark_rule(opacity=.35).encode(y=alt.Y("accuracy_low:Q", **y), y2="accuracy_high:Q")
    shape = alt.Shape("lesson:N", scale=alt.Scale(domain=LESSONS, range=["circle", "diamond"]),
                      legend=alt.Legend(title="learned from"))
    points = base.mark_point(filled=True, size=70, opacity=.9).encode(y=alt.Y("accuracy:Q", **y), shape=shape)
    return (lines + bars + points).properties(width=300, height=240, title=name)


def pictures(
    sets: dict[str, dict],  # by name, with their rows
) -> dict[str, alt.ConcatChart]:  # "size" and "speed"
    "Accuracy against size and against speed, a panel a set."
    frames = {name: pd.DataFrame(entry["rows"]) for name, entry in sets.items() if entry["rows"]}
    peers = list(dict.fromkeys(peer for frame in frames.values() for peer in frame["peer"]))
    axes = {"size": ("kb", "kB on the disk"), "speed": ("texts_per_second", "texts a second, one thread")}
    return {kind: alt.concat(*(_panel(frame, name, *axis, peers) for name, frame in frames.items()), columns=3)
            for kind, axis in axes.items()}


def readable(
    rows: list[dict],  # of one set
) -> pd.DataFrame:
    "The rows as people read them, the most accurate first."
    def cells(row):
        interval = f"{100 * row['accuracy_low']:.1f} to {100 * row['accuracy_high']:.1f}"
        f1 = f"{100 * row['f1_macro']:.1f} ({100 * row['f1_macro_low']:.1f} to {100 * row['f1_macro_high']:.1f})"
        against = "the baseline" if row["baseline"] else ""
        if "verdict" in row:
            p = "p < .001" if row["p"] < .001 else f"p {row['p']:.3f}"
            against = (f"{row['verdict']}: {100 * row['difference']:+.1f} "
                       f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], {p}")
        seconds = "" if row["train_seconds"] is None else f"{row['train_seconds']:,.0f}"
        return {"model": row["peer"], "form": row["form"], "learned from": row["lesson"], "seeds": str(row["seeds"]),
                "accuracy %": f"{100 * row['accuracy']:.1f}", "95 % interval": interval, "macro F1 %": f1,
                "against the best tf-idf": against, "kB": f"{row['kb']:,.0f}",
                "texts/s": f"{row['texts_per_second']:,.0f}", "seconds to train": seconds}
    return pd.DataFrame([cells(row) for row in sorted(rows, key=lambda row: -row["accuracy"])])


def markdown(
    sets: dict[str, dict],  # by name
) -> str:
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
<h1>Side by side</h1><p>{{ about }}</p><p>Measured on: {{ machine }}.</p>
{% for kind, chart in charts.items() %}<h2>Accuracy against {{ kind }}</h2>{{ chart|safe }}{% endfor %}
{% for name, entry in sets.items() %}<h2>{{ name }}</h2>
<p>{{ entry.parts }}</p><div>{{ entry.table|safe }}</div>
<ul>{% for line in entry.notes %}<li>{{ line }}</li>{% endfor %}</ul>{% endfor %}</html>"""
_ABOUT = ("Each model answers the test texts from what is shipped, in a process of its own, on one thread; the best of "
          "three rounds counts. Bars are 95 % intervals over test texts and seeds. The tests are paired, against the "
          "tf-idf model with the highest accuracy on the test texts. Seconds of training include the choice of "
          "settings on the validation texts. Students learn from the teacher's logits where others learn from its "
          "classes. Dashed lines join the forms of one model.")


def page(
    state: dict,  # machine and sets
) -> str:
    "The pictures and tables as one HTML page that needs no network."
    sets = {name: entry | {"table": readable(entry["rows"]).to_html(index=False, border=0, justify="left")}
            for name, entry in state["sets"].items()}
    charts = {kind: picture(chart, kind) for kind, chart in pictures(state["sets"]).items()}
    return Environment(autoescape=True).from_string(_PAGE).render(about=_ABOUT, machine=state["machine"], charts=charts, sets=sets)


# The command

def _about_machine() -> str:
    "Machine and versions, in a line."
    found = []
    for name in ("distillnb", "transformers", "scikit-learn", "fasttext-wheel", "model2vec", "sentence-transformers"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([machine(), *found])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.split("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help="which: demo, or folders of --data (all)")
    parser.add_argument("--data", type=Path, help=f"folder with a folder for each data set ({DATA}, if it is there)")
    parser.add_argument("--seeds", type=int, help="how many, of everything that has seeds (3; with --quick 1)")
    parser.add_argument("--output", type=Path, help="folder for compare.json and compare.html (benchmarks; with "
                        "--quick runs/compare-quick)")
    parser.add_argument("--quick", action="store_true", help="a few hundred texts of each set: does everything work?")
    parser.add_argument("--again", action="store_true", help="measure again what is in compare.json already")
    return parser


def _write(state: dict, output: Path) -> None:
    "Write what there is, table and page."
    for name, text in (("compare.json", json.dumps(state, indent=1) + "\n"), ("compare.html", page(state))):
        with written_whole(output / name) as new:
            new.write_text(text, encoding="utf-8")


def _settings(splits: Splits, args: argparse.Namespace) -> dict:
    "What decides the rows of a set: a rerun with the same ones is skipped."
    texts = joblib.hash([frame.astype(str).to_numpy().tolist() for frame in splits])
    return {"seeds": args.seeds, "quick": args.quick, "texts": texts,
            "peers": [peer.name for peer in PEERS.values() if not peer.missing]}


def _run(state: dict, sets: dict[str, Path | None], args: argparse.Namespace) -> None:
    "Run each set that is not there, and write after each."
    for name in args.sets or sets:
        notes = [f"{peer.name} is left out: {', '.join(peer.missing)} cannot be imported; run make compare, or pip "
                 'install "distillnb[compare]"' for peer in PEERS.values() if peer.missing]

        def say(text, notes=notes):
            notes.append(text)
            tqdm.write(text, file=sys.stderr)
        print(f"## {name}", *notes, sep="\n", file=sys.stderr)
        splits = load_splits(name, sets[name], args.quick, say)
        settings = _settings(splits, args)
        if not args.again and state["sets"].get(name, {}).get("settings") == settings:
            print(f"{name} is there already: --again measures it anew", file=sys.stderr)
            continue
        rows = run_set(splits, args.seeds, say, **QUICK if args.quick else {})
        parts = ", ".join(f"{part} {len(frame):,}" for part, frame in splits._asdict().items())
        state["sets"][name] = {"settings": settings, "parts": parts, "notes": notes, "rows": rows}
        state["machine"] = _about_machine()
        _write(state, args.output)


def main(
    argv: list[str] | None = None,  # arguments; None: those of the command line
) -> None:
    "The command. Exits with 2 for what cannot be asked for, with 130 when it is interrupted."
    parser = _parser()
    args = parser.parse_args(argv)
    if args.data is not None and not args.data.is_dir():
        parser.error(f"{args.data} is not a folder: give one with a folder for each data set")
    sets = find_sets(args.data or (DATA if DATA.is_dir() else None))
    if unknown := [name for name in args.sets if name not in sets]:
        parser.error(f"there is no set {unknown[0]!r}: choose from {', '.join(sets)}, or name their folder with --data")
    args.seeds = (1 if args.quick else 3) if args.seeds is None else args.seeds
    if args.seeds < 1:
        parser.error(f"--seeds {args.seeds}: give 1 or more")
    args.output = args.output or ROOT / ("runs/compare-quick" if args.quick else "benchmarks")
    file = args.output / "compare.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"machine": "", "sets": {}}
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
