"""What the pages promise: commands that exist, links that lead somewhere, recipes that are understood."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from yatsude import recipe
from yatsude.cli import options
from yatsude.cli.main import VERBS, application

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.ja.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
PLACEHOLDERS = re.compile(r"[A-Z_]{3,}|…|\.\.\.")


def named(paths):
    return {"argvalues": paths, "ids": [str(path.relative_to(ROOT)) for path in paths]}


def commands(page):
    """Command lines of a text: indented or fenced lines that begin with `yatsude`, and those in backquotes."""
    fenced = re.findall(r"^(?:    |\$ )?(yatsude [^`\n]*)$", page, re.MULTILINE)
    quoted = re.findall(r"`\$? ?(yatsude [^`\n]*)`", page)
    return [line.split("  #")[0].split(" | ")[0].strip() for line in (*fenced, *quoted)]


def known():
    """Verb -> its options, and those of the verbs below it."""
    group = typer.main.get_command(application())
    return {verb: options_of(command) for verb, command in group.commands.items()}


def options_of(command):
    below = getattr(command, "commands", {}).values()
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options_of, below))


def mistakes(line, verbs):
    """What is wrong with a command line, in words."""
    words = shlex.split(line.rstrip("\\"))[1:]
    if words[0] in ("--version", "--help") or PLACEHOLDERS.fullmatch(words[0]):
        return []
    if words[0] not in verbs:
        return [f"no verb {words[0]}"]
    given = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    found = [f"{words[0]} has no option {name}" for name in given if name not in verbs[words[0]] | {"--help"}]
    settings = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("--set", "-s")]
    return found + [f"unknown setting {item}" for item in settings if not is_key(item)]


def is_key(item):
    table, _, key = item.partition("=")[0].partition(".")
    kind = options.SECTIONS.get(table)
    return kind is not None and (key.split(".")[0] in kind.__dataclass_fields__ or bool(PLACEHOLDERS.match(key)))


@pytest.mark.parametrize("page", **named(PAGES))
def test_every_command_of_a_page_exists(page):
    verbs = known()
    found = {line: wrong for line in commands(page.read_text("utf-8")) if (wrong := mistakes(line, verbs))}
    assert found == {}


def test_the_readmes_name_every_verb():
    for page in PAGES[:2]:
        seen = {line.split()[1] for line in commands(page.read_text("utf-8"))}
        assert set(VERBS) <= seen, page.name


def test_this_test_finds_mistakes():
    verbs = known()
    lines = commands(
        "    yatsude trian\n\nsee `yatsude train --out x` and\n\n    yatsude serve --set serve.prot=1  # a\n"
    )
    assert [mistakes(line, verbs) for line in lines] == [
        ["no verb trian"],
        ["unknown setting serve.prot=1"],
        ["train has no option --out"],
    ]


@pytest.mark.parametrize("page", **named(PAGES))
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    inner = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert [link for link in inner if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", **named(PAGES))
def test_every_source_file_a_page_names_is_there(page):
    files = re.findall(r"`((?:src|bench|recipes|docs|tests)/[\w./-]+\.\w+)`", page.read_text("utf-8"))
    assert [name for name in files if not (ROOT / name).exists()] == []


def test_the_house_in_the_readme_is_the_house():
    drawn = (ROOT / "README.md").read_text("utf-8").split("    src/yatsude/\n")[1].split("\n\n")[0]
    rooms = re.findall(r"^      (\w+)/ ", drawn, re.MULTILINE)
    folders = [path.name for path in (ROOT / "src" / "yatsude").iterdir() if (path / "__init__.py").exists()]
    assert sorted(rooms) == sorted(folders)
    floor = drawn.splitlines()[0].strip().split("   ")[0].split(", ")
    files = [p.stem for p in (ROOT / "src" / "yatsude").glob("*.py") if p.stem != "__init__"]
    assert sorted(floor) == sorted(files)


def test_every_page_of_the_docs_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [page.name for page in PAGES[2:] if f"(docs/{page.name})" not in text] == []


@pytest.mark.parametrize("path", **named(RECIPES))
def test_every_recipe_is_understood(path):
    tables = recipe.read(path)
    assert tables
    for name, kind in options.SECTIONS.items():
        recipe.resolve(tables, options.SECTIONS, name, kind)


@pytest.mark.parametrize("page", **named(PAGES))
def test_every_recipe_shown_on_a_page_is_understood(page, tmp_path):
    """TOML between backquotes or indented: from a table's name to the next empty line."""
    text = page.read_text("utf-8")
    tables = "|".join(options.SECTIONS)
    shown = re.findall(rf"^(?:    )?\[(?:{tables})[\w.]*\]\n(?:.+\n)*", text, re.MULTILINE)
    for number, block in enumerate(shown):
        path = tmp_path / f"{number}.toml"
        path.write_text("\n".join(line.strip() for line in block.split("```")[0].splitlines()), encoding="utf-8")
        options.Settings(path, None)


def test_the_recipes_are_all_told_in_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [path.name for path in RECIPES if f"(recipes/{path.name})" not in text] == []
