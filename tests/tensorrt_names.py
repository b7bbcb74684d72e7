"""Which names of TensorRT a source uses, and which of them a version lacks.

python -m tests.tensorrt_names MAJOR.MINOR NAME...     prints as JSON those of the names that this version lacks
"""

import ast
import json
import sys
from functools import reduce
from pathlib import Path

from tests import tensorrt_bindings
from tests.tensorrt_bindings import ROOT

PACKAGES = ("jokr_rt", "export", "trt_plugins", "benchmarks")


def sources() -> list[Path]:
    """Every file of the project that imports TensorRT."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [path for path in files if _aliases(ast.parse(path.read_text()))]


def names(source: str) -> set[str]:
    """Such as "tensorrt.BuilderFlag.TF32": what is imported of TensorRT, and every chain of attributes of that."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    found = set(aliases.values())
    for node in ast.walk(tree):
        path = _path(node)
        if path and path[0] in aliases:
            found.add(".".join([aliases[path[0]], *path[1:]]))
    return found


def attributes(source: str) -> set[str]:
    """The last names of all attributes, whatever they are of."""
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}


def _aliases(tree: ast.Module) -> dict[str, str]:
    """What TensorRT's modules, and the names imported from them, are called in this file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                if item.name.split(".")[0] == "tensorrt":
                    found[item.asname or "tensorrt"] = item.name if item.asname else "tensorrt"
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tensorrt":
            found |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
    return found


def _path(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        path = _path(node.value)
        return [*path, node.attr] if path else []
    return []


def missing(version: str, wanted: list[str]) -> list[str]:
    """Those of the dotted names, beginning with "tensorrt.", that the bindings of a version lack."""
    trt = tensorrt_bindings.load(version)
    lacking = []
    for name in wanted:
        try:
            reduce(getattr, name.split(".")[1:], trt)
        except AttributeError:
            lacking.append(name)
    return lacking


if __name__ == "__main__":
    print(json.dumps(missing(sys.argv[1], sys.argv[2:])))
