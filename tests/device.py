"""A device that is not there: tensors that hold numbers of the CPU, behave as a GPU's, and tell who waits for them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from lab.common.transfer import upload

aten = torch.ops.aten
ROOT = str(Path(__file__).resolve().parents[1])
DEVICE = torch.device("meta")  # the one name of a device that autograd knows without a GPU
MOVES = {aten._to_copy.default, aten.copy_.default}
READS = {aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default, aten.item.default}
SHAPED = {"nonzero", "masked_select", "unique", "_unique2", "unique_consecutive", "unique_dim", "repeat_interleave"}
FACTORIES = {torch.tensor, torch.as_tensor}


class DeviceTensor(torch.Tensor):
    """A tensor of the device; `held` is its content."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceTensor:
        copied = DeviceTensor(self.held.detach().clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file is read to the CPU
        return self.held.detach().__reduce_ex__(protocol)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function == torch.Tensor.data.__set__:  # torch swaps what it knows of the two tensors only
            args[0].held = args[1].held
        if function is torch.Tensor.tolist:
            return args[0].cpu().tolist()
        if function is torch.Tensor.new_tensor:
            made = torch.tensor(args[1], dtype=(kwargs or {}).get("dtype", args[0].dtype))
            return made.to(DEVICE)
        with torch._C.DisableTorchFunctionSubclass():  # results keep their own class
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return compute(function, args, kwargs or {}, None)


def compute(function: Any, args: Any, kwargs: dict[str, Any], tell: Callable[[str], None] | None) -> Any:
    """Return the result of an operation, as the device would, and tell what the host must wait for."""
    tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    ours = [tensor for tensor in tensors if isinstance(tensor, DeviceTensor)]
    known = {id(tensor.held): tensor for tensor in ours}
    target = kwargs.get("device")
    to_device = target is not None and torch.device(target).type == DEVICE.type
    on_device = bool(ours) if target is None else to_device
    if function is aten.copy_.default:
        on_device = isinstance(args[0], DeviceTensor)
    if function in MOVES and tensors[-1].numel():
        blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
        if on_device and not isinstance(tensors[-1], DeviceTensor) and tell:
            tell("upload" if blocking else "copy")
        elif not on_device and ours and tell:
            tell("read")
    elif ours and tell:
        indices = args[1] if function.overloadpacket in (aten.index, aten.index_put, aten.index_put_) else ()
        by_mask = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
        if function in READS or by_mask or function.overloadpacket.__name__ in SHAPED:
            tell("read")
        if any(index is not None and not isinstance(index, DeviceTensor) for index in indices):
            tell("upload")
        elsewhere = [tensor for tensor in tensors if not isinstance(tensor, DeviceTensor) and tensor.dim()]
        if elsewhere and not indices:
            raise RuntimeError(f"{function} was given tensors on the CPU and on the device.")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": False}
        if function is aten._to_copy.default:
            kwargs.pop("pin_memory")

    def hold(leaf: Any) -> Any:
        return leaf.held if isinstance(leaf, DeviceTensor) else leaf

    def give(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not on_device:
            return leaf
        return known[id(leaf)] if id(leaf) in known else DeviceTensor(leaf)

    result = function(*tree_map(hold, args), **tree_map(hold, kwargs))
    if function is aten._to_copy.default and ours and not on_device and result is ours[0].held:
        result = result.clone()
    return tree_map(give, result)


class Device(TorchDispatchMode):
    """While it is entered, there is the device, and `events` counts by kind and place in lab/ what involves the host.

    Kinds: `read`, where the host waits for what the device computed; `upload`, a copy to the device that waits for its
    end; and `copy`, one that does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: Counter[tuple[str, str]] = Counter()
        self._factories = Factories()

    def __enter__(self) -> Device:
        super().__enter__()
        self._factories.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._factories.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return compute(function, args, kwargs or {}, self.tell)

    def tell(self, kind: str) -> None:
        """Count an event at the innermost place in lab/ that has a reason for it."""
        frame = sys._getframe(1)
        while frame and (not frame.f_code.co_filename.startswith(f"{ROOT}/lab/") or frame.f_code is upload.__code__):
            frame = frame.f_back  # type: ignore[assignment]
        place = f"{frame.f_code.co_filename[len(ROOT) + 1 :]}:{frame.f_lineno}" if frame else "elsewhere"
        self.events[kind, place] += 1


class Factories(TorchFunctionMode):
    """Makes tensors of given numbers on the CPU and copies them, as torch does for a GPU, but not for `meta`."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if function in FACTORIES and device is not None and torch.device(device).type == DEVICE.type:
            if isinstance(args[0], DeviceTensor):
                return function(*args, **{**kwargs, "device": None})
            return function(*args, **{**kwargs, "device": None}).to(DEVICE)
        return function(*args, **kwargs)
