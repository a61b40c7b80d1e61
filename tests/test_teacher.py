"""The teacher: its cache, its class order, its safety, and what survives a killed process."""
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import sentences

from distillnb.data import read_reviews, split
from distillnb.teacher import (FineTuning, cached_fine_tune, fine_tune, load_classifier, load_teacher, match_labels, model_teacher,
                               teacher_logits)
from distillnb.tokens import tokenize, vocabulary_size

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


def bias_of(teacher):
    return teacher.model.classifier.bias


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("change", ["in place", "past the counter", "another tensor", "loaded"])
def test_changed_weights_are_noticed(tiny_bert, tmp_path, change, precision):
    teacher = load_teacher(tiny_bert, cache=tmp_path, precision=precision, device="cpu")
    before = teacher(["a good film"])
    assert np.array_equal(teacher(["a good film"]), before)
    with torch.no_grad():
        if change == "in place":
            bias_of(teacher)[0] += 1
        elif change == "past the counter":
            bias_of(teacher).data[0] += 1
        elif change == "another tensor":
            teacher.model.classifier.bias = torch.nn.Parameter(bias_of(teacher) + torch.tensor([1., 0, 0]))
        else:
            teacher.model.load_state_dict(teacher.model.state_dict() | {"classifier.bias": bias_of(teacher) + torch.tensor([1., 0, 0])})
    assert np.allclose(teacher(["a good film"]) - before, [[1, 0, 0]], atol=1e-5)


def test_weights_are_digested_once_and_only_for_a_cache(tiny_bert, tmp_path, monkeypatch):
    from distillnb import teacher as module

    made, original = [], module._weights_digest
    monkeypatch.setattr(module, "_weights_digest", lambda model: (made.append(1), original(model))[1])
    monkeypatch.setattr(module, "_int8", lambda model, int8=module._int8: (made.append(8), int8(model))[1])
    bare = load_teacher(tiny_bert, device="cpu")
    for text in sentences(5):
        bare([text])
    assert made == []
    kept = load_teacher(tiny_bert, cache=tmp_path, precision="int8", device="cpu")
    for text in sentences(5):
        kept([text])
    assert sorted(made) == [1, 8]


@pytest.mark.parametrize("options", [{}, {"precision": "int8"}, {"cache": "here"}])
def test_many_threads_get_the_same_answers(tiny_bert, tmp_path, options):
    if "cache" in options:
        options = {"cache": tmp_path}
    texts = [sentences(3, seed) for seed in range(200)]
    one, many = (load_teacher(tiny_bert, device="cpu", max_length=12, **options) for _ in range(2))
    expected = [one(part) for part in texts]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(many, texts))
    assert all(np.array_equal(a, b) for a, b in zip(answers, expected))


def test_many_threads_share_one_tokenizer(teacher):
    jobs = [(sentences(4, seed), 6 + seed % 5) for seed in range(200)]
    expected = [tokenize(texts, teacher.tokenizer, length).fingerprint for texts, length in jobs]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda job: tokenize(job[0], teacher.tokenizer, job[1]).fingerprint, jobs))
    assert answers == expected
    assert teacher.tokenizer.backend_tokenizer.truncation is None


def test_a_tokenizer_that_gains_tokens_is_another_one(tiny_bert):
    tokenizer = load_teacher(tiny_bert).tokenizer
    before = tokenize(["good zzz"], tokenizer)
    tokenizer.add_tokens(["zzz"])
    after = tokenize(["good zzz"], tokenizer)
    assert after.tokenizer_key != before.tokenizer_key and after.ids[2] == vocabulary_size(tokenizer) - 1


def test_a_teacher_can_be_pickled_after_use(tiny_bert, tmp_path):
    teacher = load_teacher(tiny_bert, cache=tmp_path, precision="int8", report=lambda text: None, device="cpu")
    answers = teacher(sentences(20))
    again = pickle.loads(pickle.dumps(teacher))
    assert np.array_equal(again(sentences(20)), answers) and again.names == teacher.names


@pytest.mark.parametrize("damage", ["a byte", "cut", "empty", "another chunk", "a pickle"])
def test_damaged_chunks_are_computed_again(tiny_bert, tmp_path, damage):
    teacher = load_teacher(tiny_bert, cache=tmp_path, device="cpu")
    answers = teacher(sentences(20))
    teacher(sentences(20, seed=1))
    files = sorted((tmp_path / "logits").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    whole = files[0].read_bytes()
    for place in range(0, len(whole), 7) if damage == "a byte" else [0]:
        files[0].write_bytes({
            "a byte": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:], "cut": whole[:-5], "empty": b"",
            "another chunk": files[1].read_bytes(), "a pickle": pickle.dumps(np.zeros((20, 3), np.float32)),
        }[damage])
        assert np.array_equal(teacher(sentences(20)), answers)
        assert files[0].read_bytes() == whole


