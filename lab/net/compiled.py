"""Methods of an algorithm, compiled ahead of time.

A method that is marked `compilable` is traced with every tensor that the algorithm refers to as an input, and the graph
is compiled to a library. On a CPU the library is for one Session and is called for each Session of a stack in turn, so
that no number depends on the stack (law 1). On a GPU it is for the whole stack, and recorded as a CUDA graph.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from time import perf_counter
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from lab.common.compilers import require_compiler
from lab.common.signals import interruptible
from lab.common.terminal import announced
from lab.errors import LabError, summary
from lab.net import library
from lab.net.network import Parameters

PLAIN = (str, int, float, type(None))
UNREAD = (np.ndarray, deque)  # what no compiled method may read, such as the priorities of a memory

Run = Callable[[list[Tensor]], list[Tensor]]


class Compiler:
    """Compiles the methods of an algorithm when they are first called, or loads what was compiled before.

    Attributes:
        skipped: indices of Sessions for which nothing is computed any more.
        seconds: spent on compiling and loading so far.
        show: whether to say on the terminal what is being compiled.
    """

    def __init__(self, owner: Any, stack: int, device: torch.device) -> None:
        """Make it for an algorithm of a stack on a device; raise LabError if there is no C++ compiler."""
        require_compiler()
        self.owner, self.stack = owner, stack
        self.rows = stack if device.type == "cuda" else 1
        self.skipped: set[int] = set()
        self.seconds = 0.0
        self.show = False
        self._programs: dict[tuple[Any, ...], Program] = {}

    def call(self, method: Callable[..., Any], arguments: tuple[Any, ...], constants: dict[str, Any]) -> Any:
        """Call a method of the algorithm; see `lab.algo.algorithm.compilable`."""
        tensors: list[Tensor] = []
        others: list[Any] = []
        _flatten(arguments, tensors, others)
        key = (method.__name__, *constants.values(), *others, *[(t.shape, t.stride(), t.dtype) for t in tensors])
        program = self._programs.get(key)
        if program is None:
            program = self._programs[key] = self._compile(method, arguments, constants)
        return program(tensors)

    def _compile(self, method: Callable[..., Any], arguments: tuple[Any, ...], constants: dict[str, Any]) -> Program:
        text = f"Compiling {type(self.owner).__name__}.{method.__name__}: some 20 seconds, once on this machine"
        start, recursion_limit = perf_counter(), sys.getrecursionlimit()
        try:
            with announced(text, self.show), interruptible():
                return Program(self, method, arguments, constants)
        finally:
            sys.setrecursionlimit(recursion_limit)  # which torch.compile raises
            self.seconds += perf_counter() - start


class Program:
    """A compiled method for arguments of certain shapes."""

    def __init__(
        self, compiler: Compiler, method: Callable[..., Any], arguments: tuple[Any, ...], constants: dict[str, Any]
    ) -> None:
        owner, stack, rows = compiler.owner, compiler.stack, compiler.rows
        references = References(owner)
        tensors: list[Tensor] = []
        others: list[Any] = []
        _flatten(arguments, tensors, others)
        count = len(references.bases)
        bases = [base.detach() for base in references.bases]
        examples = [tensor[:rows] for tensor in (*bases, *tensors)]

        def trace() -> library.Traced:
            from torch.fx.experimental.proxy_tensor import make_fx

            result: list[Any] = []
            outputs: list[Tensor] = []

            def function(*inputs: Tensor) -> list[Tensor]:
                given = iter(inputs[count:])
                with references.replaced(list(inputs[:count])):
                    returned = method(owner, *(_rebuild(argument, given) for argument in arguments), **constants)
                outputs.clear()
                result[:] = [_index(returned, outputs)]
                numbers = [output.detach() for output in outputs if output.dim() == 1]
                others = [output.detach().clone() for output in outputs if output.dim() > 1]  # none is an input
                return [torch.stack(numbers, 1), *others] if numbers else others

            try:  # tensors without numbers: what reads one, or refers to one that is no input, raises
                graph = make_fx(function, tracing_mode="fake")(*examples)
            except Exception as error:
                raise LabError(
                    f"compile=true is not possible: {type(owner).__name__}.{method.__name__} cannot be traced"
                    f" ({summary(error)}). Use compile=false."
                ) from error
            used = keep_used_inputs(graph)
            layout = {
                "result": result[0],
                "is_number": [output.dim() == 1 for output in outputs],
                "state": [index for index in used if index < count],
                "arguments": [index - count for index in used if index >= count],
            }
            return graph, [examples[index] for index in used], layout

        settings = None if references.plain is None else (method.__name__, constants, others, references.plain)
        run, layout = library.load(trace, examples, settings)
        self._result, self._is_number, self._arguments = layout["result"], layout["is_number"], layout["arguments"]
        self._state = [[bases[index][s : s + rows] for index in layout["state"]] for s in range(0, stack, rows)]
        self._skipped = compiler.skipped
        written = [
            own
            for own, index in zip(self._state[0], layout["state"], strict=True)
            if references.writes(references.bases[index])
        ]
        self._run: Run = Recorded(run, self._state[0], written) if examples[0].is_cuda else run
        self._results: list[list[Tensor]] = [[] for _ in self._state]
        self._given: list[Tensor | None] = [None] * len(self._arguments)
        self._split: list[tuple[Tensor, ...]] = [()] * len(self._arguments)

    def __call__(self, tensors: list[Tensor]) -> Any:
        """Call it with the tensors of its arguments."""
        if len(self._state) == 1:
            return self._fill(self._run([*self._state[0], *[tensors[index] for index in self._arguments]]))
        for index, position in enumerate(self._arguments):
            tensor = tensors[position]
            if tensor is not self._given[index]:  # all minibatches of a horizon have the same samples
                self._given[index], self._split[index] = tensor, tensor.split(1)
        for s, own in enumerate(zip(*self._split, strict=True)):
            if s not in self._skipped or not self._results[s]:
                self._results[s] = self._run([*self._state[s], *own])
        return self._fill([torch.cat(parts) for parts in zip(*self._results, strict=True)])

    def _fill(self, outputs: list[Tensor]) -> Any:
        """Return the result of the method, of which the numbers [S] are the columns of the first output."""
        other = iter(outputs)
        one = iter(next(other).unbind(1) if True in self._is_number else ())
        return _fill(self._result, [next(one if is_number else other) for is_number in self._is_number])


def keep_used_inputs(graph: torch.fx.GraphModule) -> list[int]:
    """Remove the inputs of a graph that nothing depends on, and return the indices of the others."""
    graph.graph.eliminate_dead_code()
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    for node in inputs:
        if not node.users:
            graph.graph.erase_node(node)
    graph.recompile()
    return [index for index, node in enumerate(inputs) if node.users]


class Recorded:
    """A function of tensors on a GPU that is recorded as a CUDA graph at its first call, and replayed at later ones."""

    def __init__(self, run: Run, state: list[Tensor], written: list[Tensor]) -> None:
        """Record `run`, whose first inputs are always the tensors `state`, of which it may change those `written`."""
        self._run, self._state, self._written = run, state, written
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    def __call__(self, tensors: list[Tensor]) -> list[Tensor]:
        given = tensors[len(self._state) :]
        if self._graph is None:
            self._record(given)
        assert self._graph
        for own, value in zip(self._inputs, given, strict=True):
            own.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs

    def _record(self, given: list[Tensor]) -> None:
        self._inputs = [value.clone() for value in given]
        before = [tensor.clone() for tensor in self._written]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries allocate what they need in a first run
            self._run([*self._state, *self._inputs])
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(self._written, before, strict=True):
            tensor.copy_(value)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = self._run([*self._state, *self._inputs])


class References:
    """Every tensor that an object refers to, and each place that does.

    Attributes:
        bases: tensors that own their memory, [S, ...] each: the buffers of parameters, and all that are no parameters.
        plain: classes, functions, texts and numbers, which a traced graph may depend on; None if there is anything
            that has no unique name, or a class of the user's.
    """

    def __init__(self, root: Any) -> None:
        self._places: list[tuple[Any, Any, Tensor]] = []  # a dict or list, a key of it, and the tensor there
        self._parameters: list[Parameters] = []
        self._numbers: dict[int, int] = {}  # of the objects met so far, by id
        self._read_only: set[int] = set()
        self.plain: list[Any] | None = []
        self._walk(root, known=True)
        views = {id(view) for parameters in self._parameters for view in parameters.views}
        self.bases = list({id(t): t for _, _, t in self._places if id(t) not in views and t.numel()}.values())
        shared = len({t.untyped_storage().data_ptr() for t in self.bases}) < len(self.bases)
        assert not shared, "two tensors of an algorithm share memory"
        assert len({len(t) for t in self.bases}) <= 1, "a tensor of an algorithm has no session axis"

    def _walk(self, item: Any, known: bool = False) -> None:
        if isinstance(item, PLAIN):
            self._note(item)
        elif isinstance(item, gym.Space):
            self._note(repr(item))
        elif isinstance(item, (dict, list, tuple)):
            if self._is_new(item):
                for key, value in item.items() if isinstance(item, dict) else enumerate(item):
                    self._note(str(key))
                    if isinstance(value, Tensor):
                        self._is_new(value)
                        self._places.append((item, key, value))
                    else:
                        self._walk(value)
        elif known or isinstance(item, nn.Module) or type(item).__module__.startswith("lab."):
            if isinstance(item, Compiler) or not self._is_new(item):
                return
            if isinstance(item, Parameters):
                self._parameters.append(item)
            if getattr(item, "READ_ONLY", False):
                self._read_only |= {id(value) for value in vars(item).values()}
            self._note(type(item).__qualname__)
            if not type(item).__module__.startswith(("lab.", "torch.")):
                self.plain = None
            self._walk(getattr(item, "__dict__", None))
        elif not isinstance(item, UNREAD):
            name = _name(item)
            self._note(name)
            if name is None:
                self.plain = None

    def _is_new(self, item: Any) -> bool:
        """Whether an object is met for the first time; otherwise note which of them it is."""
        if id(item) not in self._numbers:
            self._numbers[id(item)] = len(self._numbers)
            return True
        self._note(self._numbers[id(item)])
        return False

    def _note(self, item: Any) -> None:
        if self.plain is not None:
            self.plain.append(item)

    def writes(self, base: Tensor) -> bool:
        """Whether a method may write to a tensor; the large ones of a replay memory are only read."""
        return id(base) not in self._read_only

    @contextmanager
    def replaced(self, bases: list[Tensor]) -> Iterator[None]:
        """Refer to other tensors in place of `bases`, and to views of them in place of parameters."""
        new = {id(old): value for old, value in zip(self.bases, bases, strict=True)}
        for parameters in self._parameters:
            views = parameters.views_of(new[id(parameters.values)], new[id(parameters.gradients)])
            new |= {id(old): view for old, view in zip(parameters.views, views, strict=True)}
        places = [(holder, key, old) for holder, key, old in self._places if old.numel()]
        for holder, key, old in places:
            holder[key] = new[id(old)]
        try:
            yield
        finally:
            for holder, key, old in places:
                holder[key] = old


def _name(item: Any) -> str | None:
    """Return the unique name of a function or a device; None if it has none."""
    if isinstance(item, set):
        return repr(sorted(map(repr, item)))
    if isinstance(item, (torch.device, torch.dtype)):
        return repr(item)
    name = getattr(item, "__qualname__", "<")
    return None if "<" in name else f"{item.__module__}.{name}"


def _flatten(item: Any, tensors: list[Tensor], others: list[Any]) -> None:
    """Append the tensors of an argument to one list, and all else to another.

    It is called in every step of an environment, for which torch.utils._pytree is too slow.
    """
    if type(item) is Tensor and item.numel():
        tensors.append(item)
    elif isinstance(item, tuple):
        for value in item:
            _flatten(value, tensors, others)
    elif isinstance(item, dict) or is_dataclass(item):
        for value in (item if isinstance(item, dict) else vars(item)).values():
            _flatten(value, tensors, others)
    else:
        others.append(item.shape[1:] if isinstance(item, Tensor) else item)


def _rebuild(item: Any, tensors: Iterator[Tensor]) -> Any:
    """Return an argument with other tensors, in the order of `_flatten`."""
    if isinstance(item, Tensor):
        return next(tensors) if item.numel() else torch.zeros((1, *item.shape[1:]), dtype=item.dtype)
    if isinstance(item, dict):
        return {key: _rebuild(value, tensors) for key, value in item.items()}
    if is_dataclass(item):
        make: Any = type(item)
        return make(**{key: _rebuild(value, tensors) for key, value in vars(item).items()})
    return item


def _index(item: Any, tensors: list[Tensor]) -> Any:
    """Append the tensors of a result to a list, and return the result with their indices in place of them."""
    if isinstance(item, Tensor):
        tensors.append(item)
        return len(tensors) - 1
    if isinstance(item, dict):
        return {key: _index(value, tensors) for key, value in item.items()}
    return None if item is None else [_index(value, tensors) for value in item]


def _fill(structure: Any, tensors: Sequence[Tensor]) -> Any:
    """Return a result of the structure that `_index` returned."""
    if isinstance(structure, int):
        return tensors[structure]
    if isinstance(structure, dict):
        return {key: _fill(value, tensors) for key, value in structure.items()}
    return None if structure is None else tuple(_fill(value, tensors) for value in structure)
