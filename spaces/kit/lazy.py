"""Modules that are imported when they are first used."""

import importlib
import threading

# By one thread at a time: two that import parts of one package at once can meet it half made.
_importing = threading.RLock()


class LazyModule:
    """A module that is imported when it is first used: a page can be read before torch, which takes a second, is there.

    Args:
        name: of the module, as `import` takes it.
    """

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        with _importing:
            return getattr(importlib.import_module(self._name), attribute)
