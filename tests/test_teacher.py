"""The teacher: its cache, its class order, its safety, and what survives a killed process."""
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import sentences

from distillnb.data import read_reviews, split
from distillnb.teacher import (FineTuning, cached_fine_tune, fine_tune, load_classifier, load_teacher, match_labels, model_teacher,
                               teacher_logits)
from distillnb.tokens import tokenize

NAMES = ["negative", "neutral", "positive"]


@pytest.fixture
def teacher(tiny_bert):
    return load_teacher(tiny_bert)


@pytest.fixture
def tokens(teacher):
    return tokenize(sentences(300), teacher.tokenizer)


def calls_of(teacher):
    calls = []
    teacher.model.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_logits_equal_one_text_at_a_time(teacher, tokens, tmp_path):
    logits = teacher_logits(teacher, tokens, NAMES, tmp_path, chunk=640, max_tokens=200, device="cpu")
    for row in (0, 63, 64, 299):
        ids = torch.from_numpy(tokens[row].astype(np.int64))[None]
        with torch.inference_mode():
            alone = teacher.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert np.allclose(logits[row], alone.numpy(), atol=1e-5)


def test_second_pass_and_appended_texts_use_the_cache(teacher, tokens, tmp_path, monkeypatch):
    monkeypatch.setattr("distillnb.teacher._WINDOW", 128)
    first = teacher_logits(teacher, tokens[:128], NAMES, tmp_path, chunk=64, device="cpu")
    calls = calls_of(teacher)
    again = teacher_logits(teacher, tokens, NAMES, tmp_path, chunk=64, device="cpu")
    assert np.array_equal(again[:128], first)
    before = len(calls)
    assert before > 0
    teacher_logits(teacher, tokens[128:], NAMES, None, chunk=64, device="cpu")
    assert len(calls) == 2 * before  # the first 128 came from the cache
    calls.clear()
    before = 0
    teacher_logits(teacher, tokens, NAMES, tmp_path, chunk=64, device="cpu")
    assert len(calls) == before


@pytest.mark.parametrize("change", ["weights", "order of texts", "length limit"])
def test_other_content_is_computed_anew(teacher, tokens, tmp_path, change):
    teacher_logits(teacher, tokens, NAMES, tmp_path, device="cpu")
    if change == "weights":
        with torch.no_grad():
            teacher.model.classifier.weight[0, 0] += 1
    elif change == "order of texts":
        tokens = tokens[np.arange(len(tokens))[::-1]]
    else:
        tokens = tokenize(sentences(300), teacher.tokenizer, max_length=8)
    calls = calls_of(teacher)
    logits = teacher_logits(teacher, tokens, NAMES, tmp_path, device="cpu")
    assert calls
    assert np.allclose(logits, teacher_logits(teacher, tokens, NAMES, None, device="cpu"), atol=1e-5)


def test_columns_follow_names(teacher, tokens):
    plain = teacher_logits(teacher, tokens, NAMES, None, device="cpu")
    turned = teacher_logits(teacher, tokens, NAMES[::-1], None, device="cpu")
    assert np.allclose(turned, plain[:, ::-1])


@pytest.mark.parametrize("names", [["1", "2", "3"], ["negative", "positive"], ["Negative", "neutral", "positive"]])
def test_unknown_labels_are_an_error_that_shows_both(names):
    with pytest.raises(ValueError, match=f"negative, neutral, positive.*{names[0]}"):
        match_labels(NAMES, names)


def test_another_tokenizer_is_refused(teacher, tokens):
    other = tokens[:10]
    object.__setattr__(other, "tokenizer_key", "another")
    with pytest.raises(ValueError, match="another tokenizer"):
        teacher_logits(teacher, other, NAMES, None)


def test_broken_weights_are_named(teacher, tokens):
    with torch.no_grad():
        teacher.model.classifier.bias[1] = float("nan")
    with pytest.raises(ValueError, match=r"text \d+ are not finite"):
        teacher_logits(teacher, tokens, NAMES, None, device="cpu")


