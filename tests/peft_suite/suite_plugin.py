"""A pytest plugin that points PEFT's tests at our configuration as they are collected; see suite_tables.py."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peft import PeftModel
from suite_models import MODELS as HUB_MODELS
from suite_rows import CONFIG
from suite_sources import PACKAGE
from suite_tables import (
    EXCLUDED,
    MODELS,
    NAMES,
    NEVER_TRAINED,
    OF_TRAINED_PARAMETERS,
    PARAMETERS,
    STAND_INS,
    TABLES,
    Exclusion,
)
from torch import nn

RECORD_VARIABLE = "PEFT_SUITE_RECORD"
"""The environment variable that names the file for what was left out and why."""

_unmatched: list[str] = []
"""Entries of suite_tables.py for which this version of PEFT has nothing."""


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Point a test module at our configuration before pytest reads its tests."""
    if not isinstance(collector, pytest.Module):
        return
    try:
        module = collector.obj
    except collector.CollectError:
        return  # it cannot be imported; pytest meets the same error next, and reports it
    _point(module)
    _stay_offline(module)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that see our configuration and are not excluded; write down what was left out."""
    seeing = [item for item in items if _sees_us(item)]
    reasons = {item.nodeid: exclusion.reason for item in seeing if (exclusion := _exclusion(item)) is not None}
    kept = [item for item in seeing if item.nodeid not in reasons]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    _note_unmatched(items)
    record = {"other_methods": len(items) - len(seeing), "excluded": reasons, "unmatched": _unmatched}
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":  # each worker collects the same
        Path(os.environ[RECORD_VARIABLE]).write_text(json.dumps(record), encoding="utf-8")
    items[:] = kept


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Show a test of OF_TRAINED_PARAMETERS those of our parameters alone that may train, and one of STAND_INS ours."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in _stand_ins(item).items():
            own = importlib.import_module(f"{PACKAGE}.{item.path.stem}")
            for module in (own, importlib.import_module(f"{PACKAGE}.testing_common")):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        if any(fnmatch.fnmatchcase(_function_name(item), pattern) for pattern in OF_TRAINED_PARAMETERS):
            patch.setattr(PeftModel, "named_parameters", _named_parameters_that_may_train, raising=False)
        return (yield)


def _named_parameters_that_may_train(model: Any, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in nn.Module.named_parameters(model, *args, **kwargs):
        if not any(part in name for part in NEVER_TRAINED):
            yield name, parameter


def _point(module: ModuleType) -> None:
    """Replace a module's tables, parameters and names; note what this version of PEFT does not have."""
    name = module.__name__.rpartition(".")[2]
    for table, rows in TABLES.get(name, {}).items():
        with _noting(f"{name}.{table}"):
            _replace(module, table, rows())
    for table, model in MODELS.get(name, {}).items():
        with _noting(f"{name}.{table}"):
            getattr(module, table).append(model)
    for (test, arguments), values in PARAMETERS.get(name, {}).items():
        with _noting(f"{name}::{test}({arguments})"):
            _set_parameters(_function(module, test), arguments, values())
    for key, value in NAMES[name].names.items() if name in NAMES else ():
        with _noting(f"{name}.{key}"):
            getattr(module, key)
            setattr(module, key, value)


@contextlib.contextmanager
def _noting(entry: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError):
        _unmatched.append(entry)


def _note_unmatched(items: list[pytest.Item]) -> None:
    """Note patterns that no collected test has: PEFT renamed it, or the pattern is wrong."""
    for module, renamed in NAMES.items():
        names = {_name(item) for item in items if item.path.stem == module}
        _unmatched.extend(f"{module}::{pattern}" for pattern in renamed.tests if not fnmatch.filter(names, pattern))
    qualified = [f"{item.path.stem}::{_name(item)}" for item in items]
    _unmatched.extend(pattern for pattern in STAND_INS if not fnmatch.filter(qualified, pattern))
    functions = {_function_name(item) for item in items}
    _unmatched.extend(pattern for pattern in OF_TRAINED_PARAMETERS if not fnmatch.filter(functions, pattern))
    for entry in EXCLUDED:
        if not any(_matches(entry, item) for item in items):
            _unmatched.append(f"{entry.module}::{entry.test}[{entry.identity}]")


def _replace(module: ModuleType, table: str, rows: list[Any]) -> None:
    """Put rows in place of a table wherever the module and its marks hold it."""
    old = getattr(module, table)
    if isinstance(old, list):
        old[:] = rows
        return
    for function in _functions(module):
        for arguments, values in [mark.args[:2] for mark in _parametrize_marks(function)]:
            if values is old:
                _set_parameters(function, arguments, rows)
    setattr(module, table, tuple(rows))


def _set_parameters(function: Any, arguments: str, values: list[Any]) -> None:
    """Give a test's `parametrize` mark other values; ids that go with the old ones are dropped."""
    marks = [mark for mark in _parametrize_marks(function) if mark.args[0] == arguments]
    if len(marks) != 1:
        raise LookupError(f"{function.__qualname__} has {len(marks)} marks for {arguments!r}; suite_tables.py says one")
    position = function.pytestmark.index(marks[0])
    function.pytestmark[position] = pytest.mark.parametrize(arguments, values).mark


def _parametrize_marks(function: Any) -> list[pytest.Mark]:
    return [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]


def _function(module: ModuleType, test: str) -> Any:
    owner, _, name = test.rpartition(".")
    return getattr(getattr(module, owner), name)


def _functions(module: ModuleType) -> Iterator[Any]:
    """Yield the test functions of a module and of its classes."""
    for value in list(vars(module).values()):
        members = vars(value).values() if isinstance(value, type) else [value]
        yield from (member for member in members if getattr(member, "__name__", "").startswith("test_"))


def _stay_offline(module: ModuleType) -> None:
    """Tell PEFT's helper that each model is cached already; it goes online for a name that it has not met."""
    helpers = importlib.import_module(f"{module.__package__}.testing_utils")
    for name in HUB_MODELS:
        helpers._HUB_MODEL_ACCESSES.setdefault(name, 0)


def _sees_us(item: pytest.Item) -> bool:
    """Say whether a test gets our configuration as a parameter or under a name of its module."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if any(_is_ours(value) for value in parameters.values()):
        return True
    renamed = NAMES.get(item.path.stem)
    if _stand_ins(item):
        return True
    return renamed is not None and any(fnmatch.fnmatchcase(_name(item), pattern) for pattern in renamed.tests)


def _stand_ins(item: pytest.Item) -> dict[str, Any]:
    name = f"{item.path.stem}::{_name(item)}"
    return next((names for pattern, names in STAND_INS.items() if fnmatch.fnmatchcase(name, pattern)), {})


def _is_ours(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(_is_ours(part) for part in value)
    return value is CONFIG or isinstance(value, CONFIG)


def _exclusion(item: pytest.Item) -> Exclusion | None:
    return next((entry for entry in EXCLUDED if _matches(entry, item)), None)


def _matches(entry: Exclusion, item: pytest.Item) -> bool:
    identity = item.name.partition("[")[2].removesuffix("]")
    same_test = (entry.module, entry.test) == (item.path.stem, _name(item))
    return same_test and fnmatch.fnmatchcase(identity, entry.identity)


def _name(item: pytest.Item) -> str:
    """Return `Class.test`, or `test` of a plain function."""
    owner, function = getattr(item, "cls", None), _function_name(item)
    return f"{owner.__name__}.{function}" if owner is not None else function


def _function_name(item: pytest.Item) -> str:
    return getattr(item, "originalname", None) or item.name
