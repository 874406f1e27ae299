import json

import numpy as np
import pytest
import torch

from yatsude.checkpoint import hf
from yatsude.evaluate import board
from yatsude.evaluate.heldout import parts
from yatsude.evaluate.information import against_chance
from yatsude.evaluate.results import ExpertLoad
from yatsude.evaluate.router import lift, measure
from yatsude.evaluate.router_page import section
from yatsude.model.init import initialise
from yatsude.model.router_stats import layer_loads, percentiles
from yatsude.model.transformer import Transformer
from yatsude.report.page import Page
from yatsude.spec.presets import preset
from yatsude.tokenizer.tokenizer import Tokenizer

LITTLE = {"window": 32, "tokens": 512, "shuffles": 39, "seed": 0}


@pytest.fixture
def model(home):
    return hf.load(home / "train" / "model", torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer(home):
    return Tokenizer.load(home / "tokenizer")


def held_out(home, documents=None):
    return {name: part.documents() for name, part in parts(home / "tokenizer" / "held_out", documents).items()}


def test_every_token_is_counted_once_and_no_padding(home, model, tokenizer):
    found = measure(model, tokenizer, held_out(home), **{**LITTLE, "tokens": 128})
    assert found.tokens == 2 * 64
    assert len(found.all) == len(model.routers) == len(found.layers) == len(found.by_kind.layers)
    assert all(sum(layer) == pytest.approx(8) for layer in found.all)
    for layer, mean in enumerate(found.all):
        both = [found.kinds[kind][layer] for kind in found.kinds]
        assert mean == pytest.approx([sum(loads) / 2 for loads in zip(*both, strict=True)])
        assert found.layers[layer].busiest == pytest.approx(max(mean))
        assert found.layers[layer].bias_range == 0


def test_less_text_than_a_window(home, model, tokenizer):
    size = len(next(iter(held_out(home, 1)["dialogue"]))) - 1
    found = measure(model, tokenizer, held_out(home, 1), **{**LITTLE, "window": 512})
    assert found.tokens == size
    assert (found.by_kind, found.by_style, found.specialists) == (None, None, ())


def test_lift_is_load_over_the_mean_of_the_kinds():
    found = lift({"law": [[2.0, 1.0, 1.0, 0.0]], "talk": [[0.0, 3.0, 1.0, 0.0]]})
    assert found == {"law": [[2.0, 0.5, 1.0, 1.0]], "talk": [[0.0, 1.5, 1.0, 1.0]]}


def planted(tokenizer, expert=5):
    """A model that sends a word to one expert, in texts that are otherwise alike; no token looks at another."""
    model = Transformer(preset("pico", vocab_size=tokenizer.vocab_size, num_hidden_layers=2)).eval()
    initialise(model, 0)
    token = next(number for number in range(20, tokenizer.vocab_size) if tokenizer.decode([number]).strip())
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.o_proj.weight.zero_()
        model.embed_tokens.weight[:, 0] = -1
        model.embed_tokens.weight[token, 0] = 1
        model.routers[0].weight[expert] = torch.eye(model.config.hidden_size)[0]
    generator = np.random.default_rng(0)
    words = generator.integers(20, tokenizer.vocab_size, (24, 64))
    words[words == token] = 20
    words[:12, ::3] = token
    rows = [np.array([tokenizer.text, *row, tokenizer.text]) for row in words]
    return model, {"law": rows[:12], "talk": rows[12:]}, tokenizer.decode([token])


def test_an_expert_planted_for_a_kind_is_on_the_board(tokenizer):
    model, kinds, word = planted(tokenizer)
    found = measure(model, tokenizer, kinds, window=64, tokens=4096, shuffles=99, seed=0)
    assert found.by_kind.mean.p == 0.01
    assert found.by_kind_given_token.mean.bits == pytest.approx(0)
    mine = next(special for special in found.specialists if special.expert == 6)
    assert (mine.layer, mine.kind) == (1, "law")
    assert mine.lift == pytest.approx(2)
    assert word
    assert mine.tokens[0] == word
    assert [s.bits for s in found.specialists] == sorted((s.bits for s in found.specialists), reverse=True)
    assert sum(s.bits for s in found.specialists) == pytest.approx(found.by_kind.layers[0].bits)  # all eight experts


def test_style_is_compared_within_a_kind(home, model, tokenizer):
    def kind(*sentences):
        return [np.array([tokenizer.text, *tokenizer.encode(s * 4), tokenizer.text]) for s in sentences * 8]

    kinds = {"talk": kind("明日行きます。", "明日行くのだ。"), "law": kind("第一条である。")}
    found = measure(model, tokenizer, kinds, **{**LITTLE, "tokens": 1024})
    assert found.by_style.units.keys() == {"polite", "plain"}
    assert found.styles.keys() == {"polite", "plain"}
    units = found.by_kind.units
    assert sum(found.by_style.units.values()) == units["talk"]  # law has one style only
    assert all(sum(layer) == pytest.approx(8) for table in found.styles.values() for layer in table)


def test_the_board_as_lines_and_words(home, model, tokenizer, tmp_path):
    found = measure(model, tokenizer, held_out(home), **LITTLE)
    board.write(tmp_path / "router.jsonl", found)
    lines = [json.loads(line) for line in (tmp_path / "router.jsonl").read_text("utf-8").splitlines()]
    loads = {(line["text"], line["layer"]): line for line in lines if line["figure"] == "load"}
    assert loads.keys() == {(text, layer) for text in ("all", "dialogue", "technical") for layer in (1, 2)}
    assert loads["all", 2]["load"] == pytest.approx(found.all[1], abs=1e-6)
    assert loads["all", 2]["busiest"] == pytest.approx(found.layers[1].busiest, abs=1e-6)
    assert len(loads["dialogue", 1]["lift"]) == 8
    told = [line for line in lines if line["figure"] == "information"]
    assert [line["layer"] for line in told if line["about"] == "kind"] == [1, 2, None]
    assert told[0].keys() >= {"bits", "chance", "chance_95", "p", "most", "units", "shuffles"}
    assert {line["of"] for line in lines if line["figure"] == "percentiles"} >= {"busiest", "entropy", "bias_range"}
    assert sum(line["figure"] == "specialist" for line in lines) == len(found.specialists)
    words = board.screen(found)
    assert "busiest" in words
    assert "the kind of text" in words
    assert "Nothing to compare for polite or plain style" in words  # each kind here has one style


def test_a_model_without_experts_says_so(home, tokenizer, tmp_path):
    dense = Transformer(preset("pico", vocab_size=tokenizer.vocab_size, num_hidden_layers=1)).eval()
    initialise(dense, 0)
    found = measure(dense, tokenizer, held_out(home), **LITTLE)
    assert board.screen(found) == "this model has no mixture layer"
    assert [line["figure"] for line in board.lines(found)] == []
    page = Page("x")
    section(page, found)
    assert "no mixture layer" in page.html()


def test_the_page_has_a_picture_of_every_kind_and_says_what_chance_says(home, model, tokenizer):
    found = measure(model, tokenizer, held_out(home), **LITTLE)
    page = Page("x")
    section(page, found)
    html = page.html()
    assert html.count("<svg") == 1 + 2 + 2  # load, information of all tokens and token by token, two kinds
    assert f"p = {found.by_kind.mean.p:.3f}" in html
    assert "beyond chance" in html
    assert "比べられません" in html


def test_a_deep_model_is_shown_by_its_percentiles():
    generator = np.random.default_rng(0)
    counts = generator.multinomial(4000, np.full(64, 1 / 64), (8, 30))
    names = ["law", "talk"] * 4
    shares = {name: counts[n::2].sum(0) / counts[n::2].sum((0, 2))[:, None] for n, name in enumerate(names[:2])}
    loads = {name: (64 * table).tolist() for name, table in shares.items()}
    both = np.mean(list(loads.values()), axis=0)
    layers = layer_loads(torch.from_numpy(both))
    found = ExpertLoad(
        all=both.tolist(),
        kinds=loads,
        styles={},
        layers=layers,
        percentiles=percentiles(layers),
        by_kind=against_chance(counts, names, [""] * 8, shuffles=19, seed=0),
        by_kind_given_token=None,
        by_style=None,
        specialists=(),
        tokens=4000,
    )
    words = board.screen(found)
    assert [line.split()[0] for line in words.splitlines()[1:4]] == ["p10", "p50", "p90"]
    assert len(words) < 1500
    page = Page("x")
    section(page, found)
    assert "<td>層 1</td>" not in page.html()
    assert "90 %" in page.html()
    assert len(page.html()) < 400_000
    assert sum(1 for _ in board.lines(found)) == 30 + 60 + 5 - 1 + 31
