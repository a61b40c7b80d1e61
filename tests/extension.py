"""One new thing of each kind, in a file of its own: a student, a teacher, a loss, a metric and a way of teaching."""
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig

from distillnb.labelling import register_teacher
from distillnb.lesson import register_way
from distillnb.losses import Loss, register_loss
from distillnb.metrics import register_metric
from distillnb.student import Student, register_student
from distillnb.teacher import Teacher

NAMES = ["negative", "neutral", "positive"]
OPINIONS = {word: i // 3 for i, word in enumerate("bad awful poor fine okay plain good great superb".split())}


class MeanConfig(PretrainedConfig):
    model_type = "distillnb-mean"

    def __init__(self, vocab_size=500, width=16, hidden=16, initial_std=.5, tokenizer_size=None, pad_token_id=0, **kwargs):
        self.vocab_size, self.width, self.hidden = vocab_size, width, hidden
        self.initial_std, self.tokenizer_size = initial_std, tokenizer_size
        super().__init__(pad_token_id=pad_token_id, **kwargs)


@register_student(MeanConfig, "mean of embeddings with one hidden layer", rate=1e-2, epochs=4, batch_size=16)
class MeanStudent(Student):
    config_class = MeanConfig

    def __init__(self, config, rows=None):
        super().__init__(config, rows)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.hidden, self.classifier = nn.Linear(config.width, config.hidden), nn.Linear(config.hidden, config.num_labels)
        self.post_init()

    def logits(self, rows, mask):
        means = (self.embedding(rows) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return self.classifier(self.hidden(means).relu())

    def program(self):
        config = self.config
        return [{"operation": "bag", "result": "means", "table": "embedding.weight", "width": config.width},
                {"operation": "dense", "result": "units", "of": "means", "weight": "hidden.weight", "bias": "hidden.bias",
                 "inputs": config.width, "outputs": config.hidden, "relu": True},
                {"operation": "dense", "result": "logits", "of": "units", "weight": "classifier.weight",
                 "bias": "classifier.bias", "inputs": config.hidden, "outputs": config.num_labels}]


@dataclass(frozen=True)
class Lexicon:
    """A teacher that knows some words."""
    sure: float = 3.0


@register_teacher(lambda source: isinstance(source, Lexicon) or source == "lexicon")
def lexicon_teacher(source, wishes):
    sure = source.sure if isinstance(source, Lexicon) else 3.0

    def answer(texts):
        found = [[OPINIONS[word] for word in text.split() if word in OPINIONS] for text in texts]
        return np.array([np.bincount(ids, minlength=3) * sure - sure for ids in found])
    return Teacher(list(NAMES), "logits", answer, what="a list of words")


@register_loss("absolute", "the teacher's logits, by absolute differences")
@dataclass(frozen=True)
class AbsoluteError(Loss):
    def __call__(self, student_logits, labels, teacher_logits):
        return F.l1_loss(student_logits, teacher_logits)


@register_metric(title="top two", needs="one label", form="{:.1%}")
def top_two(truth, probabilities):
    return float((np.argsort(-probabilities, 1)[:, :2] == truth[:, None]).any(1).mean())


@register_way("distilled where the teacher is sure", "the texts on which the teacher leaves no doubt", dash=(1, 5))
def where_sure(lesson):
    ranked = np.sort(lesson.logits, 1)
    return lesson[np.flatnonzero(ranked[:, -1] - ranked[:, -2] > 1)]
