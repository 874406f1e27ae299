"""What ranks do in tests of dispatchers: a plain library in the place of DeepEP, and notes of what is computed when."""

import types
from unittest import mock

import steps
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from yatsude.model.block import Mixture
from yatsude.parallel import deepep
from yatsude.parallel.expert import deal
from yatsude.parallel.mesh import Mesh
from yatsude.spec.parallel import ParallelSettings


class ElasticBuffer:
    """What the library's documents say of its expanding layout, by gathering everything everywhere."""

    def __init__(self, group, *, num_max_tokens_per_rank, hidden, num_topk, deterministic):
        assert deterministic
        self.group, self.tokens, self.hidden, self.chosen = group, num_max_tokens_per_rank, hidden, num_topk

    def dispatch(self, x, topk_idx=None, topk_weights=None, num_experts=None, handle=None, do_expand=False,
                 async_with_compute_stream=False):  # fmt: skip
        assert do_expand
        assert async_with_compute_stream
        assert x.is_contiguous()
        assert (len(x) <= self.tokens, x.shape[1], handle is None) == (True, self.hidden, topk_idx is not None)
        if handle is None:
            assert topk_weights.dtype in (torch.float32, torch.float64)
            assert topk_idx.shape == topk_weights.shape == (len(x), self.chosen)
            handle = self._plan(topk_idx, num_experts)
        everybody = self._all(x)
        rows = [everybody[rank][token] for rank, token, _ in handle.places]
        weights = None
        if topk_weights is not None:
            theirs = self._all(topk_weights)
            weights = x.new_tensor([theirs[rank][token][slot] for rank, token, slot in handle.places])
        return torch.stack(rows) if rows else x[:0], None, weights, handle, Event()

    def combine(self, x, handle, topk_weights=None, async_with_compute_stream=False):
        assert async_with_compute_stream
        mine, me = x.new_zeros(handle.tokens, self.hidden), self.group.rank()
        found = x.new_zeros(handle.tokens, self.chosen)
        given = self._all((x, topk_weights, handle.places))
        for rows, weights, places in given:
            for number, (rank, token, slot) in enumerate(places):
                if rank == me:
                    mine[token] += rows[number]
                    if weights is not None:
                        found[token, slot] = weights[number]
        return mine, None if topk_weights is None else found, Event()

    def _plan(self, chosen, experts):
        held = experts // self.group.size()
        own = range(self.group.rank() * held, (self.group.rank() + 1) * held)
        everybody = self._all(chosen)
        places = [
            (rank, token, slot)
            for expert in own
            for rank, theirs in enumerate(everybody)
            for token, slot in (theirs == expert).nonzero().tolist()
        ]
        counts = [sum(int((theirs == expert).sum()) for theirs in everybody) for expert in own]
        return types.SimpleNamespace(places=places, tokens=len(chosen), num_recv_tokens_per_expert_list=counts)

    def _all(self, mine):
        found = [None] * self.group.size()
        torch.distributed.all_gather_object(found, mine, group=self.group)
        return found


class Event:
    def current_stream_wait(self):
        """Nothing is under way."""


def by_library(settings, changes):
    """Train a few steps with experts' rows travelling by the library."""
    library = types.SimpleNamespace(ElasticBuffer=ElasticBuffer)
    with (
        mock.patch.object(deepep, "_library", return_value=library),
        mock.patch.object(deepep, "needed"),
    ):
        return steps.together({**settings, "dispatch": "deepep"}, changes)


class Noted(TorchDispatchMode):
    """Names of operators and sizes of products, in order."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._overloadpacket.__name__
        self.names.append(f"mm {args[1].shape[-1]}" if name == "mm" else name)
        return func(*args, **(kwargs or {}))


def order():
    """What a mixture with a shared expert of its own width does, forward and backward."""
    model = steps.model_of()
    mixture = next(module for module in model.modules() if isinstance(module, Mixture))
    deal(mixture, Mesh(ParallelSettings(dp=2, ep=2)).ep, "all-to-all")
    x = torch.randn(2, 8, model.config.hidden_size, dtype=steps.DTYPE, requires_grad=True)
    with Noted() as forward:
        y = mixture(x)
    with Noted() as backward:
        y.sum().backward()
    return forward.names, backward.names, mixture.shared_experts.gate_up_proj.weight.shape[0]
