import torch

from yatsude.train.balance import balance
from yatsude.train.weights import Weights


def test_the_bias_moves_against_the_load_and_the_counts_are_cleared(build):
    weights = Weights(build(num_hidden_layers=3), torch.float32, 2)
    loads = torch.tensor([[8, 0, 4, 4, 4, 4, 4, 4], [1, 2, 0, 0, 0, 0, 0, 29]])
    for replica in weights.replicas:
        for router, load in zip(replica.routers, loads, strict=True):
            router.load += load
    assert torch.equal(balance(weights.replicas, 0.5), 2 * loads)
    first, second = (router.e_score_correction_bias for router in weights.replicas[1].routers)
    assert first.tolist() == [-0.5, 0.5, 0, 0, 0, 0, 0, 0]
    assert second.tolist() == [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.5]
    assert all(router.load.count_nonzero() == 0 for replica in weights.replicas for router in replica.routers)


def test_a_model_without_experts_has_nothing_to_balance(build):
    weights = Weights(build(first_k_dense_replace=2), torch.float32, 1)
    assert balance(weights.replicas, 0.5).shape == (0, 0)


def test_ranks_that_add_their_counts_up_move_their_biases_alike(build):
    ranks = [Weights(build(), torch.float32, 1) for _ in range(2)]
    counts = torch.tensor([[9, 0, 1, 1, 1, 1, 1, 2], [0, 3, 1, 1, 1, 1, 1, 8]])
    for rank, load in zip(ranks, counts, strict=True):
        rank.replicas[0].routers[0].load += load
    whole = counts.sum(0, keepdim=True)
    loads = [balance(rank.replicas, 0.5, reduce=lambda own: whole) for rank in ranks]
    biases = [rank.replicas[0].routers[0].e_score_correction_bias for rank in ranks]
    assert all(torch.equal(load, whole) for load in loads)
    assert torch.equal(*biases)
    assert biases[0].tolist() == [-0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.5]
