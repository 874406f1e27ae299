import contextlib
import dataclasses
import string
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yatsude import recipe
from yatsude.errors import RecipeError
from yatsude.train.settings import TrainSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.1
    on: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    steps: int = 10
    name: str = "plain"
    rate: float = 1e-3
    sources: tuple[str, ...] = ()
    limit: int | None = None
    inner: Inner = dataclasses.field(default_factory=Inner)


SECTIONS = {"train": Settings, "other": Inner}
ANY = settings(deadline=None)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"))
NUMBERS = st.floats(allow_nan=False)
INNER = st.builds(Inner, rate=NUMBERS, on=st.booleans())
SETTINGS = st.builds(
    Settings,
    steps=st.integers(-(2**63), 2**63 - 1),
    name=TEXT,
    rate=NUMBERS,
    sources=st.lists(TEXT, max_size=3).map(tuple),
    limit=st.none() | st.integers(0, 9),
    inner=INNER,
)


@ANY
@given(SETTINGS, INNER)
def test_what_is_written_reads_back_the_same(tmp_path_factory, given_settings, other):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    digest = recipe.write(path, {"train": given_settings, "other": other})
    tables = recipe.read(path)
    back = {name: recipe.resolve(tables, SECTIONS, name, kind) for name, kind in SECTIONS.items()}
    assert back == {"train": given_settings, "other": other}
    assert recipe.digest(back) == digest


def test_the_digest_follows_the_values_and_not_their_order():
    one, other = Settings(steps=1), Inner()
    assert recipe.digest({"a": one, "b": other}) == recipe.digest({"b": other, "a": one})
    assert recipe.digest({"a": one}) != recipe.digest({"a": Settings(steps=2)})


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("train.steps=5", 5),
        ("train.steps = 5 ", 5),
        ("train.steps=true", True),
        ("train.steps=[1, 2]", [1, 2]),
        ('train.steps="5"', "5"),
        ("train.steps=tiny", "tiny"),
        ("train.steps=file:a=b.txt", "file:a=b.txt"),
        ("train.steps=", ""),
        ("train.steps=日本語", "日本語"),
    ],
)
def test_a_setting_on_the_command_line(item, value):
    assert recipe.read(None, [item]) == {"train": {"steps": value}}


def test_the_command_line_lies_over_the_file_and_the_last_wins(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text("[train]\nsteps = 1\nname = 'x'\n")
    tables = recipe.read(path, ["train.steps=2", "train.steps=3", "other.on=false"])
    assert tables == {"train": {"steps": 3, "name": "x"}, "other": {"on": False}}


def test_a_setting_reaches_into_nested_tables():
    tables = recipe.read(None, ["train.inner.rate=0.5", "train.steps=3"])
    assert recipe.resolve(tables, SECTIONS, "train", Settings) == Settings(steps=3, inner=Inner(rate=0.5))
    with pytest.raises(RecipeError, match="'steps' is a value in the recipe, not a table"):
        recipe.read(None, ["train.steps=3", "train.steps.more=3"])


@ANY
@given(st.text(string.printable))
def test_any_setting_is_understood_or_refused(item):
    with contextlib.suppress(RecipeError):
        assert recipe.read(None, [item])


@ANY
@given(st.text(string.ascii_letters + "[]=.'\"\n# 0"))
def test_any_file_is_understood_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(content)
    with contextlib.suppress(RecipeError):
        assert recipe.resolve(recipe.read(path), SECTIONS, "train", Settings)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train": {"stepps": 1}}, r"unknown key 'stepps' in \[train\]; did you mean 'steps'\?"),
        ({"train": {"zzz": 1}}, "known: steps, "),
        ({"trian": {}}, r"unknown table \[trian\] in the recipe; did you mean 'train'\?"),
        ({"train": {"steps": "many"}}, r"train\.steps = 'many': .*integer"),
        ({"train": {"inner": {"rate": []}}}, r"train\.inner\.rate = \[\]"),
    ],
)
def test_what_is_unknown_or_impossible_is_named(tables, message):
    with pytest.raises(RecipeError, match=message):
        recipe.resolve(tables, SECTIONS, "train", Settings)


def test_an_unknown_key_of_a_nested_table_is_refused():
    with pytest.raises(RecipeError, match=r"unknown key 'raet' in \[train.inner\]; did you mean 'rate'\?"):
        recipe.resolve({"train": {"inner": {"raet": 0.5}}}, SECTIONS, "train", Settings)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="no recipe at"):
        recipe.read(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    for content, message in (
        (b"[train", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"steps = 1", "'steps' stands"),
    ):
        bad.write_bytes(content)
        with pytest.raises(RecipeError, match=message):
            recipe.read(bad)


def test_a_secret_stays_out_of_the_written_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "hidden")
    settings = Settings(name="${env:A_KEY}")
    recipe.write(tmp_path / "r.toml", {"train": settings})
    assert "hidden" not in (tmp_path / "r.toml").read_text()
    assert recipe.secret(settings.name) == "hidden"
    assert recipe.secret("plain ${env:A_KEY}") == "plain ${env:A_KEY}"
    monkeypatch.delenv("A_KEY")
    with pytest.raises(RecipeError, match="A_KEY is not set"):
        recipe.secret(settings.name)


def test_the_written_recipe_is_plain_toml(tmp_path):
    recipe.write(tmp_path / "r.toml", {"train": Settings(sources=("a", "b"))})
    page = tomllib.loads((tmp_path / "r.toml").read_text())
    assert page["train"] == {
        "steps": 10, "name": "plain", "rate": 0.001, "sources": ["a", "b"], "inner": {"rate": 0.1, "on": True}
    }  # fmt: skip


def test_a_number_that_is_none_is_named():
    tables = {"train": {"optimizer": {"rate": float("nan")}}}
    with pytest.raises(RecipeError, match=r"train\.optimizer\.rate = nan: expected a number"):
        recipe.resolve(tables, {"train": TrainSettings}, "train", TrainSettings)
