"""Statuses, error bodies and headers on the wire."""

import http.client
import json
import socket
import time

import httpx
import pytest

from yatsude.engine.worker import Worker
from yatsude.errors import MachineError, RecipeError
from yatsude.serve import api
from yatsude.serve.app import STATIC
from yatsude.serve.run import bind
from yatsude.serve.settings import ServeSettings
from yatsude.spec.tasks import TASKS

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "猫"}], "max_tokens": 4}


@pytest.fixture
def web(server):
    with httpx.Client(base_url=server, trust_env=False) as web:
        yield web


def test_the_tasks_are_those_the_model_is_tuned_on(web):
    tasks = web.get("/tasks").json()["tasks"]
    assert [task["name"] for task in tasks] == list(TASKS)
    assert tasks[0]["text"] + "x" == TASKS[tasks[0]["name"]].prompt("x")


def test_health(web):
    answer = web.get("/health").json()
    assert (answer["status"], answer["model"]) == ("ok", "yatsude-test")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None, "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"n": 99}, "n"),
        ({"stop": [1]}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"猫": 1}}, "logit_bias"),
        ({"logit_bias": {"7": 500}}, "logit_bias"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_a_field_that_cannot_be_served_is_named(web, change, param):
    answer = web.post(CHAT, json={**HELLO, **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_fields_nobody_knows_are_passed_over(web):
    assert web.post(CHAT, json={**HELLO, "mood": "calm", "tools": [], "user": "a"}).status_code == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'"text"', b"\xff\xfe"])
def test_a_body_that_is_not_a_json_object(web, body):
    answer = web.post(CHAT, content=body)
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nowhere", 404), ("GET", CHAT, 405), ("DELETE", "/v1/models", 405), ("GET", "/static/../run.py", 404)],
)
def test_unknown_paths_and_methods(web, method, path, status):
    answer = web.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_a_large_body_is_refused(web):
    answer = web.post(CHAT, json={**HELLO, "mood": "x" * 200_000})
    assert answer.status_code == 413
    assert "100000 bytes" in answer.json()["error"]["message"]


def test_too_many_waiting_are_sent_away(web, idle, monkeypatch):
    assert idle()
    monkeypatch.setattr(Worker, "waiting", 20)
    monkeypatch.setattr(Worker, "running", 2)  # of four: two rows are free
    answer = web.post("/v1/completions", json={"prompt": ["猫"] * 3})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert web.post("/v1/completions", json={"prompt": ["猫"] * 2}).status_code == 200


def test_more_answers_than_may_ever_wait_are_an_error_of_the_request(web, idle):
    answer = web.post("/v1/completions", json={"prompt": ["猫"] * 21})
    assert answer.status_code == 400
    assert "21 answers are asked for, at most 20" in answer.json()["error"]["message"]
    assert web.post("/v1/completions", json={"prompt": ["猫"] * 20, "max_tokens": 1}).status_code == 200
    assert idle()


def test_lone_surrogates_are_an_error_not_a_crash(web):
    body = b'{"messages":[{"role":"user","content":"\\ud800"}]}'
    assert web.post(CHAT, content=body).status_code == 400


def test_the_events_of_a_stream(web):
    answer = web.post(CHAT, json={**HELLO, "stream": True})
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(json.loads(event.removeprefix("data: "))["id"] for event in events[:-2])


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_frees_its_row(server, worker, idle, stream):
    assert idle()
    host, port = server.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    body = {**HELLO, "max_tokens": None, "stream": stream, "n": 4, "logit_bias": {str(n): -100 for n in range(6)}}
    connection.request("POST", CHAT, json.dumps(body))
    deadline = time.monotonic() + 5
    while not worker.running and time.monotonic() < deadline:
        time.sleep(0.001)
    seen = worker.running
    connection.close()
    assert seen
    assert idle()


def test_a_model_that_fails_tells_the_client_and_not_its_insides(web, engine, monkeypatch):
    def broken(batch):
        raise RuntimeError("secret path")

    with monkeypatch.context() as patch:
        patch.setattr(engine.runner, "run", broken)
        whole = web.post(CHAT, json=HELLO)
        stream = web.post(CHAT, json={**HELLO, "stream": True})
    assert whole.status_code == 500
    assert whole.json()["error"]["type"] == "server_error"
    last = stream.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert "secret" not in whole.text + stream.text


def test_the_answer_to_an_unforeseen_error_is_guarded_too(web, monkeypatch):
    def broken(content, status=200):
        raise RuntimeError("secret path")

    with monkeypatch.context() as patch:
        patch.setattr(api, "json_response", broken)
        answer = web.get("/v1/models")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "secret" not in answer.text


def test_the_page_is_served_under_a_strict_policy(web):
    for path in ("/", *(f"/static/{file.name}" for file in STATIC.iterdir())):
        answer = web.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert "Server" not in answer.headers


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"}])
def test_other_sites_get_nothing(web, headers):
    answer = web.post(CHAT, json=HELLO, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["message"]


def test_localhost_and_the_page_itself_are_welcome(web, server):
    port = server.rpartition(":")[2]
    headers = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert web.post(CHAT, json=HELLO, headers=headers).status_code == 200


def test_a_port_in_use_is_one_line_with_the_next_step():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=rf"port {port} .*in use.*serve.port={port + 1}"):
            bind(ServeSettings(port=port))


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(MachineError, match=r"203\.0\.113\.7"):
        bind(ServeSettings(host="203.0.113.7", port=0))


@pytest.mark.parametrize("wrong", [{"port": 70_000}, {"temperature": 9.0}, {"top_p": 0.0}, {"max_waiting": 0}])
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        ServeSettings(**wrong)
