import dataclasses

import pytest

from yatsude.plan.faults import Faults, pause
from yatsude.plan.job import Job
from yatsude.plan.lint import Training, lint, usual_batch, usual_rate
from yatsude.spec.hardware import accelerator
from yatsude.spec.parallel import ParallelSettings
from yatsude.spec.presets import preset

SOUND = Training(steps=250_000, warmup=0.008, rate=2.2e-4, epsilon=1e-8, checkpoint_steps=100, step_seconds=20.0)
CUT = ParallelSettings(pp=16, dp=128, ep=64, micro_batches=120)


@pytest.fixture
def job():
    """DeepSeek-V3's own run."""
    return Job(config=preset("700b"), accelerator=accelerator("h800"), gpus=2048, batch=15360)


def found(job, training=SOUND, layout=CUT, faults=None):
    return {one.key: one for one in lint(job, training, layout, faults or Faults(gpus=2048))}


def test_the_run_of_deepseek_v3_is_sound(job):
    assert found(job) == {}
    assert usual_rate(6 * 37e9 * 14.8e12) == pytest.approx(2.7e-4, rel=0.02)
    assert usual_batch(6 * 37e9 * 14.8e12) == pytest.approx(3.1e7, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "key", "severity", "words"),
    [
        ({"warmup": 0.0001}, "train.warmup", "warning", "2 / (1 - beta2) = 40"),
        ({"warmup": 0.001}, "train.warmup", "warning", "large runs take 1,000 to 2,000"),
        ({"epsilon": 1e-5}, "train.optimizer.epsilon", "error", "clip / sqrt(parameters) = 1e-06"),
        ({"epsilon": 3e-7}, "train.optimizer.epsilon", "warning", "set 1e-09 or less"),
        ({"rate": 5e-3}, "train.optimizer.rate", "warning", "0.3118 x C^-0.125 = 0.00027"),
        ({"router": "bf16"}, "train.router", "warning", "use fp32"),
        ({"steps": 5000, "warmup": 0.2}, "train.steps", "warning", "8.6 each, and 20 are usual"),
        ({"checkpoint_steps": 2000}, "train.checkpoint_steps", "warning", "saving every 667 min"),
    ],
)
def test_what_cost_others_a_run_is_found(job, changes, key, severity, words):
    finding = found(job, dataclasses.replace(SOUND, **changes))[key]
    assert finding.severity == severity
    assert words in finding.message
    value = changes.get(key.rsplit(".", maxsplit=1)[-1])
    assert value is None or finding.value == value


def test_an_epsilon_that_stalled_a_published_run_is_found():
    """LLM-jp-3 172B trained 1.4 T tokens before an epsilon of 1e-5 was understood."""
    dense = preset("700b", first_k_dense_replace=61, num_nextn_predict_layers=0, intermediate_size=122880)
    job = Job(config=dense, accelerator=accelerator("h100"), gpus=2048, batch=4096)
    assert found(job, dataclasses.replace(SOUND, epsilon=1e-5))["train.optimizer.epsilon"].severity == "error"


def test_experts_need_rows(job):
    small = dataclasses.replace(job, batch=2, sequence=512, gpus=1)
    told = found(small, layout=ParallelSettings(), faults=Faults(gpus=1))
    assert "32 rows a step" in told["train.sequences_per_step"].message
    assert "32 rows of a micro-batch" in told["parallel.ep"].message


def test_sequences_need_positions(job):
    tiny = dataclasses.replace(job, config=preset("tiny", rope_theta=10.0), sequence=4096)
    told = found(tiny, layout=dataclasses.replace(CUT, ep=8, pp=2, dp=1024, micro_batches=15))
    assert told["train.sequence_length"].severity == "error"
    assert "the model knows 2048 positions" in told["train.sequence_length"].message
    assert "comes round after" in told["model.rope_theta"].message


def test_gathers_over_the_network_are_told(job):
    wide = found(job, layout=ParallelSettings(pp=8, dp=16, tp=16, ep=64, micro_batches=120))
    assert "beyond the 8 h800 of a node" in wide["parallel.tp"].message


def test_errors_come_first(job):
    training = dataclasses.replace(SOUND, epsilon=1e-5, warmup=0.0)
    order = [one.severity for one in lint(job, training, CUT, Faults(gpus=2048))]
    assert order == sorted(order)
    assert str(lint(job, training, CUT, Faults(gpus=2048))[0]).startswith("error: train.optimizer.epsilon = 1e-05: ")


def test_the_best_interval_loses_least():
    faults = Faults(gpus=2048)
    best = faults.best_interval
    assert all(faults.loss(best) <= faults.loss(best * factor) for factor in (0.5, 0.9, 1.1, 2))
    assert pause(Job(config=preset("tiny"), accelerator=accelerator("h100"), gpus=1), ParallelSettings()) < 3
    assert Faults(gpus=16384).seconds == pytest.approx(54 * 86400 / 419, rel=0.02)
