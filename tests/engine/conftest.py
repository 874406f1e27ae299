import pytest
import torch

from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

TEXTS = ["吾輩は猫である。名前はまだ無い。", "今日はいい天気ですね。散歩に行きましょう。", "The cat sat on the mat."]


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(train(TEXTS * 3, TokenizerSettings(vocab_size=320)))


@pytest.fixture(scope="session")
def config(tokenizer):
    return ModelConfig(
        vocab_size=-(-tokenizer.vocab_size // 16) * 16,
        hidden_size=32,
        num_hidden_layers=3,
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
        max_position_embeddings=128,
    )


@pytest.fixture(scope="session")
def make_model(config):
    def make(dtype=torch.float64, seed=0):
        model = Transformer(config)
        initialise(model, seed)
        with torch.no_grad():
            model.lm_head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
        return model.to(dtype).eval()

    return make
