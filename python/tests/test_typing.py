"""The type stub of the compiled part says what is there."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import lorapro
from lorapro import _lorapro

PACKAGE = Path(lorapro.__file__).parent
STUB = ast.parse((PACKAGE / "_lorapro.pyi").read_text())


def signatures(body: list[ast.stmt]) -> dict[str, list[str]]:
    """Names of the parameters of each function in a stub, without `self` and `cls`."""
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    return {f.name: [a.arg for a in f.args.args if a.arg not in ("self", "cls")] for f in functions}


def actual(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_the_stub_has_the_extensions_functions_methods_and_parameters():
    backend = _lorapro.CompiledBackend
    (declared,) = [node.body for node in STUB.body if getattr(node, "name", "") == "CompiledBackend"]
    methods = signatures(declared)
    assert methods.pop("__new__") == actual(backend)
    assert methods == {name: actual(getattr(backend, name)) for name in dir(backend) if not name.startswith("_")}
    public = {name for name in dir(_lorapro) if not name.startswith("_")}
    functions = signatures(STUB.body)
    assert functions == {name: actual(getattr(_lorapro, name)) for name in public if name[0].islower()}
    assert public == {*functions, "CompiledBackend", "NonFiniteError"}


def test_the_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
