import json
import shutil

import pytest
import torch

from yatsude.checkpoint import streamed
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.vocabulary import Extended, rows_for
from yatsude.errors import CheckpointError


@pytest.fixture
def longer(tokenizer, tmp_path):
    """The same tokenizer with two merged tokens more, of two and of three bytes."""
    folder = tmp_path / "longer"
    shutil.copytree(tokenizer, folder)
    page = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = page["model"]["vocab"]
    vocabulary |= {"ab": len(vocabulary), "abc": len(vocabulary) + 1}
    page["model"]["merges"] = [["a", "b"], ["ab", "c"]]
    (folder / "tokenizer.json").write_text(json.dumps(page))
    return folder


def test_known_tokens_keep_their_rows_and_new_ones_are_a_mean(build, tokenizer, longer):
    model = build()
    rows = rows_for(tokenizer, longer, model.config.vocab_size)
    assert len(rows) == 264
    assert [len(pieces) for pieces in rows[-3:]] == [1, 2, 3]
    extended = Extended(InMemory(model), rows)
    assert extended.config.vocab_size == 264
    for name, table in (("model.embed_tokens.weight", model.embed_tokens), ("lm_head.weight", model.lm_head)):
        old = table.weight
        new = extended.read(name)
        assert torch.equal(new[:262], old[:262].detach())
        a, b, c = (rows[-1][i] for i in range(3))
        torch.testing.assert_close(new[262], (old[a] + old[b]).detach() / 2)
        torch.testing.assert_close(new[263], (old[a] + old[b] + old[c]).detach() / 3)
        assert torch.equal(extended.read(name, (100, 263)), new[100:263])


def test_scores_of_known_tokens_do_not_change(build, tokenizer, longer):
    source = InMemory(build())
    extended = Extended(source, rows_for(tokenizer, longer, 300))
    tokens = torch.randint(262, (2, 16), generator=torch.Generator().manual_seed(0))
    ours, before = streamed.logits(extended, tokens), streamed.logits(source, tokens)
    torch.testing.assert_close(ours[..., :262], before[..., :262], rtol=0, atol=1e-6)


def test_tokens_may_come_in_another_order(build, tokenizer, tmp_path):
    model, other = build(), tmp_path / "other"
    shutil.copytree(tokenizer, other)
    page = json.loads((other / "tokenizer.json").read_text())
    words = list(page["model"]["vocab"])
    page["model"]["vocab"] = {word: number for number, word in enumerate([*words[:6], *reversed(words[6:])])}
    (other / "tokenizer.json").write_text(json.dumps(page))
    rows = rows_for(tokenizer, other, 300)
    assert rows[6:] == [(number,) for number in range(261, 5, -1)]
    assert torch.equal(Extended(InMemory(model), rows).read("lm_head.weight")[6], model.lm_head.weight[261].detach())


def test_folders_that_do_not_belong_together_are_named(tokenizer, longer, tmp_path):
    with pytest.raises(CheckpointError, match="token 261, the model 200 rows"):
        rows_for(tokenizer, longer, 200)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        rows_for(tokenizer, tmp_path, 300)
    (longer / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        rows_for(tokenizer, longer, 300)
