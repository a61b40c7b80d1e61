"""A language model as teacher, against a server that behaves and one that does not."""
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distillnb.labelling import any_teacher, label_texts
from distillnb.prompt import Budget, BudgetSpent, Prompt, PromptAnswer, PromptTeacher, Unparsable, few_shot
from distillnb.prompt import read_letter, read_logprobs, read_stated
from distillnb.teacher import Unanswered

pytest.importorskip("openai")
MOODS = Prompt({"bad": "complaints", "good": "praise"}, task="What is the mood?")
TEXTS = [f"text {i}" for i in range(40)]


class Endpoint:
    """A server in a thread, what it was asked, and how it misbehaves."""

    def __init__(self):
        self.asked, self.trouble, self.lock = [], {}, threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append(order)
                    number = len(outer.asked)
                outer.answer(self, order, number)

            def log_message(self, *_):
                pass
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def texts(self):
        return [order["messages"][-1]["content"] for order in self.asked]

    def answer(self, handler, order, number):
        text = order["messages"][-1]["content"]
        trouble = self.trouble.get("every", lambda *_: None)(number, text)
        status, body = 200, self.body(order, text)
        if trouble in (400, 401, 429, 500):
            status, body = trouble, json.dumps({"error": {"message": "no"}}).encode()
        elif trouble == "cut":
            body = body[:len(body) // 2]
        elif trouble == "slow":
            time.sleep(.3)
        elif trouble == "other":
            body = b'{"choices": []}'
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def body(self, order, text):
        good = sum(map(ord, text)) % 10 / 10 + .05
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None,
                  "message": {"role": "assistant", "content": "B" if good > .5 else "A"}}
        if "refuse" in text:
            choice["finish_reason"] = "content_filter"
        if "mumble" in text:
            choice["message"]["content"] = "well"
        if order.get("logprobs") and not self.trouble.get("no logprobs"):
            words = [("x", .9)] if "mumble" in text else [("A", .9 * (1 - good)), ("B", .9 * good)]
            top = [{"token": token, "logprob": math.log(chance), "bytes": None} for token, chance in words]
            choice["logprobs"] = {"content": [top[0] | {"top_logprobs": top}]}
        if "JSON" in order["messages"][0]["content"]:
            choice["message"]["content"] = json.dumps({"A": 1 - good, "B": good})
        usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
        return json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                           "choices": [choice], "usage": usage}).encode()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def teacher(endpoint, tmp_path, **settings):
    return PromptTeacher(MOODS, "m", base_url=endpoint.url, cache=tmp_path, **{"retries": 3} | settings)


def test_answers_are_probabilities_and_paid_once(endpoint, tmp_path):
    first = teacher(endpoint, tmp_path)(TEXTS)
    np.testing.assert_allclose(first.sum(1), 1, atol=1e-6)
    assert sorted(endpoint.texts()) == sorted(TEXTS)
    again = teacher(endpoint, tmp_path)
    np.testing.assert_array_equal(again(TEXTS[::-1]), first[::-1])
    assert len(endpoint.asked) == len(TEXTS) and again.answer.budget.requests == 0
    assert np.allclose(again.answer.ask(TEXTS).outside, .1, atol=1e-5)


@pytest.mark.parametrize("trouble", [429, 500, "cut", "other", "slow"])
def test_what_may_pass_is_asked_again(endpoint, tmp_path, trouble):
    expected = teacher(endpoint, tmp_path / "a")(TEXTS[:8])
    endpoint.trouble["every"] = lambda number, text: trouble if number % 3 == 0 else None
    np.testing.assert_array_equal(teacher(endpoint, tmp_path / "b")(TEXTS[:8]), expected)


@pytest.mark.parametrize("trouble, says", [(401, "AuthenticationError"), (400, "BadRequestError")])
def test_what_will_not_pass_stops_and_keeps_what_is_paid(endpoint, tmp_path, trouble, says):
    endpoint.trouble["every"] = lambda number, text: trouble if number > 10 else None
    with pytest.raises(ValueError, match=says):
        teacher(endpoint, tmp_path, workers=2)(TEXTS)
    endpoint.trouble.clear()
    before = len(endpoint.asked)
    teacher(endpoint, tmp_path)(TEXTS)
    assert len(endpoint.asked) - before == len(TEXTS) - 10


def test_a_limit_stops_in_time_and_nothing_is_paid_twice(endpoint, tmp_path):
    with pytest.raises(BudgetSpent, match="15 requests are made, the limit: .*15 answers are kept"):
        teacher(endpoint, tmp_path, budget=Budget(max_requests=15))(TEXTS)
    assert len(endpoint.asked) == 15
    with pytest.raises(BudgetSpent, match="is spent"):
        teacher(endpoint, tmp_path, workers=1, budget=Budget(max_cost=1e-4, prices=(1., 0.)))(TEXTS)
    teacher(endpoint, tmp_path)(TEXTS)
    assert sorted(endpoint.texts()) == sorted(TEXTS)


