"""What was written, read by the packages themselves."""

import json
import os
import subprocess
import sys

import pytest

from yatsude.train.sinks import open_sinks

STEPS = {step: {"loss": 3.0 / step, "machine/mfu": 0.5} for step in range(1, 6)}


def written(name, folder):
    """An attempt of three steps, and one that goes on after two of them."""
    for steps, after in (((1, 2, 3), 0), ((3, 4, 5), 2)):
        (sink,) = open_sinks([name], folder / "watch", after).values()
        for step in steps:
            sink.write(step, STEPS[step])
        sink.close()
    return folder / "watch"


def test_tensorboard_reads_its_event_files(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(written("tensorboard", tmp_path) / "tensorboard"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["loss", "machine/mfu"]
    points = [(event.step, event.value) for event in found.Scalars("loss")]
    assert points == [(step, pytest.approx(figures["loss"])) for step, figures in STEPS.items()]


def test_mlflow_reads_its_database(tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    folder = written("mlflow", tmp_path)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("yatsude").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == tmp_path.name
    points = {(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")}
    assert points == {(step, figures["loss"]) for step, figures in STEPS.items()}


def records(data):
    """Records of a `.wandb` file: blocks of 32 KiB of pieces, each with checksum, length, and kind (1 whole, 2 first,
    3 middle, 4 last), after a header of seven bytes."""
    whole, at = b"", 7
    while at + 7 <= len(data):
        if (left := -at % 32768) and left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):
            yield whole
            whole = b""


def test_wandb_writes_offline_files(tmp_path):
    """Its own reader is a program; its messages are read here."""
    pytest.importorskip("wandb")
    folder, points = written("wandb", tmp_path), {}
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for data in records(path.read_bytes()):
            items = Record.FromString(data).history.item
            line = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
            if "loss" in line:
                points[line["step"]] = line["loss"]
    assert points == {step: figures["loss"] for step, figures in STEPS.items()}


CHILD = """
import socket, sys
def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"connects to {address}")
    return real(self, address)
real, socket.socket.connect = socket.socket.connect, refuse
from pathlib import Path
from yatsude.train.sinks import open_sinks
for sink in open_sinks([sys.argv[1]], Path(sys.argv[2]), 0).values():
    sink.write(1, {"loss": 1.0})
    sink.close()
"""


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_sink_connects_to_nobody(name, tmp_path):
    pytest.importorskip(name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", CHILD, name, str(tmp_path / "watch")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "connects to" not in done.stderr