def gpt2(folder, pad=None, config_pad=None, side="right"):
    """A small GPT-2 classifier with random weights, its padding told to the tokenizer, to the model, to both or to none."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.train_from_iterator(sentences(60), trainers.BpeTrainer(vocab_size=400, special_tokens=["!", "<end>", "<pad>"], show_progress=False))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token=pad, padding_side=side)
    torch.manual_seed(0)
    model = GPT2ForSequenceClassification(GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=1, n_head=2, num_labels=3, initializer_range=.5,
        pad_token_id=None if config_pad is None else tokenizer.convert_tokens_to_ids(config_pad)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad, config_pad", [(None, None), ("<pad>", None), ("<pad>", "<pad>"), ("<pad>", "<end>"), ("<end>", "<end>")])
def test_answers_of_a_batch_are_those_of_texts_alone(tmp_path, pad, config_pad, side):
    teacher = load_teacher(gpt2(tmp_path, pad, config_pad, side), device="cpu")
    texts = sentences(60)
    alone = np.concatenate([teacher([text]) for text in texts])
    assert np.allclose(teacher(texts), alone, atol=1e-4) and np.ptp(alone) > .1
    if config_pad is None:
        fresh = load_classifier(tmp_path)[0].eval()  # nothing was told to this one
        with torch.inference_mode():
            ids = [torch.from_numpy(tokenize([text], teacher.tokenizer)[0].astype(np.int64))[None] for text in texts]
            assert np.allclose(np.concatenate([fresh(input_ids=row).logits.numpy() for row in ids]), alone, atol=1e-4)


def test_a_model_whose_batches_depend_on_padding_gets_lengths_apart_or_is_refused(tiny_bert, monkeypatch):
    from distillnb.teacher import model_teacher
    from transformers import BertForSequenceClassification as Bert

    class Careless(Bert):
        def forward(self, input_ids, attention_mask=None):  # mean over the padding too
            return super().forward(input_ids=input_ids)

    class Hopeless(Bert):
        def forward(self, input_ids, attention_mask=None):
            output = super().forward(input_ids=input_ids, attention_mask=attention_mask)
            output.logits = output.logits * len(input_ids)
            return output

    model, tokenizer = load_classifier(tiny_bert)
    other = Careless(model.config)
    other.load_state_dict({name: tensor * 5 for name, tensor in model.state_dict().items()})
    teacher = model_teacher(other, tokenizer, device="cpu")
    texts = sentences(40)
    assert not teacher.answer.reader.mixed
    assert np.allclose(teacher(texts), np.concatenate([teacher([text]) for text in texts]), atol=1e-4)
    with pytest.raises(ValueError, match="pad_token"):
        model_teacher(Hopeless(model.config), tokenizer)


@pytest.mark.parametrize("kind, most", [("bert", 40), ("distilbert", 40), ("roberta", 38), ("xlm-roberta", 38), ("camembert", 38),
                                        ("mpnet", 38), ("longformer", 38), ("electra", 40)])
def test_as_many_tokens_as_there_are_positions(tiny_bert, kind, most):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = load_classifier(tiny_bert)[1]
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "dim": 32, "n_layers": 1,
             "n_heads": 2, "hidden_dim": 64, "embedding_size": 32, "attention_window": 8}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), max_position_embeddings=40, num_labels=3, **small)
    model = AutoModelForSequenceClassification.from_config(config)
    long = ["good " * 100]
    assert np.isfinite(model_teacher(model, tokenizer, max_length=most, device="cpu")(long)).all()
    with pytest.raises(ValueError, match=f"takes {most}: use max_length={most}"):
        model_teacher(model, tokenizer, max_length=most + 1, device="cpu")(long)


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "distilbert"])
def test_a_folder_without_its_tokenizer_is_refused(tmp_path, kind):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "dim": 32, "n_layers": 1,
             "n_heads": 2, "hidden_dim": 64, "n_embd": 32, "n_layer": 1, "n_head": 2}
    AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, num_labels=3, **small)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="its files are missing"):
        load_teacher(tmp_path)


def test_ids_must_have_embeddings_and_may_have_gaps(tiny_bert, tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    model, tokenizer = load_classifier(tiny_bert)
    tokenizer.add_tokens(["zzz"])
    with pytest.raises(ValueError, match="25 embeddings"):
        model_teacher(model, tokenizer)
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "good": 50, "bad": 99}
    gaps = BertTokenizer(vocab=vocabulary)
    config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3)
    assert vocabulary_size(gaps) == 100 > len(gaps)
    assert np.isfinite(model_teacher(BertForSequenceClassification(config), gaps, device="cpu")(["good bad"])).all()
    config.vocab_size = 99
    with pytest.raises(ValueError, match="ids up to 99"):
        model_teacher(BertForSequenceClassification(config), gaps)


def test_names_and_outputs_are_checked_whichever_door(tiny_bert):
    from transformers import BertForSequenceClassification

    model, tokenizer = load_classifier(tiny_bert)
    with pytest.raises(ValueError, match="2 names given"):
        model_teacher(model, tokenizer, ["a", "b"])
    with pytest.raises(ValueError, match="several outputs are called 'a'"):
        model_teacher(model, tokenizer, ["a", "b", "a"])
    with pytest.raises(ValueError, match="not a list of strings"):
        model_teacher(model, tokenizer, [0, 1, 2])
    model.config.problem_type = "regression"
    with pytest.raises(ValueError, match="is a number"):
        model_teacher(model, tokenizer)
    one = type(model.config)(**model.config.to_dict() | {"problem_type": None, "id2label": {0: "x"}, "label2id": {"x": 0}})
    with pytest.raises(ValueError, match=r"\[1 - p, p\]"):
        model_teacher(BertForSequenceClassification(one), tokenizer)


STUDENT = """
import sys
from distillnb.teacher import load_teacher
print(load_teacher(sys.argv[1], device="cpu").logits(["a good film"]).tolist())
assert "distillnb.inference" not in sys.modules
"""


def test_a_saved_student_is_a_teacher_with_its_own_logits(tiny_bert, tmp_path):
    from distillnb.cnn import CNNConfig, CNNStudent

    tokenizer = load_classifier(tiny_bert)[1]
    torch.manual_seed(0)
    student = CNNStudent(CNNConfig(vocab_size=len(tokenizer), width=8, filters=4, num_labels=3)).eval()
    student.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    result = subprocess.run([sys.executable, "-c", STUDENT, str(tmp_path)], capture_output=True, text=True)
    with torch.inference_mode():
        expected = student(input_ids=torch.tensor([tokenizer(["a good film"]).input_ids[0]])).logits
    assert np.allclose(json.loads(result.stdout), expected, atol=1e-5), result.stderr
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "distillnb-../evil"}))
    with pytest.raises(ValueError, match="Cannot load"):
        load_classifier(tmp_path)


def test_a_damaged_teacher_in_the_cache_is_made_anew(tiny_bert, parts, tmp_path):
    options = {"epochs": 1, "freeze_layers": 1, "max_length": 32, "device": "cpu"}
    folder = cached_fine_tune(tiny_bert, parts.train[:64], parts.validation, tmp_path, **options)
    whole = load_teacher(folder).answer.reader.key
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-10] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="model.safetensors is not the file that was saved"):
        load_teacher(folder)
    assert cached_fine_tune(tiny_bert, parts.train[:64], parts.validation, tmp_path, **options) == folder
    assert load_teacher(folder).answer.reader.key == whole
    (folder / "digests.json").unlink()
    assert load_teacher(cached_fine_tune(tiny_bert, parts.train[:64], parts.validation, tmp_path, **options)).answer.reader.key == whole


TWICE = """
import sys, time
import pandas as pd
from distillnb.data import read_reviews, split
from distillnb import teacher as module
frame = pd.read_pickle(sys.argv[2])
parts = split(read_reviews(frame, report=None), test=100, validation=100, report=None)
original = module._Bar.on_step_end

