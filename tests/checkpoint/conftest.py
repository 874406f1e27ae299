import json

import pytest
import torch

from yatsude import manifest
from yatsude.manifest import Licence
from yatsude.model.init import initialise
from yatsude.model.transformer import Transformer
from yatsude.spec.chat import SPECIAL_TOKENS
from yatsude.spec.layout import in_layout
from yatsude.spec.presets import preset

SOURCE = Licence(source="mine", licence="CC-BY-4.0", attribution="Somebody", url="https://example.org/mine")


def make_model(dtype=torch.float32, model_type="deepseek_v3", **changes):
    """A small model in which every tensor differs from every other."""
    base = preset("pico", vocab_size=300, num_hidden_layers=3)
    model = Transformer(in_layout(base, model_type, **changes))
    initialise(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.normal_(1.0, 0.1, generator=generator)
        model.lm_head.weight.normal_(std=0.1, generator=generator)
        model.to(dtype)
        for router in model.routers:
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias = torch.randn(8, generator=generator) / 10
    return model


@pytest.fixture
def build():
    return make_model


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def tokenizer(tmp_path):
    """A byte-level tokenizer folder, untrained."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.save(str(folder / "tokenizer.json"))
    page = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": SPECIAL_TOKENS[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(page))
    manifest.write(folder, "tokenizer", licences=[SOURCE])
    return folder
