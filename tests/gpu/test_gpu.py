"""On a GPU the model computes what it does on a CPU, and learns the same."""

import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.checkpoint.write import Precision, write
from yatsude.engine.cache import Memory
from yatsude.model.documents import Documents
from yatsude.model.experts import grouped_product, grouped_product_reference
from yatsude.model.init import initialise
from yatsude.model.loss import cross_entropy
from yatsude.model.transformer import Transformer
from yatsude.spec.layout import in_layout
from yatsude.spec.presets import preset

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
LAYOUTS = ("deepseek_v3", "glm4_moe", "mixtral", "qwen3_moe", "llama")


def model_of(layout, **changes):
    base = preset("nano", vocab_size=512, num_nextn_predict_layers=1 if layout in LAYOUTS[:2] else 0)
    model = Transformer(in_layout(base, layout, **changes))
    initialise(model, 0)
    torch.nn.init.normal_(model.lm_head.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return model


def rows(length=96):
    tokens = torch.randint(512, (3, length), generator=torch.Generator().manual_seed(1))
    documents = (torch.rand(3, length, generator=torch.Generator().manual_seed(2)) < 0.05).cumsum(1)
    return tokens, documents


def gradients(model, device):
    model = model.to(device)
    tokens, documents = (part.to(device) for part in rows())
    hidden = model(tokens, mask=Documents(documents))
    loss = cross_entropy(hidden[:, :-1].flatten(0, 1), model.lm_head.weight, tokens[:, 1:].flatten(), 1e-2)
    loss.backward()
    return loss.item(), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradients_are_those_of_the_cpu(layout):
    ours, grads = gradients(model_of(layout), "cuda")
    expected, wanted = gradients(model_of(layout), "cpu")
    assert ours == pytest.approx(expected, rel=1e-4)
    assert grads.keys() == wanted.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, wanted[name], rtol=0, atol=2e-3 * wanted[name].abs().max().item(), msg=name)


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_gives_what_the_whole_text_gives(layout):
    model = model_of(layout).cuda().eval()
    tokens = rows(40)[0].cuda()
    whole = model(tokens)
    memory = Memory(model.config, rows=3, tokens=64, dtype=torch.float32, device=torch.device("cuda"))
    parts = []
    for start, end in ((0, 30), (30, 31), (31, 40)):
        window = memory.window(0, 3, end - start)
        part = model(tokens[:, start:end], positions_BT=window.positions_BT, mask=window.mask_BTS, cache=window)
        window.commit()
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=2e-3)


@pytest.mark.parametrize("counts", [[7, 0, 33, 88], [128, 0, 0, 0], [32, 32, 32, 32]])
def test_the_grouped_product_is_the_plain_one(counts):
    x = torch.randn(128, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(4, 48, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    counts_E = torch.tensor(counts, device="cuda")
    found = []
    for product in (grouped_product, grouped_product_reference):
        y = product(x, weight, counts_E)
        found.append([y, *torch.autograd.grad(y.float().square().sum(), (x, weight))])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=2e-2, atol=2e-2 * plain.abs().max().item())


@torch.no_grad()
def test_fp8_from_disk_runs(tmp_path):
    model = model_of("deepseek_v3")
    write(hf.InMemory(model), tmp_path, Precision(torch.float8_e4m3fn), 10**9)
    loaded = hf.load(tmp_path, torch.bfloat16)
    tokens = rows()[0]
    on_cpu = loaded.float()(tokens)
    on_gpu = loaded.cuda()(tokens.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=5e-2)


def test_a_compiled_model_computes_the_same():
    model = model_of("deepseek_v3").cuda()
    tokens = rows()[0].cuda()
    with torch.no_grad():
        plain = model(tokens)
        torch.testing.assert_close(torch.compile(model)(tokens), plain, rtol=0, atol=2e-3)