def test_only_safetensors_are_loaded(tiny_bert, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").unlink()
    torch.save(load_teacher(tiny_bert).model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="no .safetensors file"):
        load_classifier(folder)


def test_a_hub_name_without_a_hub(tmp_path):
    with pytest.raises(ValueError, match="no such model or cannot be reached"):
        load_teacher("nobody/nothing")


def test_hub_layout_in_the_local_cache(tiny_bert, tmp_path, monkeypatch):
    """A model that lies in the hub's own cache layout is found by its hub name, without a network."""
    from huggingface_hub import constants

    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(tiny_bert, snapshot)
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text(snapshot.name)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    script = ("from distillnb.teacher import load_teacher; print(load_teacher('someone/tiny').names)")
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                            env=os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    assert "negative" in result.stdout, result.stderr


KILLED = """
import sys, time
from conftest import sentences
from distillnb import teacher as module
from distillnb.tokens import tokenize
teacher = module.load_teacher(sys.argv[1])
teacher.model.register_forward_hook(lambda *_: time.sleep(.02))
tokens = tokenize(sentences(600), teacher.tokenizer)
module.teacher_logits(teacher, tokens, teacher.names, sys.argv[2], chunk=300, max_tokens=128, device="cpu")
"""


def test_kill_in_the_middle_of_labelling(tiny_bert, tmp_path):
    cache = tmp_path / "cache"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tiny_bert), str(cache)], cwd=Path(__file__).parent)
    deadline = time.time() + 120
    while len(list(cache.glob("logits/*.npy"))) < 4:
        assert process.poll() is None and time.time() < deadline
        time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    chunks = len(list(cache.glob("logits/*.npy")))
    assert 4 <= chunks < 15
    teacher = load_teacher(tiny_bert)
    tokens = tokenize(sentences(600), teacher.tokenizer)
    undisturbed = teacher_logits(teacher, tokens, NAMES, tmp_path / "other", chunk=300, max_tokens=128, device="cpu")
    calls = calls_of(teacher)
    resumed = teacher_logits(teacher, tokens, NAMES, cache, chunk=300, max_tokens=128, device="cpu")
    all_calls = len(calls)
    teacher_logits(teacher, tokens, NAMES, None, chunk=300, max_tokens=128, device="cpu")
    assert 0 < all_calls < len(calls) - all_calls
    assert np.array_equal(resumed, undisturbed)


@pytest.fixture(scope="module")
def parts(toy_reviews):
    return split(read_reviews(toy_reviews, report=None), test=100, validation=100, report=None)


def test_fine_tuning_learns_and_names_travel(tiny_bert, parts, tmp_path):
    folder = fine_tune(tiny_bert, parts.train, parts.validation, tmp_path / "teacher", epochs=20, learning_rate=3e-3, freeze_layers=0,
                       max_length=32, device="cpu")
    teacher = load_teacher(folder)
    assert teacher.names == NAMES
    logits = teacher_logits(teacher, tokenize(parts.test.text, teacher.tokenizer, 32), NAMES, None, device="cpu")
    assert (logits.argmax(1) == parts.test.label.cat.codes).mean() > .8
    assert not (tmp_path / "teacher.partial").exists()


