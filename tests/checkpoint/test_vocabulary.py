import dataclasses
import json
import shutil

import pytest
import tokenizers
import torch

from yatsude.checkpoint import hf, streamed
from yatsude.checkpoint.export import Origin, export
from yatsude.checkpoint.folder import Folder
from yatsude.checkpoint.hf import InMemory
from yatsude.checkpoint.settings import ExportSettings
from yatsude.checkpoint.vocabulary import Extended, ids_for, rows_for
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


def test_a_part_of_a_character_begins_with_its_bytes(tokenizer, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tokenizer, other)
    page = json.loads((other / "tokenizer.json").read_text())
    first, second = "çĮ"  # the first two of the three bytes of 猫
    page["model"]["vocab"][first + second] = 262
    page["model"]["merges"] = [[first, second]]
    (other / "tokenizer.json").write_text(json.dumps(page))
    known = page["model"]["vocab"]
    assert rows_for(tokenizer, other, 300)[262] == (known[first], known[second])


def test_a_token_within_a_word_does_not_begin_with_a_space(tmp_path):
    """SentencePiece's spelling: "▁" is a space, which an encoded text would begin with."""
    words = ["<unk>", "▁", "f", "o", "x"]
    for folder, more in (("old", {}), ("new", {"fo": 5, "▁f": 6})):
        merges = [("f", "o"), ("▁", "f")] if more else []
        vocabulary = {word: number for number, word in enumerate(words)} | more
        backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, unk_token="<unk>"))
        backend.normalizer = tokenizers.normalizers.Prepend("▁")
        backend.decoder = tokenizers.decoders.Metaspace()
        (tmp_path / folder).mkdir()
        backend.save(str(tmp_path / folder / "tokenizer.json"))
    assert rows_for(tmp_path / "old", tmp_path / "new", 5)[5:] == [(2, 3), (1, 2)]


def test_ends_of_a_generation_config_move_too(model, tokenizer, longer, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    hf.write(model, base, torch.float32, 10**9)
    shutil.copyfile(tokenizer / "tokenizer.json", base / "tokenizer.json")
    (base / "LICENSE").write_text("Theirs.")
    (base / "generation_config.json").write_text('{"eos_token_id": [0, 2, 3], "top_k": 5}')
    page = json.loads((longer / "tokenizer.json").read_text())
    words = list(page["model"]["vocab"])
    order = {word: number for number, word in enumerate(reversed(words))}
    page["model"]["vocab"] = order
    for token in page["added_tokens"]:
        token["id"] = order[token["content"]]
    (longer / "tokenizer.json").write_text(json.dumps(page))
    source = Extended(Folder(base), rows_for(base, longer, 300), ids_for(base, longer, vars(model.config)))
    origin = Origin(models=(base,), tokenizer=longer, stage="extend")
    export(source, tmp_path / "out", ExportSettings(dtype="float32"), origin)
    said = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert said == {"eos_token_id": [order[words[n]] for n in (0, 2, 3)], "top_k": 5}


def test_ids_of_special_tokens_move_with_them(model, tokenizer, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tokenizer, other)
    page = json.loads((other / "tokenizer.json").read_text())
    words = list(page["model"]["vocab"])
    moved = {word: number for number, word in enumerate([words[2], words[0], words[1], *words[3:]])}
    page["model"]["vocab"] = moved
    for token in page["added_tokens"]:
        token["id"] = moved[token["content"]]
    (other / "tokenizer.json").write_text(json.dumps(page))
    config = dataclasses.replace(model.config, bos_token_id=0, eos_token_id=(0, 2), pad_token_id=1)
    assert ids_for(tokenizer, other, vars(config)) == {"bos_token_id": 1, "eos_token_id": (1, 0), "pad_token_id": 2}
    page["model"]["vocab"].pop(words[2])
    page["added_tokens"] = [token for token in page["added_tokens"] if token["content"] != words[2]]
    page["model"]["vocab"]["zz"] = 0
    (other / "tokenizer.json").write_text(json.dumps(page))
    with pytest.raises(CheckpointError, match=r"lacks '<\|end\|>', the model's eos_token_id"):
        ids_for(tokenizer, other, vars(config))


def test_folders_that_do_not_belong_together_are_named(tokenizer, longer, tmp_path):
    with pytest.raises(CheckpointError, match="token 261, the model 200 rows"):
        rows_for(tokenizer, longer, 200)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        rows_for(tokenizer, tmp_path, 300)
    (longer / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        rows_for(tokenizer, longer, 300)
