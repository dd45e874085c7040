"""Every public class, function and method says what it is for; an override may rely on what it overrides."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import spark3r
import viewer

pytestmark = pytest.mark.checkout  # modules of the page need its packages

GIVEN_ELSEWHERE = {"forward"}  # of a module: its class says what it does, its signature says shapes


def modules() -> list[str]:
    return [
        found.name
        for package in (spark3r, viewer)
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not found.name.endswith("__main__")
    ]


def silent(module: ModuleType) -> Iterator[str]:
    """Public names defined here without a word on them."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing) and not thing.__doc__:
            yield name
        elif inspect.isclass(thing):
            if not thing.__doc__ or thing.__doc__.startswith(f"{name}("):  # what dataclass writes
                yield name
            yield from (f"{name}.{method}" for method in _silent_methods(thing))


def _silent_methods(thing: type) -> Iterator[str]:
    for name, method in vars(thing).items():
        what = method.fget if isinstance(method, property) else getattr(method, "__func__", method)
        if (
            name.startswith("_")
            or name in GIVEN_ELSEWHERE
            or not inspect.isfunction(what)
            or what.__name__ == "<lambda>"
        ):
            continue
        if not inspect.getdoc(getattr(thing, name)):
            yield name


@pytest.mark.parametrize("name", modules())
def test_what_is_public_is_explained(name: str) -> None:
    assert list(silent(importlib.import_module(name))) == []