def test_fine_tuning_resumes_at_the_last_epoch(tiny_bert, parts, tmp_path, monkeypatch):
    from distillnb import teacher as module

    options = {"epochs": 3, "learning_rate": 1e-3, "freeze_layers": 0, "max_length": 32, "device": "cpu"}
    whole = fine_tune(tiny_bert, parts.train, parts.validation, tmp_path / "whole", **options)
    original, steps = module._Bar.on_step_end, []

    def interrupt(self, args, state, control, **kwargs):
        steps.append(state.global_step)
        original(self, args, state, control, **kwargs)
        if len(steps) == 20:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._Bar, "on_step_end", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(tiny_bert, parts.train, parts.validation, tmp_path / "stopped", **options)
    assert not (tmp_path / "stopped").exists()
    fine_tune(tiny_bert, parts.train, parts.validation, tmp_path / "stopped", **options)
    assert steps[20] == 14, "13 steps an epoch: the second call starts at step 14"
    a, b = (load_teacher(folder).model.state_dict() for folder in (whole, tmp_path / "stopped"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_half_written_checkpoint_is_not_resumed(tiny_bert, parts, tmp_path):
    broken = tmp_path / "teacher.partial" / "checkpoint-999"
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"half")
    folder = fine_tune(tiny_bert, parts.train[:64], parts.validation, tmp_path / "teacher", epochs=1, max_length=32, freeze_layers=0, device="cpu")
    assert load_teacher(folder).names == NAMES


def test_frozen_layers_keep_their_weights(tiny_bert, parts, tmp_path):
    before = load_teacher(tiny_bert).model.state_dict()
    folder = fine_tune(tiny_bert, parts.train[:64], parts.validation, tmp_path / "t", epochs=1, freeze_layers=1, max_length=32, device="cpu")
    after = load_teacher(folder).model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layer.1." in name for name in changed) and "classifier.weight" in changed
    assert not any("layer.0." in name or "embeddings" in name for name in changed)


def test_the_key_of_a_fine_tuned_teacher(tiny_bert, parts, tmp_path):
    options = {"epochs": 1, "freeze_layers": 1, "max_length": 32, "device": "cpu"}
    first = cached_fine_tune(tiny_bert, parts.train, parts.validation, tmp_path, **options)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert cached_fine_tune(tiny_bert, parts.train, parts.validation, tmp_path, **options) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert cached_fine_tune(tiny_bert, parts.train[:200], parts.validation, tmp_path, **options) != first


def test_names_for_a_teacher_without_names(tiny_bert):
    assert load_teacher(tiny_bert, ["a", "b", "c"]).names == ["a", "b", "c"]
    with pytest.raises(ValueError, match="2 names given"):
        load_teacher(tiny_bert, ["a", "b"])


def test_teacher_keys_differ_by_content(tiny_bert):
    one, two = load_teacher(tiny_bert), load_teacher(tiny_bert)
    assert one.answer.reader.key == two.answer.reader.key
    two.model.config.id2label = {0: "x", 1: "y", 2: "z"}
    assert model_teacher(two.model, two.tokenizer, two.names).answer.reader.key != one.answer.reader.key


def test_an_interrupted_fine_tuning_of_other_texts_is_not_resumed(tiny_bert, parts, tmp_path):
    from distillnb.teacher import _content_key, _resumable
    partial = tmp_path / "teacher.partial"
    one, other = (_content_key(tiny_bert, part, parts.validation, FineTuning(epochs=1)) for part in (parts.train, parts.train[::-1]))
    assert _resumable(partial, one) is None
    (partial / "checkpoint-3").mkdir()
    (partial / "checkpoint-3" / "trainer_state.json").write_text("{}")
    assert _resumable(partial, one) == str(partial / "checkpoint-3")
    assert one != other and _resumable(partial, other) is None and not (partial / "checkpoint-3").exists()


def test_fine_tuning_into_a_folder_that_exists(tiny_bert, parts, tmp_path):
    with pytest.raises(ValueError, match="exists: choose another"):
        fine_tune(tiny_bert, parts.train, parts.validation, tmp_path)


def test_half_precision_files_are_used_in_full_precision(tiny_bert, tokens, tmp_path):
    model, tokenizer = load_classifier(tiny_bert)
    model.half().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_teacher(tmp_path).model.dtype == torch.float32
    assert np.isfinite(teacher_logits(load_teacher(tmp_path), tokens, NAMES, None, "int8", device="cpu", report=None)).all()


def test_a_model_without_a_trained_classifier_is_no_teacher(tiny_bert, tmp_path):
    model, tokenizer = load_classifier(tiny_bert)
    model.bert.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no trained weights for classifier"):
        load_teacher(tmp_path)


def test_broken_answers_do_not_get_into_the_cache(teacher, tokens, tmp_path):
    bias = teacher.model.classifier.bias
    hook = teacher.model.register_forward_hook(lambda module, inputs, output: setattr(output, "logits", output.logits * torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        teacher_logits(teacher, tokens, NAMES, tmp_path, device="cpu")
    hook.remove()
    assert np.isfinite(teacher_logits(teacher, tokens, NAMES, tmp_path, device="cpu")).all() and bias.isfinite().all()


def test_texts_longer_than_the_teacher_takes(tiny_bert, tmp_path):
    teacher = load_teacher(tiny_bert)
    long = tokenize(["good film " * 200], teacher.tokenizer, max_length=200)
    with pytest.raises(ValueError, match="takes 160: use max_length=160"):
        teacher_logits(teacher, long, NAMES, None, device="cpu")
    frame = read_reviews(pd.DataFrame({"text": ["good film " * 200, "bad"], "label": ["positive", "negative"]}), report=None)
    with pytest.raises(ValueError, match="takes 160: use max_length=160"):
        fine_tune(tiny_bert, frame, frame[:0], tmp_path / "teacher", max_length=200, freeze_layers=0, device="cpu")


def test_an_interrupted_file_of_logits_is_not_there(teacher, tokens, tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt
    hook = teacher.model.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        teacher_logits(teacher, tokens, NAMES, None, file=tmp_path / "logits.npy", device="cpu")
    hook.remove()
    assert not (tmp_path / "logits.npy").exists()
    mapped = teacher_logits(teacher, tokens, NAMES, None, file=tmp_path / "logits.npy", device="cpu")
    assert np.array_equal(mapped, teacher_logits(teacher, tokens, NAMES, None, device="cpu"))
