"""A model to go on from: its shape, its weights, and whether it reads the same tokens as the run."""

from pathlib import Path

import torch

from yatsude import manifest
from yatsude.checkpoint import hf
from yatsude.checkpoint.bases import refuse_without_licence
from yatsude.checkpoint.folder import Folder
from yatsude.errors import CheckpointError
from yatsude.files import sha256_of
from yatsude.model.transformer import Transformer
from yatsude.spec.config import ModelConfig
from yatsude.spec.hf import CONFIG, TOKENIZER

__all__ = ["config_of", "identity_of", "load"]


def config_of(base: Path, tokens: Path, vocab_size: int) -> ModelConfig:
    """Shape of the base; one with another tokenizer than the folder `tokens` is refused."""
    config = Folder(base).config
    refuse_without_licence(base)
    mine, theirs = tokens / TOKENIZER, base / TOKENIZER
    if not theirs.is_file() or sha256_of(mine) != sha256_of(theirs):
        raise CheckpointError(
            f"{theirs} is not the tokenizer of {tokens}: the model would read other words; give the tokenizer folder it"
            f" was trained with, or make it one for this text with 'yatsude extend {base} {tokens} TARGET'"
        )
    if config.vocab_size < vocab_size:
        raise CheckpointError(
            f"{base} has {config.vocab_size} rows for {vocab_size} tokens; its config.json is damaged"
        )
    return config


def load(base: Path, config: ModelConfig) -> Transformer:
    """Read the weights, in float32; layers of multi-token prediction that `config` is without are left out."""
    model = hf.load(base, torch.float32)
    model.config, model.mtp = config, model.mtp[: config.num_nextn_predict_layers]
    return model


def identity_of(base: Path) -> str:
    """Name the weights: a base that has changed is another run."""
    if (base / manifest.NAME).is_file():
        return manifest.digest(manifest.read(base))
    files = [base / CONFIG, *(shard.path for shard in Folder(base).shards.values())]
    return ":".join(sha256_of(path)[:16] for path in files)
