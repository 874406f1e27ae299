import pytest
import torch
from torch.nn import functional

from yatsude.model import attention
from yatsude.model import documents as model_documents
from yatsude.model.attention import attend, causal_mask, dense
from yatsude.model.documents import Documents


class Cache:
    """The plainest latent cache: it joins."""

    learns = False

    def __init__(self):
        self.layers = {}

    def append(self, layer, latent, rope_key):
        if layer in self.layers:
            latent = torch.cat((self.layers[layer][0], latent), 1)
            rope_key = torch.cat((self.layers[layer][1], rope_key), 1)
        self.layers[layer] = (latent, rope_key)
        return latent, rope_key


def qkv(dtype=torch.float64, queries=4, keys=6):
    torch.manual_seed(0)
    shapes = ((2, 3, queries, 5), (2, 3, keys, 5), (2, 3, keys, 7))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def test_the_gradient_is_that_of_the_formula():
    mask = torch.zeros(2, 4, 6, dtype=torch.float64).masked_fill_(torch.rand(2, 4, 6) < 0.4, -torch.inf)
    mask[..., 0] = 0
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, mask, 0.3), qkv())
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, None, 0.3), qkv())


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_blocks_of_queries_change_nothing(monkeypatch, block):
    monkeypatch.setattr(attention, "BLOCK", block)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2], [0, 1, 1, 1, 1, 1]])
    monkeypatch.setattr(model_documents, "ROUND", 2)
    packed = Documents(documents)
    for mask in (None, packed, packed.whole(torch.float64)):
        assert torch.autograd.gradcheck(lambda q, k, v, mask=mask: attend(q, k, v, mask, 0.3), qkv(queries=6))
        seen = dense(mask, 6, 6, torch.zeros((), dtype=torch.float64))[:, None]
        query, key, value = qkv(queries=6)
        expected = functional.scaled_dot_product_attention(query, key, value, seen, scale=0.3)
        torch.testing.assert_close(attend(query, key, value, mask, 0.3), expected)


@pytest.mark.parametrize("block", [2, 100])
def test_some_queries_of_packed_rows_see_what_they_see_among_all(monkeypatch, block):
    """As a rank holds them that has the first and the last quarter of the sequences."""
    monkeypatch.setattr(attention, "BLOCK", block)
    monkeypatch.setattr(model_documents, "ROUND", 2)
    documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1]])
    places = torch.tensor([0, 1, 6, 7])
    query, key, value = qkv(queries=8, keys=8)
    whole = attend(query, key, value, Documents(documents), 0.3)
    some = attend(query[:, :, places], key, value, Documents(documents, places), 0.3)
    torch.testing.assert_close(some, whole[:, :, places])


def test_attend_equals_the_library():
    query, key, value = qkv(torch.float32, 6, 6)
    expected = functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    torch.testing.assert_close(attend(query, key, value, None, 0.3), expected)
    mask = causal_mask(6, 6, query)[None].expand(2, -1, -1)
    torch.testing.assert_close(attend(query, key, value, mask, 0.3), expected)


def test_the_last_query_sees_every_key():
    mask = causal_mask(2, 4, torch.zeros(()))
    assert torch.equal(mask == 0, torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]).bool())


@torch.no_grad()
def test_reading_from_the_cache_equals_expanding(build):
    for changes in ({}, {"q_lora_rank": 24}):
        model = build(**changes).double()
        tokens = torch.randint(256, (2, 12), generator=torch.Generator().manual_seed(0))
        whole, cache, parts = model(tokens), Cache(), []
        for start, end in ((0, 5), (5, 6), (6, 12)):
            mask = causal_mask(end - start, end, whole)[None].expand(2, -1, -1)
            positions = torch.arange(start, end)[None]
            parts.append(model(tokens[:, start:end], positions_BT=positions, mask=mask, cache=cache))
        # rotations are float32, and a product taken in another order rounds elsewhere
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-9)


@torch.no_grad()
def test_without_a_mask_the_cache_is_causal(build):
    model = build()
    tokens = torch.randint(256, (1, 9), generator=torch.Generator().manual_seed(0))
    cache = Cache()
    first = model(tokens[:, :6], cache=cache)
    rest = model(tokens[:, 6:], positions_BT=torch.arange(6, 9)[None], cache=cache)
    torch.testing.assert_close(torch.cat((first, rest), 1), model(tokens), rtol=0, atol=2e-5)
    width = model.config.kv_lora_rank + model.config.qk_rope_head_dim
    assert sum(part.shape[-1] for part in cache.layers[0]) == width


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weights_computed_again_give_the_same_gradients(monkeypatch, dtype):
    """In float64 by the reference, in float32 by the compiled pass where there is one."""
    found = []
    for kept in (1024, 0):
        monkeypatch.setattr(attention, "KEPT", kept)
        monkeypatch.setattr(attention, "BLOCK", 3)
        documents = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 1, 1, 1, 1]])
        query, key, value = qkv(dtype, 8, 8)
        attend(query, key, value, Documents(documents), 0.3).square().sum().backward()
        found.append([part.grad for part in (query, key, value)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_a_long_sequence_holds_no_scores_or_mask_of_all_pairs(monkeypatch, packed):
    length, kept, masks = 2048, [], []
    monkeypatch.setattr(Documents, "whole", None)
    made = Documents._made
    monkeypatch.setattr(Documents, "_made", lambda *args: masks.append(made(*args)) or masks[-1])
    query, key, value = (torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3))
    mask = Documents(torch.arange(length)[None] // 300) if packed else None
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        out = attend(query, key, value, mask, 0.3)
    assert sum(kept) < 0.1 * length * length
    out.sum().backward()
    assert max((mask.shape[1] for mask in masks), default=0) <= attention.BLOCK
    assert not packed or max(mask.shape[2] for mask in masks) <= 300 + attention.BLOCK + 64
    assert not mask or not mask._kept