def slowly(self, args, state, control, **more):
    original(self, args, state, control, **more)
    print("step", state.global_step, flush=True)
    time.sleep(.05)

module._Bar.on_step_end = slowly
print(module.cached_fine_tune(sys.argv[1], parts.train, parts.validation, sys.argv[3], epochs=2, freeze_layers=0, max_length=32, device="cpu"))
"""


def test_two_processes_make_one_teacher_and_a_killed_one_leaves_no_lock(tiny_bert, toy_reviews, tmp_path):
    toy_reviews.to_pickle(tmp_path / "frame.pkl")

    def start():
        return subprocess.Popen([sys.executable, "-c", TWICE, str(tiny_bert), str(tmp_path / "frame.pkl"), str(tmp_path / "cache")],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parent)
    killed = start()
    for line in killed.stdout:
        if line.startswith("step 15"):  # 13 steps an epoch
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    said = [process.communicate()[0] for process in [start(), start()]]
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1] and "teachers" in said[0].splitlines()[-1], said
    assert "".join(said).count("step 14") == 1 and "step 13\n" not in "".join(said), said
    assert "waiting for it" in "".join(said), said


def test_settings_of_a_fine_tuning():
    with pytest.raises(ValueError, match="epochs=0"):
        FineTuning(epochs=0)
    with pytest.raises(TypeError, match="epoch"):
        FineTuning(epoch=3)
