import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude.model.documents import Documents
from yatsude.model.transformer import Transformer
from yatsude.spec.counts import count
from yatsude.spec.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_as_many_parameters_as_counted(name):
    with torch.device("meta"):
        model = Transformer(PRESETS[name])
    counts = count(PRESETS[name])
    assert sum(weight.numel() for weight in model.parameters()) == counts.total + counts.mtp
    assert sum(router.e_score_correction_bias.numel() for router in model.routers) == counts.biases
    parts = dict.fromkeys([*counts.parts, "mtp"], 0)
    for path, weight in model.named_parameters():
        parts[part_of(path)] += weight.numel()
    assert parts == counts.parts | {"mtp": counts.mtp}


def part_of(name):
    """Which part a parameter belongs to, told from its name."""
    if name.startswith("mtp."):
        return "mtp"
    if "norm" in name:
        return "norms"
    marks = {"self_attn": "attention", ".experts.": "routed_experts", "shared_experts": "shared_experts"}
    marks |= {"mlp.gate.": "routers", "mlp": "dense", "embed_tokens": "embedding", "lm_head": "head"}
    return next(part for mark, part in marks.items() if mark in name)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=3))
def test_a_token_sees_its_document_up_to_itself(rows):
    length = min(len(row) for row in rows)
    documents = torch.tensor([sorted(row[:length]) for row in rows])
    mask = Documents(documents).whole(torch.float32)
    assert mask.shape == (len(rows), length, length)
    for b in range(len(rows)):
        for t in range(length):
            for s in range(length):
                seen = s <= t and documents[b, t] == documents[b, s]
                assert mask[b, t, s] == (0 if seen else -torch.inf)


@torch.no_grad()
def test_packed_documents_do_not_see_each_other(build):
    model = build().double()
    first, second = torch.randint(256, (1, 7)), torch.randint(256, (1, 5))
    packed = torch.cat((first, second), 1)
    numbers = torch.tensor([[0] * 7 + [1] * 5])
    positions = torch.cat((torch.arange(7), torch.arange(5)))[None]
    out = model(packed, positions_BT=positions, mask=Documents(numbers))
    torch.testing.assert_close(out[:, :7], model(first), rtol=0, atol=1e-12)
    torch.testing.assert_close(out[:, 7:], model(second), rtol=0, atol=1e-12)


@torch.no_grad()
def test_no_token_sees_a_later_one(build):
    model, tokens = build().double(), torch.randint(256, (1, 10))
    before = model(tokens)
    tokens[0, 6:] = torch.randint(256, (4,))
    torch.testing.assert_close(model(tokens)[:, :6], before[:, :6], rtol=0, atol=1e-12)


def test_every_weight_takes_part_in_the_loss(build):
    model = build(q_lora_rank=24)
    model.logits(model(torch.randint(256, (2, 64)))).square().sum().backward()
    silent = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert silent == []
