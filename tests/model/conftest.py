import pytest
import torch

from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.hf import to_hf
from yatsude.spec.layout import in_layout

SMALL = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}


def make_config(model_type="deepseek_v3", **changes):
    return in_layout(ModelConfig(**SMALL), model_type, **changes)


def make_model(seed=0, **changes):
    """A small model whose every part matters: no zero head, no even router."""
    model = Transformer(make_config(**changes))
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.1, generator=generator)
        for name, weight in model.named_parameters():
            if name.endswith(".bias"):
                weight.normal_(std=0.3, generator=generator)
            elif weight.ndim == 1:
                weight.normal_(1.0, 0.1, generator=generator)
            elif name.endswith("mlp.gate.weight"):
                weight.mul_(3)
        for router in model.routers:
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias.normal_(std=0.1, generator=generator)
    return model


def make_peer(model):
    """The same weights in transformers' model."""
    transformers = pytest.importorskip("transformers")
    page = {key: value for key, value in to_hf(model.config).items() if key not in ("torch_dtype", "architectures")}
    config = transformers.AutoConfig.for_model(**page)
    config._experts_implementation = "eager"
    peer = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    missing, unknown = peer.load_state_dict(peer_weights(model), strict=False)
    assert not unknown
    assert set(missing) <= ({"lm_head.weight"} if model.config.tie_word_embeddings else set())
    return peer


def peer_weights(model, of=lambda tensor: tensor):
    """Our tensors under the names of transformers' modules."""
    out = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.startswith("mtp."):
            continue
        theirs = name if name.startswith("lm_head") else f"model.{name}"
        if theirs == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        value = of(tensor)
        if "gate_up_proj.weight" in theirs:
            gate, up = value.chunk(2)
            out[theirs.replace("gate_up", "gate")], out[theirs.replace("gate_up", "up")] = gate, up
        else:
            out[theirs] = value
    return out


@pytest.fixture
def small():
    return make_config


@pytest.fixture
def build():
    return make_model


@pytest.fixture
def peer_of():
    return make_peer


@pytest.fixture
def as_peer():
    return peer_weights