def test_refused_and_unreadable_answers_are_kept_apart(endpoint, tmp_path):
    texts = ["fine", "refuse this", "mumble", "refuse that"]
    with pytest.raises(Unanswered, match="3 of 4 texts .2 refused, 1 not one of the options."):
        teacher(endpoint, tmp_path)(texts)
    frame = teacher(endpoint, tmp_path).answer.ask(texts)
    assert frame.failed.tolist() == ["", "refused", "not one of the options", "refused"]
    assert frame[["bad", "good"]].isna().all(axis=1).tolist() == [False, True, True, True]
    assert len(endpoint.asked) == 4
    teacher(endpoint, tmp_path, retry_failed=True).answer.ask(texts)
    assert len(endpoint.asked) == 7


def test_without_log_probabilities_answers_are_counted(endpoint, tmp_path):
    endpoint.trouble["no logprobs"] = True
    answers = teacher(endpoint, tmp_path, samples=3)(TEXTS[:4])
    assert set(answers.ravel()) <= {0., 1.}
    with pytest.raises(ValueError, match="gives no log-probabilities: take way='samples'"):
        teacher(endpoint, tmp_path, way="logprobs")(TEXTS)
    stated = teacher(endpoint, tmp_path, way="stated")(TEXTS[:4])
    assert ((stated > 0) & (stated < 1)).all()


def test_a_killed_process_leaves_a_torn_line(endpoint, tmp_path):
    teacher(endpoint, tmp_path)(TEXTS[:10])
    file, = (tmp_path / "prompts").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    teacher(endpoint, tmp_path)(TEXTS[:10])
    assert len(endpoint.asked) == 11
    teacher(endpoint, tmp_path)(TEXTS[:10])
    assert len(endpoint.asked) == 11


def test_the_key_is_nowhere_but_in_the_request(endpoint, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    endpoint.trouble["every"] = lambda number, text: 401 if number > 3 else None
    with pytest.raises(ValueError) as caught:
        teacher(endpoint, tmp_path)(TEXTS)
    written = "".join(path.read_text() for path in tmp_path.rglob("*.jsonl"))
    assert "secret" not in written + str(caught.value) + "".join(capfd.readouterr())
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        PromptTeacher(MOODS, "m", cache=tmp_path)(TEXTS)


def test_texts_are_cleaned_before_they_leave(endpoint, tmp_path):
    asking = teacher(endpoint, tmp_path, clean=lambda text: text.split("@")[0])
    asking(["mail a@b", "mail a@c"])
    assert endpoint.texts() == ["mail a"]


def test_prompts_in_files(endpoint, tmp_path):
    file = tmp_path / "moods.toml"
    file.write_text(f'model = "m"\nbase_url = "{endpoint.url}"\ncache = "{tmp_path}"\nmax_requests = 7\n'
                    '[classes]\nbad = ""\ngood = "praise"\n[[examples]]\ntext = "ah"\nlabel = "good"\n')
    found = any_teacher(file)
    assert found.names == ["bad", "good"] and found.answer.budget.max_requests == 7
    assert found.answer.prompt.examples == (("ah", "good"),)
    table = label_texts(found, TEXTS[:5], tmp_path / "answers.csv")
    assert len(table) == 5
    for text, says in (("classes = 1", "model is missing"), ('model = "m"', "classes is missing"),
                       ("x = [", "not a TOML"), ('colour = "red"', "no setting 'colour'")):
        file.write_text(text)
        with pytest.raises(ValueError, match=says):
            any_teacher(file)


tokens = st.tuples(st.text(max_size=4) | st.sampled_from(["A", " A", "b", "B."]), st.floats(-30, 0))


@settings(deadline=None)
@given(st.lists(tokens, max_size=20))
def test_log_probabilities_give_probabilities_or_a_reason(top):
    try:
        chances, outside = read_logprobs(top, ["A", "B"])
    except Unparsable:
        return
    assert abs(chances.sum() - 1) < 1e-9 and (chances >= 0).all() and 0 <= outside <= 1


@settings(deadline=None)
@given(st.text(max_size=60) | st.none())
def test_any_answer_is_read_or_refused(text):
    for read in (read_letter, read_stated):
        try:
            assert abs(read(text, ["A", "B"]).sum() - 1) < 1e-9
        except Unparsable:
            pass


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="choose from logprobs"):
        PromptAnswer(MOODS, "m", way="telepathy")
    with pytest.raises(ValueError, match="give 2 to 52"):
        Prompt({str(i): "" for i in range(53)})


def test_examples_take_turns():
    import pandas as pd
    frame = pd.DataFrame({"text": list("abcdef"), "label": ["x", "x", "y", "y", None, "x"]})
    found = few_shot(frame, 2)
    assert [label for _, label in found] == ["x", "y", "x", "y"] and len({text for text, _ in found}) == 4


def test_an_endpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="127.0.0.1:9/v1 cannot be asked .APIConnectionError.*; 0 answers are kept"):
        PromptTeacher(MOODS, "m", base_url="http://127.0.0.1:9/v1", cache=tmp_path, retries=0)(TEXTS)
