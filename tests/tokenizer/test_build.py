import numpy as np
import pytest

from yatsude import manifest, shards
from yatsude.errors import DataError
from yatsude.tokenizer import corpus
from yatsude.tokenizer.build import build
from yatsude.tokenizer.pack import domains
from yatsude.tokenizer.settings import TokenizerSettings
from yatsude.tokenizer.special import Special
from yatsude.tokenizer.tokenizer import Tokenizer
from yatsude.tokenizer.train import train

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [(f"これは{n}番目の文です。", "sentences", f"This is sentence {n}.") for n in range(60)] + [
    (f"マニュアル{n}\n\n書式", "manuals", None) for n in range(20)
]
SETTINGS = TokenizerSettings(vocab_size=300)


def write_split(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    names = ("text", "domain", "english")
    table = pa.table({name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)})
    pq.write_table(table, folder / "part-00000.parquet")


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    write_split(folder / "train", ROWS)
    write_split(folder / "validation", [("最後の文です。", "sentences", None), ("", "manuals", None)])
    write_split(folder / "held_out", [("まだ誰も見ていない文。", "sentences", None)])
    licence = manifest.Licence(source="mine", licence="CC0-1.0", attribution="nobody")
    manifest.write(folder, "data", licences=[licence])
    return folder


def test_build_packs_every_text_in_order(data, tmp_path):
    out = tmp_path / "tokenizer"
    summary = build(SETTINGS, data, out)
    tokenizer = Tokenizer.load(out)
    train = shards.Shards(out / "train")
    assert summary.train_tokens == train.tokens
    assert summary.vocab_size == train.vocab_size == tokenizer.vocab_size
    documents = list(train.documents())
    assert [tokenizer.decode(ids) for ids in documents] == [text for text, _, _ in ROWS]
    assert train.characters.tolist() == [len(text) for text, _, _ in ROWS]
    assert all(ids[0] == ids[-1] == tokenizer.text for ids in documents)
    names, places = domains(out / "train")
    assert [names[place] for place in places] == [domain for _, domain, _ in ROWS]
    assert places.dtype == np.uint8


def test_manifest_carries_licences_and_figures(data, tmp_path):
    out = tmp_path / "tokenizer"
    summary = build(SETTINGS, data, out)
    page = manifest.read(out, "tokenizer")
    manifest.check(out, page)
    assert [licence.source for licence in page.licences] == ["mine"]
    assert {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "recipe.toml",
        "train/tokens-00000.bin",
        "validation/domains.npy",
        "held_out/domains.npy",
    } <= page.files.keys()
    tokens = len(Tokenizer.load(out).encode("最後の文です。"))
    assert summary.characters_per_token == pytest.approx(7 / tokens)
    assert page.counts["characters_per_token.sentences"] == pytest.approx(7 / tokens, abs=1e-4)
    assert (page.counts["validation_documents"], page.counts["held_out_documents"]) == (2, 1)
    for split, count in (("validation", summary.validation_tokens), ("held_out", summary.held_out_tokens)):
        assert page.counts[f"{split}_tokens"] == count == shards.Shards(out / split).tokens


def test_a_models_tokenizer_is_taken_as_it_is(data, tmp_path):
    """A base that puts a token in front of a text has it in the shards too, and all its files go along."""
    own = Tokenizer(train(["猫"] * 9, SETTINGS))
    special = Special(bos="<|user|>", eos="<|end|>", pad=None, template=None)
    Tokenizer(own.commands, special).save(tmp_path / "base")
    (tmp_path / "base" / "special_tokens_map.json").write_text("{}")
    build(TokenizerSettings(base=str(tmp_path / "base")), data, tmp_path / "out")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "base" / name).read_bytes()
    tokenizer, packed = Tokenizer.load(tmp_path / "out"), shards.Shards(tmp_path / "out" / "train")
    first = next(iter(packed.documents()))
    assert [*first[:2], first[-1]] == [tokenizer.text, *tokenizer.opening, tokenizer.text]
    assert tokenizer.decode(first[2:-1]) == ROWS[0][0]
    licences = manifest.read(tmp_path / "out", "tokenizer").licences
    assert [licence.source for licence in licences] == ["mine", "tokenizer:base"]


def test_english_is_learned_but_not_packed(data, tmp_path):
    build(TokenizerSettings(vocab_size=400, english_share=0.5), data, tmp_path / "out")
    tokenizer = Tokenizer.load(tmp_path / "out")
    assert len(tokenizer.encode("This is sentence")) <= 4
    text = "".join(tokenizer.decode(ids) for ids in shards.Shards(tmp_path / "out" / "train").documents())
    assert "This" not in text


def test_sample_takes_an_even_share(data):
    assert corpus.count(data, "train", "english") == (60, sum(len(row[2] or "") for row in ROWS))
    total = corpus.count(data, "train")[1]
    part = list(corpus.sample(data, "text", total / 4))
    assert part == [text for text, _, _ in ROWS][3::4]
    assert len(list(corpus.sample(data, "text", 10 * total))) == len(ROWS)
    assert list(corpus.sample(data, "absent", 100)) == []


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_a_folder_without_one_of_the_splits_is_refused_at_once_and_leaves_the_old(data, tmp_path, capsys, split):
    out = tmp_path / "tokenizer"
    build(SETTINGS, data, out)
    before = (out / "manifest.json").read_bytes()
    for file in (data / split).iterdir():
        file.unlink()
    capsys.readouterr()
    with pytest.raises(DataError, match=rf"no Parquet files in .*{split}; run 'yatsude data' again"):
        build(SETTINGS, data, out)
    assert capsys.readouterr().err == ""
    assert (out / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "tokenizer"]


def test_damaged_parquet_is_named(data, tmp_path):
    (data / "train" / "part-00000.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"part-00000\.parquet cannot be read"):
        build(SETTINGS, data, tmp_path / "out")


def test_a_missing_column_is_named(data, tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), data / "train" / "part-00000.parquet")
    with pytest.raises(DataError, match="no column 'domain'"):
        build(SETTINGS, data, tmp_path / "out")


def test_a_folder_of_another_stage_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no manifest\.json"):
        build(SETTINGS, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content"),
    [("domains.json", b"["), ("domains.json", b"\xff"), ("domains.npy", b""), ("domains.npy", b"x")],
)
def test_damaged_domains_are_one_line(tmp_path, name, content):
    (tmp_path / "domains.json").write_text("[]")
    np.save(tmp_path / "domains.npy", np.zeros(1, np.uint8))
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"are damaged .*run 'yatsude tokenizer' again"):
        domains(tmp_path)


def test_domains_of_an_unpacked_folder(tmp_path):
    with pytest.raises(DataError, match=r"domains\.json is missing"):
        domains(tmp_path)
