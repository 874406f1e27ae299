import threading
import time

import pytest
import torch

from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings
from yatsude.engine.worker import Worker
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.serve.app import application
from yatsude.serve.run import Server, bind
from yatsude.serve.settings import ServeSettings
from yatsude.spec.config import ModelConfig
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

TEXTS = ["吾輩は猫である。名前はまだ無い。", "今日はいい天気ですね。散歩に行きましょう。", "The cat sat on the mat."]
CONTEXT = 256


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(train(TEXTS * 3, TokenizerSettings(vocab_size=320)))


@pytest.fixture(scope="session")
def engine(tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        moe_intermediate_size=16,
        num_attention_heads=2,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        max_position_embeddings=CONTEXT,
    )
    model = Transformer(config)
    initialise(model, 0)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
        model.lm_head.weight[: len(TEXTS) + 3].mul_(0)  # a random model would end its answers at once now and then
    return Engine(model, tokenizer, EngineSettings(max_rows=4))


@pytest.fixture(scope="session")
def worker(engine):
    with Worker(engine) as worker:
        yield worker


@pytest.fixture(scope="session")
def server(worker):
    """The address of a server in this process, on a free loopback port."""
    settings = ServeSettings(port=0, max_waiting=20, max_body_mb=0.1)
    listener, started = bind(settings), threading.Event()
    server = Server(application(worker, "yatsude-test", settings), listener, lambda url: started.set())
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(20)
    yield server.url
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def idle(worker):
    """Wait until the engine has nothing to do; False after five seconds."""

    def wait():
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if worker.running + worker.waiting == 0:
                return True
            time.sleep(0.01)
        return False

    return wait
