"""The compiled passes beside their references in PyTorch, values and gradients."""

import subprocess
import sys

import pytest
import torch

from yatsude.model.attention import attend
from yatsude.model.dispatch import FEWEST, LocalDispatcher
from yatsude.model.documents import Documents
from yatsude.model.loss import IGNORED, cross_entropy
from yatsude.model.native import library
from yatsude.model.norm import RMSNorm
from yatsude.model.rope import Rotary, rotate
from yatsude.model.swiglu import swiglu

DTYPES = (torch.float32, torch.bfloat16)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 2e-2}

needs_compiler = pytest.mark.skipif(not library.usable(torch.zeros(1)), reason="no C++ compiler")
both = pytest.mark.parametrize("dtype", DTYPES, ids=["fp32", "bf16"])


def randn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def outcomes(function, inputs):
    """What a function gives, and the gradients of its inputs under fixed weights of the outputs."""
    inputs = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in inputs]
    y = function(*inputs)
    y.backward(randn(*y.shape, seed=9).to(y.dtype))
    return [y.detach(), *(x.grad for x in inputs if x.requires_grad)]


def compare(monkeypatch, function, inputs, dtype):
    """Both ways, and the reference in float64, which both must be as near to."""
    compiled = outcomes(function, inputs)
    with monkeypatch.context() as patch:
        patch.setattr(library, "usable", lambda *_: False)
        plain = outcomes(function, inputs)
        exact = outcomes(function, [x.double() if x.is_floating_point() else x for x in inputs])
    for one, other, true in zip(compiled, plain, exact, strict=True):
        assert one.dtype == other.dtype
        size = float(true.abs().max().clamp_min(1e-3)) if true.numel() else 1.0
        torch.testing.assert_close(one.double(), true, rtol=0, atol=BOUND[dtype] * size)
        torch.testing.assert_close(one, other, rtol=0, atol=2 * BOUND[dtype] * size)


@needs_compiler
@both
@pytest.mark.parametrize("shape", [(3, 5, 37), (1, 1, 1), (0, 16), (4, 384)], ids=str)
def test_norm(monkeypatch, dtype, shape):
    norm = RMSNorm(shape[-1], 1e-6)

    def apply(x, weight):
        norm.weight = torch.nn.Parameter(weight.detach())
        norm.__dict__["weight"] = weight  # a tensor that is no leaf keeps its gradient visible
        del norm._parameters["weight"]
        try:
            return norm(x)
        finally:
            del norm.__dict__["weight"]

    compare(monkeypatch, apply, [randn(*shape, dtype=dtype), 1 + 0.1 * randn(shape[-1], dtype=dtype, seed=1)], dtype)


@needs_compiler
@both
def test_norm_of_a_part_of_wider_rows(monkeypatch, dtype):
    norm = RMSNorm(5, 1e-6).to(dtype)
    compare(monkeypatch, lambda x: norm.to(x.dtype)(x.split((5, 3), -1)[0]), [randn(2, 4, 8, dtype=dtype)], dtype)
    compare(monkeypatch, lambda x: norm.to(x.dtype)(x.mT), [randn(2, 5, 4, dtype=dtype)], dtype)


@needs_compiler
@both
@pytest.mark.parametrize("shape", [(7, 38), (2, 3, 2), (0, 64)], ids=str)
def test_swiglu(monkeypatch, dtype, shape):
    compare(monkeypatch, swiglu, [3 * randn(*shape, dtype=dtype)], dtype)


@needs_compiler
@both
def test_swiglu_far_out(monkeypatch, dtype):
    gate = torch.tensor([-200.0, -90.0, -80.0, 0.0, 80.0, 90.0, 200.0])
    compare(monkeypatch, swiglu, [torch.cat((gate, torch.ones(7)))[None].to(dtype)], dtype)


