"""Multi-token prediction beside transformers' own layer of it, on the same weights."""

import pytest
import torch

from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.train.ahead import shifted

transformers = pytest.importorskip("transformers")


def tokens(length=20):
    return torch.randint(256, (2, length), generator=torch.Generator().manual_seed(3))


def peer_layer(model, peer, number):
    """transformers' layer with our weights."""
    from transformers.modeling_layers import MtpLayer

    main = peer.model
    config = peer.config
    config.mlp_layer_types = None
    config.first_k_dense_replace, kept = 0, config.first_k_dense_replace  # numbers begin at 0 there
    layer = MtpLayer(config, type(main.layers[0]), type(main.norm), number)
    config.first_k_dense_replace = kept
    state = {}
    for name, tensor in model.mtp[number].state_dict().items():
        theirs = name.replace("block.", "mtp_block.") if name.startswith("block.") else name
        theirs = "post_norm.weight" if theirs == "norm.weight" else theirs
        if "gate_up_proj.weight" in theirs:
            gate, up = tensor.chunk(2)
            state[theirs.replace("gate_up", "gate")], state[theirs.replace("gate_up", "up")] = gate, up
        else:
            state[theirs] = tensor
    layer.load_state_dict(state)
    return layer.eval()


@torch.no_grad()
@pytest.mark.parametrize("family", ["deepseek_v3", "glm4_moe"])
def test_hidden_states_equal_those_of_transformers(build, peer_of, family):
    model = build(model_type=family, num_nextn_predict_layers=2)
    peer = peer_of(model)
    ids = tokens()
    theirs = peer.model(ids).last_hidden_state[:, :-2]
    ours = model(ids)[:, :-2]
    mask = torch.full((1, 1, 18, 18), -torch.inf).triu(1)
    for number in range(2):
        following = ids[:, 1 + number : 19 + number]
        places = torch.arange(18)[None] + 1 + number
        ours = model.ahead(number, ours, following)
        embedded = peer.model.embed_tokens(following)
        rotations = peer.model.rotary_emb(embedded, places)
        theirs = peer_layer(model, peer, number)(embedded, theirs, rotations, mask, places, None)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def plain_loss(model, ids, documents, number):
    """The mean, token by token, of what a layer that sees t[i] and t[i+1+number] thinks of t[i+2+number]."""
    total, count = 0.0, 0
    for row in range(len(ids)):
        for i in range(ids.shape[1] - 2 - number):
            if documents[row, i] != documents[row, i + 1 + number]:
                continue
            part = ids[row : row + 1, : i + 1]
            hidden = model(part)
            for k in range(number + 1):
                hidden = model.ahead(k, hidden, ids[row : row + 1, 1 + k : i + 2 + k])
            scores = model.logits(hidden[:, -1]).log_softmax(-1)
            total -= scores[0, ids[row, i + 2 + number]]
            count += 1
    return total, count


@pytest.mark.parametrize("number", [0, 1])
def test_the_loss_is_that_of_a_plain_loop(build, number):
    model = build(num_nextn_predict_layers=2).double()
    ids = tokens(8)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    documents = torch.zeros_like(inputs)
    hidden = model(inputs)
    for k in range(number + 1):
        following, later = shifted(inputs, targets, documents, k + 1)
        hidden = model.ahead(k, hidden, following)
    loss = cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, later.flatten(), 1.0)
    expected, count = plain_loss(model, ids, torch.zeros_like(ids), number)
    assert count == (later != IGNORED).sum()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_nothing_is_asked_beyond_a_document():
    inputs = torch.tensor([[0, 5, 6, 0, 7, 8]])
    targets = torch.tensor([[5, 6, 0, 7, 8, 0]])
    documents = torch.tensor([[1, 1, 1, 2, 2, 2]])
    following, later = shifted(inputs, targets, documents, 1)
    assert following.tolist() == [[5, 6, 0, 7, 8, 8]]
    assert later.tolist() == [[6, 0, IGNORED, 8, 0, IGNORED]]


def test_embedding_and_head_learn_from_both_losses(build):
    model = build(num_nextn_predict_layers=1)
    ids = tokens()
    model.ahead(0, model(ids[:, :-1]), ids[:, 1:]).square().sum().backward()
    assert model.embed_tokens.weight.grad.count_nonzero() > 0
    assert all(weight.grad is not None for weight in model.mtp.parameters())
