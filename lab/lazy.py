"""torch, imported when it is first used.

The dataclass of an algorithm is at once the schema of its config file and the object that learns. A schema is
needed to check a command line, which must not wait a second and more for torch; so modules that hold schemas
write ``from lab.lazy import torch``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Lazy:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(import_module(self._name), attribute)
            setattr(self, attribute, value)  # found at once the next time
            return value

    torch = _Lazy("torch")