@needs_compiler
@both
@pytest.mark.parametrize("rows", [1, 3])
def test_rotation(monkeypatch, small, dtype, rows):
    rotations = Rotary(small(qk_rope_head_dim=6))(torch.arange(5 * rows).view(rows, 5))
    x = randn(3, 5, 2, 10, dtype=dtype)
    compare(monkeypatch, lambda x: rotate(x[..., 4:], rotations), [x], dtype)
    compare(monkeypatch, lambda x: rotate(x[..., :6], rotations), [x], dtype)


@needs_compiler
@both
@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("tokens", [0, 1, 700])
def test_cross_entropy(monkeypatch, dtype, offsets, tokens):
    targets = torch.randint(53, (tokens,), generator=torch.Generator().manual_seed(3))
    targets[::4] = IGNORED
    added = randn(53, dtype=dtype, seed=4)
    added[-3:] = -torch.inf
    targets[targets >= 50] = 0

    def apply(hidden, head):
        return cross_entropy(hidden, head, targets, 0.01, added.to(hidden.dtype) if offsets else None)

    compare(monkeypatch, apply, [randn(tokens, 24, dtype=dtype), randn(53, 24, dtype=dtype, seed=1)], dtype)


@needs_compiler
@both
@pytest.mark.parametrize("tokens", [1, 6, 2 * FEWEST + 5])
def test_dispatch_with_an_expert_nobody_chose(monkeypatch, dtype, tokens):
    chosen = torch.rand(tokens, 4, generator=torch.Generator().manual_seed(0)).argsort(-1)[:, :2]
    weights = torch.rand(tokens, 2, generator=torch.Generator().manual_seed(1))

    def apply(x, weights):
        dispatcher = LocalDispatcher()
        rows, route = dispatcher.dispatch(x, weights, chosen, 5)
        assert route.counts_E[-1] == 0
        weights = weights if x.dtype == torch.float64 else weights.float()
        return dispatcher.combine(rows * rows, route)

    compare(monkeypatch, apply, [randn(tokens, 19, dtype=dtype), weights], dtype)


@needs_compiler
@both
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 5), (300, 300), (3, 40)], ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_attention(monkeypatch, dtype, queries, keys, masked):
    mask = None
    if masked:
        documents = torch.arange(keys).div(7, rounding_mode="floor").expand(2, -1)
        mask = Documents(documents).whole(torch.float32)[:, keys - queries :]
    inputs = [randn(2, 3, n, d, dtype=dtype, seed=n + d) for n, d in ((queries, 8), (keys, 8), (keys, 6))]
    compare(monkeypatch, lambda q, k, v: attend(q, k, v, mask, 0.4), inputs, dtype)


@needs_compiler
def test_float64_takes_the_reference():
    assert not library.usable(torch.zeros(1, dtype=torch.float64))
    assert not library.usable(torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16))


@needs_compiler
def test_what_is_no_number_stays_none():
    x = torch.full((1, 4), torch.nan).requires_grad_()
    for y in (swiglu(x), RMSNorm(4, 1e-6)(x)):
        assert y.isnan().all()


def test_without_a_compiler_one_line_is_said(tmp_path, capsys):
    assert library.build(library.SOURCE, tmp_path, ("no-such-compiler",)) is None
    assert "no C++ compiler (no-such-compiler)" in capsys.readouterr().err


@needs_compiler
def test_a_source_that_does_not_compile_is_told_in_one_line(tmp_path, capsys):
    source = tmp_path / "kernels.cpp"
    source.write_text("this is no C++\n")
    assert library.build(source, tmp_path / "cache") is None
    assert capsys.readouterr().err.count("\n") == 1
    assert not list((tmp_path / "cache").glob("*"))


@needs_compiler
def test_it_is_built_once_and_two_processes_may_build_at_once(tmp_path, capsys):
    script = (
        "import sys; from pathlib import Path; from yatsude.model.native import library;"
        "print(library.build(library.SOURCE, Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {builder.communicate()[0].strip() for builder in builders}
    assert paths == {str(library.build(library.SOURCE, tmp_path))}
    assert "compiled" not in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1
