"""Answers of every attention and router through the cache, against the model without one and against transformers."""

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.engine.engine import Engine
from yatsude.engine.settings import EngineSettings, SamplingSettings
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.layout import in_layout
from yatsude.spec.rope_scaling import RopeScaling

YARN = RopeScaling(
    rope_type="yarn", factor=4.0, original_max_position_embeddings=32, mscale=1.0, mscale_all_dim=1.0, beta_fast=4.0
)
LAYOUTS = {
    "deepseek_v3": {"n_group": 4, "topk_group": 2, "rope_scaling": YARN},
    "glm4_moe": {"attention_bias": True, "qk_norm": True, "partial_rotary_factor": 0.5},
    "mixtral": {"num_key_value_heads": 1},
    "qwen3_moe": {"num_key_value_heads": 1, "norm_topk_prob": True},
    "llama": {"rope_scaling": RopeScaling(rope_type="llama3", factor=8.0, original_max_position_embeddings=16)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_greedy_answers_are_those_of_transformers_for_64_tokens(config, tokenizer, tmp_path, layout):
    transformers = pytest.importorskip("transformers")
    model = Transformer(in_layout(config, layout, **LAYOUTS[layout]))
    initialise(model, 1)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    hf.write(model, tmp_path, torch.float32, 10**9)
    peer = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float64, experts_implementation="eager"
    )
    settings = EngineSettings(max_rows=2, prefill_tokens=8)
    engine = Engine(model.double().eval(), tokenizer, settings)
    texts = ("吾輩は猫である。名前はまだ", "The cat", "いい天気")
    prompts = [[tokenizer.text, *tokenizer.encode(text)] for text in texts]
    ours = engine.generate(prompts, SamplingSettings(temperature=0, max_tokens=64, ignore_end=True))
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        suppressed = list(range(tokenizer.vocab_size, config.vocab_size))
        theirs = peer.generate(
            ids,
            max_new_tokens=64,
            min_new_tokens=64,
            do_sample=False,
            suppress_tokens=suppressed or None,
            eos_token_id=None,
        )
        assert list(answer.tokens) == theirs[0, len(prompt) :].tolist()
