"""Rows to experts by the kernels of DeepEP: a token goes to a rank once, however many of its experts are there.

An optional library for NVIDIA GPUs joined by NVLink and RDMA (github.com/deepseek-ai/DeepEP, its `ElasticBuffer`).
Shapes: N tokens of this rank, K experts a token, R rows that come, D hidden width.
"""

import dataclasses
import functools
import importlib.metadata
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from yatsude.errors import MachineError
from yatsude.model.dispatch import Route
from yatsude.parallel.collectives import Journey
from yatsude.spec.parallel import ParallelSettings

__all__ = ["DeepEP", "announced", "needed"]


def announced(settings: ParallelSettings, device: str) -> str | None:
    """What to say of the library where it is used, or could be."""
    try:
        version = importlib.metadata.version("deep_ep")
    except importlib.metadata.PackageNotFoundError:
        return None
    if settings.ep == 1 or device != "cuda":
        return None
    if settings.dispatch == "deepep":
        return f"rows travel to their experts by DeepEP {version}"
    return f"DeepEP {version} is installed: parallel.dispatch = 'deepep' lets rows travel to their experts by it"


def needed(dtype: torch.dtype = torch.bfloat16) -> None:
    """Refuse a job that could not use the library here."""
    if not torch.cuda.is_available():
        raise MachineError("parallel.dispatch = 'deepep': for NVIDIA GPUs, and there is none; choose 'all-to-all'")
    if dtype != torch.bfloat16:
        raise MachineError(f"parallel.dispatch = 'deepep': for bf16, not for {dtype}; choose 'all-to-all'")
    _library()


def _library() -> ModuleType:
    try:
        return importlib.import_module("deep_ep")
    except ImportError as error:
        raise MachineError(
            f"parallel.dispatch = 'deepep': the library deep_ep cannot be loaded ({error}); install it as"
            " github.com/deepseek-ai/DeepEP says, or choose 'all-to-all'"
        ) from None


class Deep(Journey):
    """What both ways have in common."""

    def __init__(self, buffer: Any, handle: Any = None) -> None:
        self.buffer, self.handle = buffer, handle
        """The library's memory, and what it knows of the way there."""
        self._coming: tuple[Tensor, ...] = ()
        self._event: Any = None

    def end(self) -> tuple[Tensor, ...]:
        """Wait for what was begun last."""
        self._event.current_stream_wait()
        coming, self._coming = self._coming, ()
        return coming


class Out(Deep):
    """Tokens to the ranks that hold their experts, a row for each of these, with its weight."""

    def __init__(self, buffer: Any, chosen_NK: Tensor, experts: int) -> None:
        super().__init__(buffer)
        self._chosen, self._experts = chosen_NK, experts

    def begin(self, *tensors: Tensor) -> None:
        """Send tokens (N, D) and weights (N, K)."""
        x_ND, weights_NK = tensors
        rows_RD, _, weights_R, self.handle, self._event = self.buffer.dispatch(
            x_ND.contiguous(), topk_idx=self._chosen, topk_weights=weights_NK, num_experts=self._experts,
            do_expand=True, async_with_compute_stream=True,
        )  # fmt: skip
        self._coming = rows_RD, weights_R

    def begin_back(self, *grads: Tensor) -> None:
        """Send gradients of rows and weights; those of a token are added up on the way."""
        rows_RD, weights_R = grads
        x_ND, weights_NK, self._event = self.buffer.combine(
            rows_RD.contiguous(), self.handle, topk_weights=weights_R.contiguous(), async_with_compute_stream=True
        )
        self._coming = x_ND, weights_NK


class Back(Deep):
    """Rows back to their tokens, where they are added up."""

    def begin(self, *tensors: Tensor) -> None:
        """Send rows (R, D) back."""
        (rows_RD,) = tensors
        x_ND, _, self._event = self.buffer.combine(rows_RD, self.handle, async_with_compute_stream=True)
        self._coming = (x_ND,)

    def begin_back(self, *grads: Tensor) -> None:
        """Send the gradient of each token to all its rows."""
        (x_ND,) = grads
        rows_RD, *_, self._event = self.buffer.dispatch(
            x_ND.contiguous(), handle=self.handle, do_expand=True, async_with_compute_stream=True
        )
        self._coming = (rows_RD,)


@dataclasses.dataclass(frozen=True)
class DeepRoute(Route):
    """A route that the library knows."""

    out: Out
    weights: list[Tensor] = dataclasses.field(default_factory=list)
    """Of the rows that have come, once they have."""


class DeepEP:
    """Lets the library sort, send and add up; weights travel with the rows."""

    def __init__(self, mesh: DeviceMesh) -> None:
        self.mesh = mesh

    def dispatch(self, x_ND: Tensor, weights_NK: Tensor, chosen_NK: Tensor, experts: int) -> tuple[Tensor, DeepRoute]:
        """Send tokens to the ranks that hold their experts; a ticket for the rows that come, and their route."""
        out = Out(_buffer(self.mesh.get_group(), *x_ND.shape, chosen_NK.shape[1]), chosen_NK, experts)
        ticket = out.leave(x_ND, weights_NK)
        counts_E = torch.tensor(out.handle.num_recv_tokens_per_expert_list, device=x_ND.device)
        return ticket, DeepRoute(counts_E, out)

    def receive(self, sent: Tensor, route: DeepRoute) -> Tensor:
        """Rows for the experts of this rank, sorted by expert, once they have come."""
        rows_RD, weights_R = route.out.arrive(sent)
        route.weights.append(weights_R)
        return rows_RD

    def combine(self, y_RD: Tensor, route: DeepRoute) -> Tensor:
        """Weighted sum of each token's rows, shape (N, D), once they have come back."""
        (weights_R,) = route.weights
        back = Back(route.out.buffer, route.out.handle)
        (y_ND,) = back.arrive(back.leave(y_RD * weights_R[:, None].to(y_RD.dtype)))
        return y_ND


@functools.cache
def _buffer(group: ProcessGroup, tokens: int, hidden: int, chosen: int) -> Any:
    """The library's memory for exchanges in a group, which all layers share; rows come in the same order every time."""
    return _library().ElasticBuffer(
        group, num_max_tokens_per_rank=tokens, hidden=hidden, num_topk=chosen, deterministic=True
    )
