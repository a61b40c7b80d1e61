"""A student goes to the hub and comes back: pushed into a local folder in the hub's own layout, and pulled by name."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import sentences
from huggingface_hub import CommitOperationAdd, HfApi, RepoUrl, constants

from distillnb.estimator import DistilledClassifier
from distillnb.inference import load_student

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder like ~/.cache/huggingface/hub that takes what is pushed, as one commit on `main`."""
    def folder(repo_id):
        return tmp_path / f"models--{repo_id.replace('/', '--')}"

    def create_repo(self, repo_id, **kwargs):
        (folder(repo_id) / "refs").mkdir(parents=True, exist_ok=True)
        (folder(repo_id) / "refs" / "main").write_text(COMMIT)
        return RepoUrl(f"{constants.ENDPOINT}/{repo_id}")

    def create_commit(self, repo_id, operations, **kwargs):
        for operation in operations:
            assert isinstance(operation, CommitOperationAdd)
            file = folder(repo_id) / "snapshots" / COMMIT / operation.path_in_repo
            file.parent.mkdir(parents=True, exist_ok=True)
            source = operation.path_or_fileobj
            shutil.copy(source, file) if isinstance(source, (str, Path)) else file.write_bytes(source if isinstance(source, bytes) else source.read())

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    return tmp_path


@pytest.fixture(scope="module")
def student():
    texts = sentences(200)
    return DistilledClassifier("cnn", epochs=2, vocab_size=400).fit(texts, [("good" in text) + 0 for text in texts]).classifier_


PULL = """
import numpy as np, sys
{imports}
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline
model = AutoModelForSequenceClassification.from_pretrained("me/small-student")
assert AutoConfig.from_pretrained("me/small-student").model_type == "distillnb-cnn"
answers = pipeline("text-classification", "me/small-student", device="cpu")(["a good film", "the phone"])
print([round(answer["score"], 5) for answer in answers], type(model).__name__)
"""


def test_pushed_and_pulled(student, hub):
    student.model.push_to_hub("me/small-student")
    student.tokenizer.push_to_hub("me/small-student")
    files = {path.name for path in (hub / "models--me--small-student" / "snapshots" / COMMIT).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", PULL.format(imports="import distillnb.cnn")], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    expected = [round(float(p), 5) for p in student.predict_proba(["a good film", "the phone"]).max(1)]
    assert run.stdout.strip() == f"{expected} CNNStudent"
    code = ("from distillnb.inference import load_student; s = load_student('hf://me/small-student', 'cpu'); "
            "print(s.predict_proba(['a good film']).round(5).tolist())")
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert np.allclose(eval(run.stdout), student.predict_proba(["a good film"]), atol=2e-5), run.stderr


def test_without_the_import_transformers_says_what_it_does_not_know(student, hub):
    student.model.push_to_hub("me/small-student")
    run = subprocess.run([sys.executable, "-c", PULL.format(imports="import distillnb")], capture_output=True, text=True,
                         env=os.environ | {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"})
    assert run.returncode != 0 and "distillnb-cnn" in run.stderr


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match="cannot be reached|no such model"):
        load_student("hf://me/no-such-student")
