"""Modules written for one agent, stacked: each Session's copy is called with its own parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import skip_init

from lab.net.kernels import is_exporting
from lab.net.layers import Activation, orthogonal, scale_images

IMAGES = 64  # that convolutions process at a time on a CPU


class StackedModule(nn.Module):
    """Copies of a module, one for each Session, with stacked parameters and buffers [S, ...].

    Random draws of a copy, as in dropout, come from the Session's own seed and the number of gradients computed before:
    they are independent of other Sessions, and the same after a resumption (law 2).
    """

    draws: Tensor

    def __init__(self, copies: list[nn.Module], seeds: list[int] | None = None) -> None:
        """Stack copies of a module, one for each Session; `seeds` for modules that draw random numbers."""
        super().__init__()
        self.module = copies[0]
        with torch.no_grad():
            for kind in ("named_parameters", "named_buffers"):
                several = [dict(getattr(copy, kind)()) for copy in copies]
                for name, value in several[0].items():
                    value.data = torch.stack([own[name].data for own in several])
        self.takes_extra = "extra" in inspect.signature(self.module.forward).parameters
        self.seeded = seeds is not None
        self.register_buffer("draws", torch.tensor(seeds or []))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StackedModule:
        super()._apply(fn, recurse)
        self.draws = self.draws.cpu()  # where they are read in every call
        return self

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        learning = torch.is_grad_enabled()
        self.module.train(learning)
        if not self.seeded:
            return self._call(x, extra)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            features = self._call(x, extra, self.draws.tolist())
        if learning:
            self.draws += 1
        return features

    def _call(self, x: Tensor, extra: Tensor | None, seeds: list[int] | None = None) -> Tensor:
        # Unbound once for all Sessions: the gradient is then stacked, not added up from slices.
        parameters = {name: value.unbind(0) for name, value in self.module.named_parameters()}
        buffers = dict(self.module.named_buffers())
        features = []
        for s, observations in enumerate(x.unbind(0)):
            if seeds:
                torch.default_generator.manual_seed(seeds[s])  # torch.manual_seed takes a hundred times as long
                if x.is_cuda:
                    torch.cuda.manual_seed(seeds[s])
            own = {name: slices[s] for name, slices in parameters.items()}
            state = {name: buffer[s] for name, buffer in buffers.items()}
            values = own | state
            features.append(self.features(values, observations, None if extra is None else extra[s]))
            for name, buffer in state.items():
                if values[name] is not buffer:  # the module has replaced it
                    buffer.copy_(values[name].detach())
        return torch.stack(features)

    def features(self, values: dict[str, Tensor], x: Tensor, extra: Tensor | None) -> Tensor:
        """Return the module's output for one Session's parameters and buffers, observations and extra numbers."""
        # Convolutions round by strides and alignment, in which a slice may differ from a tensor of its own (law 1).
        x = scale_images(x).clone(memory_format=torch.contiguous_format)
        return functional_call(self.module, values, (x, extra) if extra is not None and self.takes_extra else (x,))


class Convolutions(StackedModule):
    """Layers without state, of which the first is a convolution, for images [S, B, C, H, W].

    On a CPU, images are processed some at a time, which thus stay in its cache, with their channels as the last axis in
    memory: a learning step takes half the time. Parameters and features are float32, whatever the layers compute in.
    """

    def __init__(self, copies: list[nn.Module], dtype: torch.dtype) -> None:
        """Stack layers, one copy for each Session; `dtype` is the type of their arithmetic."""
        super().__init__(copies)
        self.dtype = dtype

    def features(self, values: dict[str, Tensor], x: Tensor, extra: Tensor | None) -> Tensor:
        if x.dtype == torch.uint8:  # the first weight is scaled in place of images, whose bytes bfloat16 holds exactly
            first = next(iter(values))
            values = values | {first: values[first] * (1 / 255)}
        on_cpu = x.device.type == "cpu" and not is_exporting()
        parts = []
        for part in x.split(IMAGES) if on_cpu else [x]:
            own = {name: value.to(self.dtype) for name, value in values.items()}  # for each part: float32 gradients
            images = torch.ops.lab.images(part, self.dtype) if on_cpu else part.to(self.dtype, copy=True)
            parts.append(functional_call(self.module, own, (images,)).float())
        return torch.cat(parts)


class ImageTrunk(nn.Module):
    """Convolutional layers, then fully connected ones over their output and the extra numbers."""

    def __init__(self, convolutions: Convolutions, hidden: list[nn.Module], channels_last: bool) -> None:
        super().__init__()
        self.convolutions, self.hidden = convolutions, nn.Sequential(*hidden)
        self.channels_last = channels_last

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        features = self.convolutions(x.movedim(-1, 2) if self.channels_last else x)
        return cast("Tensor", self.hidden(features if extra is None else torch.cat([features, extra], -1)))


class JoinedTrunk(nn.Module):
    """A trunk for each image and one for all numbers, whose features are joined with the extra numbers."""

    def __init__(
        self,
        images: list[tuple[slice, tuple[int, ...], nn.Module]],
        columns: list[slice],
        vectors: nn.Module | None,
        joined: nn.Module,
    ) -> None:
        """Make it of the place of each image in a row, its shape and its trunk, and of the places of numbers."""
        super().__init__()
        self._images = [(place.start, place.stop, shape) for place, shape, _ in images]
        self.images = nn.ModuleList([trunk for *_, trunk in images])
        self._columns = [(place.start, place.stop) for place in columns]
        self.vectors, self.joined = vectors, joined

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        rows = x.flatten(2)
        features = [
            trunk(rows[..., start:stop].unflatten(-1, shape))
            for trunk, (start, stop, shape) in zip(self.images, self._images, strict=True)
        ]
        if self.vectors:
            features.append(self.vectors(torch.cat([rows[..., start:stop] for start, stop in self._columns], -1)))
        return cast("Tensor", self.joined(torch.cat(features, -1), extra))


class ResidualBlock(nn.Module):
    """Two convolutions, each after an activation, whose output is added to their input."""

    def __init__(self, channels: int, activation: str, gain: float, rng: np.random.Generator) -> None:
        super().__init__()
        self.first, self.second = (conv(channels, channels, 3, gain, rng, padding=1) for _ in range(2))
        self.activation = Activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        # Some activations work in place, and x is needed once more.
        return x + self.second(self.activation(self.first(self.activation(x.clone()))))


def conv(
    inputs: int, outputs: int, kernel: int, gain: float, rng: np.random.Generator, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    """Return a convolution whose filters are orthogonal rows; its bias is zero."""
    layer = skip_init(nn.Conv2d, inputs, outputs, kernel, stride, padding)  # torch's own draws would not be seeded
    weight = orthogonal(rng, inputs * kernel**2, outputs, gain).T
    layer.weight.data.copy_(torch.from_numpy(weight).reshape(layer.weight.shape))
    layer.bias.data.zero_()
    return layer
