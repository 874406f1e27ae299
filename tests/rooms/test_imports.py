"""Which room may import which, read from the source; and what stays unloaded until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import yatsude

HOUSE = Path(yatsude.__file__).parent

EVERYBODY = {"errors", "files", "machine", "recipe", "manifest", "shards", "net", "progress"}
ARROWS = {
    "spec": set(),
    "text": set(),
    "report": set(),
    "data": {"text", "report"},
    "tokenizer": {"spec", "text"},
    "plan": {"spec", "report"},
    "gateway": {"spec", "text"},
    "documents": {"spec", "text", "report"},
    "model": {"spec"},
    "checkpoint": {"spec", "model"},
    "parallel": {"spec", "model"},
    "train": {"spec", "plan", "report", "model", "parallel", "checkpoint", "tokenizer"},
    "engine": {"spec", "tokenizer", "model", "parallel", "checkpoint"},
    "tune": {"spec", "tokenizer", "model", "parallel", "checkpoint", "train", "engine"},
    "evaluate": {"spec", "text", "report", "tokenizer", "documents", "model", "engine"},
    "serve": {"spec", "tokenizer", "engine"},
}
FLOOR = {
    "errors": set(),
    "files": {"errors"},
    "machine": set(),
    "progress": set(),
    "recipe": {"errors", "files"},
    "manifest": {"errors", "files"},
    "shards": {"errors", "files"},
    "net": {"errors", "files", "progress"},
}
LIGHT = ("spec", "text", "plan", "net", "machine", "recipe", "manifest", "shards", "files", "progress", "errors")
HEAVY = ("torch", "pyarrow", "matplotlib", "transformers", "safetensors", "tokenizers", "starlette")


def modules():
    """Module name below yatsude -> its file."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        parts = path.relative_to(HOUSE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path):
    """Rooms of yatsude that a file imports anywhere, inside functions too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("yatsude.")}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the room's full name"
            if node.module == "yatsude":
                rooms |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("yatsude."):
                rooms.add(node.module.split(".")[1])
    return rooms - {"__version__"}


@pytest.mark.parametrize("name", [name for name in modules() if name])
def test_every_arrow_is_allowed(name):
    room = name.split(".")[0]
    if room == "cli":
        return
    known = {**{key: value | EVERYBODY for key, value in ARROWS.items()}, **FLOOR}
    assert room in known, f"{room} is no room of the house; add it to the table here and in the architecture"
    extra = imported(modules()[name]) - known[room] - {room}
    assert not extra, f"{name} imports {', '.join(sorted(extra))}; {room} may import {', '.join(sorted(known[room]))}"


def test_no_arrow_closes_a_circle():
    seen = {}

    def above(room):
        if room not in seen:
            seen[room] = set()
            for lower in ARROWS.get(room, set()):
                seen[room] |= {lower} | above(lower)
        return seen[room]

    assert not [room for room in ARROWS if room in above(room)]


def test_every_package_is_light_to_enter():
    full = [path for path in HOUSE.rglob("__init__.py") if path.parent != HOUSE and path.read_text().strip()]
    assert full == []


def light_modules():
    names = [name for name in modules() if name.split(".")[0] in LIGHT]
    return names + [name for name in modules() if name.split(".")[-1] == "settings"]


def test_settings_and_the_light_rooms_load_nothing_heavy():
    names = [f"yatsude.{name}" for name in light_modules()]
    assert "yatsude.spec.info" in names
    script = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
    script += f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_pickle():
    """Weights and states are safetensors and JSON: opening a folder never runs what is in it."""
    banned = ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True", "import marshal", "import shelve")
    found = {name: word for name, path in modules().items() for word in banned if word in path.read_text("utf-8")}
    assert found == {}
