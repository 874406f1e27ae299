"""Longer proofs: killed again and again, and asked again and again."""

import json
import os
import random
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .conftest import SMALL, sets, start

pytestmark = pytest.mark.soak
KILLS = 10
STEPS = 600
REQUESTS = 300
CLIENTS = 12


def log_of(folder):
    """Whole lines of the log, without the time they took."""
    path = folder / "log.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [{k: v for k, v in json.loads(line).items() if k not in ("seconds", "pause", "machine")} for line in lines]


@pytest.mark.parametrize(("precision", "workers"), [("fp32", 1), ("bf16", 2)])
def test_killed_ten_times_a_run_ends_as_if_it_never_was(home, tmp_path, precision, workers):
    settings = (f"train.steps={STEPS}", f"train.precision={precision}", f"train.workers={workers}")

    def begin(name):
        (tmp_path / name).mkdir(exist_ok=True)
        if not (tmp_path / name / "tokenizer").exists():
            (tmp_path / name / "tokenizer").symlink_to(home / "tokenizer")
        return start("train", "--run", tmp_path / name, *sets(*SMALL, *settings, "train.checkpoint_steps=5"))

    moments, folder = random.Random(workers), tmp_path / "cut" / "train"
    for _ in range(KILLS):
        reached = len(log_of(folder))
        process, goal = begin("cut"), reached + moments.randint(8, 45)
        while len(log_of(folder)) < goal:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.001)
        time.sleep(moments.random() / 50)
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        process.communicate()
    for name in ("cut", "whole"):
        process = begin(name)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert log_of(folder) == log_of(tmp_path / "whole" / "train")
    weights = [(tmp_path / name / "train/model/model.safetensors").read_bytes() for name in ("cut", "whole")]
    assert weights[0] == weights[1]
    assert not list(folder.rglob(".*"))


def state_of(process):
    """Resident bytes, open files and threads of a process (Linux)."""
    page = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+)", page)[1]) * 1024
    return resident, len(os.listdir(f"/proc/{process.pid}/fd")), int(re.search(r"Threads:\s+(\d+)", page)[1])


def ask(web, number):
    """One request of several kinds; every fifth client goes away in the middle of its answer."""
    body = {"messages": [{"role": "user", "content": f"{number}時に" * (1 + number % 6)}], "max_tokens": 30}
    if number % 5 == 0:
        with web.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            next(answer.iter_lines())
        return 200
    if number % 5 == 1:
        with web.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
            assert "data: [DONE]" in answer.read().decode()
            return answer.status_code
    if number % 5 == 2:
        return web.post("/v1/completions", json={"prompt": ["今日は", "明日は"], "max_tokens": 20, "n": 2}).status_code
    if number % 5 == 3:
        assert web.post("/v1/completions", json={"prompt": "長い話" * 400}).status_code == 400
    return web.post("/v1/chat/completions", json=body).status_code


def idle(web):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        page = web.get("/health").json()
        if page["running"] == page["waiting"] == 0:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_three_hundred_requests_leave_no_trace(home):
    process = start("serve", home / "export", *sets("serve.port=0", "engine.max_rows=8"))
    url = next(found[0] for line in process.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as web:

        def work(numbers):
            with ThreadPoolExecutor(CLIENTS) as pool:
                assert set(pool.map(lambda number: ask(web, number), numbers)) == {200}
            assert idle(web)
            return state_of(process)

        before, after = work(range(100)), work(range(100, 100 + REQUESTS))
    assert after[0] - before[0] < 20e6
    assert after[1] - before[1] <= CLIENTS
    assert after[2] - before[2] <= 2
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "engine:" not in err
