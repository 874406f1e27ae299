import math

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.evaluate.bits import measure
from yatsude.evaluate.heldout import parts
from yatsude.evaluate.results import total


def test_bits_of_each_kind_equal_those_of_its_documents_one_by_one(home):
    model = hf.load(home / "train" / "model", torch.float64).eval()
    kinds = parts(home / "tokenizer" / "held_out")
    found = measure(model, kinds, window=64)
    for kind, part in kinds.items():
        nats = 0.0
        for document in part.documents():
            ids = torch.from_numpy(document)
            with torch.no_grad():
                logits = model.logits(model(ids[None, :-1]))[0]
            nats += float(torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum"))
        assert found[kind].bits == pytest.approx(nats / math.log(2), rel=1e-6)
        assert found[kind].characters == part.characters.sum()
    assert total(found.values()).characters == sum(bits.characters for bits in found.values())
