"""torch, imported when it is first used.

The dataclass of an algorithm is at once the schema of its config file and the object that learns. A schema is
needed to check a command line, which must not wait a second and more for torch; so modules that hold schemas
write ``from lab.common.lazy import torch``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lab.common.imports import import_named
from lab.errors import LabError, did_you_mean

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


def class_at(key: str, path: str, base: type[Any]) -> type[Any]:
    """Import a class by its path.

    Args:
        key: the config key that names it.
        path: of the class, as torch.optim.AdamW.
        base: what it must extend.

    Raises:
        LabError: there is none, or it is of another kind.
    """
    module, _, name = path.rpartition(".")
    try:
        found = import_named(module)
    except (ImportError, ValueError) as error:
        raise LabError(f"{key}={path} cannot be imported: {error}.") from error
    cls = getattr(found, name, None)
    if not (isinstance(cls, type) and issubclass(cls, base)):
        kinds = [word for word in vars(found) if isinstance(getattr(found, word), type)]
        allowed = [word for word in kinds if issubclass(getattr(found, word), base)]
        raise LabError(
            f"{key}={path} is not allowed: {module} has no {base.__name__} of this name.{did_you_mean(name, allowed)}"
        )
    return cls
