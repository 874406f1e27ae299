"""Figures of a run for TensorBoard, MLflow and Weights & Biases: files on this machine, from which nothing is sent.

FOLDER/watch/tensorboard/    event files: tensorboard --logdir FOLDER/watch/tensorboard
FOLDER/watch/mlflow.db       a database: mlflow server --backend-store-uri sqlite:///FOLDER/watch/mlflow.db
FOLDER/watch/wandb/          offline runs, which `wandb sync` would upload if somebody called it
"""

import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from yatsude.errors import MachineError

__all__ = ["Sink", "need", "open_sinks"]

EXTRAS = {"tensorboard": "watch", "mlflow": "mlflow", "wandb": "wandb"}
"""Package -> the extra that brings it."""
PROJECT = "yatsude"
FLUSH_S = 15.0
"""Between two transactions of a database."""
SILENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""Read by these packages when they are imported: they would otherwise report their use to their makers."""


class Sink(Protocol):
    """Takes figures of a step."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take some figures by name."""
        ...

    def close(self) -> None:
        """Write what waits."""
        ...


def need(names: Sequence[str]) -> None:
    """Refuse sinks whose package is not there, before anything is computed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MachineError(
                f"watch.sinks: the package {name} is missing; run: pip install 'yatsude[{EXTRAS[name]}]'"
            )


def open_sinks(names: Sequence[str], folder: Path, step: int) -> dict[str, Sink]:
    """Sinks of a run that goes on after `step` steps."""
    os.environ.update(SILENT)
    places: dict[str, Callable[[Path, int], Sink]] = {"tensorboard": _TensorBoard, "mlflow": _Mlflow, "wandb": _Wandb}
    folder.mkdir(parents=True, exist_ok=True)
    return {name: places[name](folder.resolve(), step) for name in names}


class _TensorBoard:
    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        # readers drop what an attempt wrote after the state that this one goes on from
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Mlflow:
    """One run of one experiment, which a resumed training goes on with."""

    def __init__(self, folder: Path, step: int) -> None:
        from mlflow import MlflowClient  # noqa: PLC0415
        from mlflow.entities import Metric  # noqa: PLC0415

        self._metric: Any = Metric
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()
        self._client: Any = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        runs = self._client.search_runs([experiment], max_results=1)
        self._run = (runs[0] if runs else self._client.create_run(experiment, run_name=folder.parent.name)).info.run_id

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [self._metric(name, value, now, step) for name, value in figures.items()]
        if time.monotonic() - self._flushed > FLUSH_S:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._client.set_terminated(self._run)

    def _flush(self) -> None:
        for first in range(0, len(self._waiting), 1000):  # of which a call takes no more
            self._client.log_batch(self._run, self._waiting[first : first + 1000])
        self._waiting, self._flushed = [], time.monotonic()


class _Wandb:
    """An offline run for each attempt, of one group."""

    def __init__(self, folder: Path, step: int) -> None:
        import wandb  # noqa: PLC0415

        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        self._run: Any = wandb.init(
            mode="offline", dir=str(folder), project=PROJECT, group=folder.parent.name, settings=settings
        )
        self._run.define_metric("*", step_metric="step")  # its own counter could not go back, as a roll-back does

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        self._run.finish()
