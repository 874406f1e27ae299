"""Every public function and class says what it does and is typed."""

import ast
from pathlib import Path

import pytest

import yatsude

HOUSE = Path(yatsude.__file__).parent
FILES = sorted(path for path in HOUSE.rglob("*.py") if path.read_text("utf-8").strip())
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public(body, prefix=""):
    """Public functions, classes and methods of a module, each with its dotted name."""
    for node in body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


def untyped(node):
    """What of a function lacks a type."""
    spec = node.args
    arguments = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
    names = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
    return names + ([] if node.returns is not None else ["return"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_public_names_are_documented_and_typed(path):
    tree = ast.parse(path.read_text("utf-8"))
    missing = [] if ast.get_docstring(tree) else ["the module itself"]
    for name, node in public(tree.body):
        if not ast.get_docstring(node):
            missing.append(f"{name}: no docstring")
        if isinstance(node, FUNCTIONS) and untyped(node):
            missing.append(f"{name}: no type for {', '.join(untyped(node))}")
    assert missing == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_the_public_list_is_sorted_and_true(path):
    tree = ast.parse(path.read_text("utf-8"))
    lists = [n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"]
    names = [ast.literal_eval(item) for item in lists[0].elts] if lists else []
    assert len(names) == len(set(names))
    defined = {alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names}
    for node in tree.body:
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    assert set(names) <= defined


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_nothing_is_left_for_later(path):
    text = path.read_text("utf-8")
    assert not [word for word in ("TODO", "FIXME", "XXX") if word in text]
