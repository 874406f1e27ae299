import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.errors import MachineError
from yatsude.serve.run import run
from yatsude.serve.settings import ServeSettings

PROGRAM = """
import sys
from pathlib import Path
from yatsude.serve.run import run
from yatsude.serve.settings import ServeSettings
run(ServeSettings(port=0), Path(sys.argv[1]), ready=lambda url: print(url, flush=True))
"""


@pytest.fixture
def folder(tmp_path, engine):
    folder = tmp_path / "my-model"
    folder.mkdir()
    hf.write(engine.runner.model, folder, dtype=torch.float32, shard_bytes=1 << 30)
    engine.tokenizer.save(folder)
    return folder


def test_a_folder_is_served_until_ctrl_c(folder):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, folder], text=True, **pipes) as server:
        url = server.stdout.readline().strip()
        with httpx.Client(base_url=url, trust_env=False) as web:
            assert web.get("/health").json()["model"] == "my-model"
            with web.stream("POST", "/v1/completions", json={"prompt": "猫", "stream": True}) as answer:
                lines = answer.iter_lines()
                next(lines)
                server.send_signal(signal.SIGINT)
                start = time.monotonic()
                last = [line for line in lines if line][-1]
                assert server.wait(timeout=20) == 0
        said = server.stderr.read()
    assert "shutting down" in last or last == "data: [DONE]"
    assert "Traceback" not in said
    assert "Error" not in said
    assert time.monotonic() - start < 10


def test_a_taken_port_is_told_before_the_model_is_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MachineError, match="in use"):
        run(ServeSettings(port=taken.getsockname()[1]), tmp_path / "no-model-here")
