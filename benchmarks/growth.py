"""Labelling and training of N texts in a process of its own, so that its peak of memory is its own: `python -m benchmarks.growth N`"""

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from distillnb.data import demo_reviews
from distillnb.kernels import sgd_epoch
from distillnb.linear import LinearConfig, LinearStudent
from distillnb.losses import LogitMSE
from distillnb.teacher import Teacher, load_classifier, model_teacher, teacher_logits
from distillnb.tokens import demo_model, tokenize


def untrained_teacher() -> Teacher:
    "MiniLM with a classifier that has not learned yet: for speed it is as good as any"
    model, tokenizer = load_classifier(demo_model(), new_head=True)
    return model_teacher(model, tokenizer)


class Memory:
    "Peaks of the resident memory of this process while the block runs, in MB: all of it, and what is not a mapped file"

    def _look(self):
        lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        for name in self.peak:
            self.peak[name] = max(self.peak[name], int(lines[name].split()[0]) / 1e3)

    def _watch(self):
        while not self.done.wait(0.01):
            self._look()

    def __enter__(self):
        self.peak, self.done, self.start = {"VmRSS": 0.0, "RssAnon": 0.0}, threading.Event(), time.perf_counter()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.thread.join()
        self._look()

    @property
    def row(self):
        return {"seconds": self.seconds, "peak_mb": self.peak["VmRSS"], "peak_without_files_mb": self.peak["RssAnon"]}


def main(n: int) -> dict:
    texts = demo_reviews(report=None).text.tolist()
    teacher = untrained_teacher()

    def stub(input_ids, attention_mask):
        return SequenceClassifierOutput(logits=attention_mask.sum(1, keepdim=True) * torch.tensor([[0.01, -0.01]]))

    teacher.model.forward = stub
    with tempfile.TemporaryDirectory() as folder:
        with Memory() as idle:
            time.sleep(0.1)
        with Memory() as tokenising:
            tokens = tokenize((f"{i} {texts[i % len(texts)]}" for i in range(n)), teacher.tokenizer, folder=Path(folder) / "tokens")
        with Memory() as labelling:
            logits = teacher_logits(teacher, tokens, teacher.names, Path(folder) / "cache", file=Path(folder) / "logits.npy", device="cpu")
        student = LinearStudent(LinearConfig(num_labels=2))
        order, rates = np.random.default_rng(0).permutation(n), np.full(n, 0.05, np.float32)
        labels = np.full(n, -1)
        sgd_epoch(student, tokens[:2], LogitMSE(), np.arange(2), 1, rates[:2], labels[:2], np.asarray(logits[:2]))
        with Memory() as training:
            sgd_epoch(student, tokens, LogitMSE(), order, 1, rates, labels, logits)
        return {
            "texts": n,
            "tokens": int(tokens.offsets[-1]),
            "before": idle.row,
            "tokenising": tokenising.row,
            "labelling (stubbed teacher)": labelling.row,
            "a linear epoch": training.row,
        }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
