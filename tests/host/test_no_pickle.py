"""Nothing here reads a format that can carry code, or writes one: no pickle, in any of its clothes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.environments import ROOT

FOLDERS = ("hired_edge", "export", "runtime", "jetson", "demo", "benchmarks", "tests")
MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "copyreg",
    "pandas.io.pickle",
}
"""That are not imported. Ray pickles what it sends between its own workers; no file is of that."""
ALLOWED = {
    "export/hired_export/checkpoint.py": {"from pickle import UnpicklingError"},  # what torch.load raises
    # The proof that a file with code in it is refused has to make one.
    "tests/host/test_bad_checkpoints.py": {"import pickle", "torch.load without weights_only=True"},
}


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if ".venv" not in str(path))


def found(tree: ast.AST) -> Iterator[str]:
    """What is used of them, in words."""
    imported = [each for node in ast.walk(tree) if isinstance(node, ast.Import) for each in node.names]
    torch = {"torch", *(each.asname for each in imported if each.name == "torch")}
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (f"import {each.name}" for each in names if _is_pickle(each.name))
            case ast.ImportFrom(module=str(module), names=names) if _is_pickle(module):
                yield f"from {module} import {', '.join(each.name for each in names)}"
            case ast.ImportFrom(module="torch", names=names) if any(each.name in ("load", "*") for each in names):
                yield "torch.load by another name"
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="load"), keywords=keywords) if name in torch:
                if not _says(keywords, "weights_only", True):
                    yield "torch.load without weights_only=True"
            case ast.Call(func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="torch")), attr="load")):
                yield "torch.jit.load, or another that reads archives with code"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load"), args=[_, _, _, *_]):
                yield "allow_pickle"
            case ast.Call(func=ast.Attribute(attr=("read_pickle" | "to_pickle") as name)):
                yield name
            case ast.Call(keywords=keywords) if any(each.arg == "allow_pickle" for each in keywords):
                if not _says(keywords, "allow_pickle", False):
                    yield "allow_pickle"
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=name), *_],
            ):
                if isinstance(name, str) and _is_pickle(name):
                    yield f"import {name}"
            case _:
                pass


def _is_pickle(module: str) -> bool:
    return module in MODULES or module.partition(".")[0] in MODULES


def _says(keywords: list[ast.keyword], name: str, value: bool) -> bool:
    given = {each.arg: each.value for each in keywords}.get(name)
    return isinstance(given, ast.Constant) and given.value is value


def test_no_source_uses_pickle() -> None:
    assert len(sources()) > 300
    used = {}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        here = set(found(ast.parse(path.read_text(encoding="utf-8")))) - ALLOWED.get(name, set())
        if here:
            used[name] = here
    assert used == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, pickle as p",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "__import__('dill')",
        "importlib.import_module('marshal')",
        "import_module('pickle', None)",
        "from torch import load",
        "import torch as t; t.load(path)",
        "torch.jit.load(path)",
        "np.load(path, None, True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert list(found(ast.parse(source)))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "np.load(path)",
        "import torch",
        "import json",
    ],
)
def test_the_search_leaves_alone(source: str) -> None:
    assert not list(found(ast.parse(source)))
