"""A sum tree for every Session: numbers at the leaves, drawn from in proportion to them."""

from __future__ import annotations

import numpy as np

FANOUT = 16  # children of a node: numpy takes them at once, so that a wider tree has fewer steps than a binary one


class SumTree:
    """Trees of a stack side by side (Schaul et al. 2016, appendix B.2.1).

    A node is always computed anew from its children, never adjusted by a difference: it depends on the leaves alone,
    not on the order in which they were set, and it does not drift.

    Attributes:
        leaves: numbers of 0 or more, [S, N padded].
    """

    def __init__(self, stack: int, size: int) -> None:
        """Make the trees of a stack with so many leaves each, all 0."""
        self._levels: list[np.ndarray] = []  # from the leaves, [S, N_0, FANOUT], to the root, [S, 1, FANOUT]
        while not self._levels or size > 1:
            size = -(-size // FANOUT)
            self._levels.append(np.zeros((stack, size, FANOUT)))
        self.leaves = self._levels[0].reshape(stack, -1)

    @property
    def totals(self) -> np.ndarray:
        """Sum of each Session's leaves, [S]."""
        return self._levels[-1][:, 0].sum(-1)

    def set(self, index: np.ndarray, values: np.ndarray, sessions: np.ndarray | None = None) -> None:
        """Set leaves `index` [S, B] to `values` [S, B]; or with `sessions` [S'], those of some Sessions alone."""
        rows = (np.arange(len(self.leaves)) if sessions is None else sessions)[:, None]
        self.leaves[rows, index] = values
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            index = index // FANOUT
            above.reshape(len(above), -1)[rows, index] = below[rows, index].sum(-1)

    def rebuild(self) -> None:
        """Compute every node anew, after leaves were written to directly."""
        for below, above in zip(self._levels, self._levels[1:], strict=False):
            above.reshape(len(above), -1)[:, : below.shape[1]] = below.sum(-1)

    def find(self, uniforms: np.ndarray) -> np.ndarray:
        """Return the leaves [S, B] at which the running sum reaches `uniforms` [S, B], in [0, 1), times the total.

        A leaf of 0 is never found where the total is above 0; where it is not, leaf 0 is.
        """
        mass = uniforms * self.totals[:, None]
        rows = np.arange(len(mass))[:, None]
        node = np.zeros(mass.shape, np.int64)
        for level in reversed(self._levels):
            children = level[rows, node]
            running = children.cumsum(-1)
            last = ((children > 0) * np.arange(FANOUT)).max(-1)  # rounding can leave the mass beyond it
            child = np.minimum((running <= mass[..., None]).sum(-1), last)
            before = np.take_along_axis(running - children, child[..., None], -1)[..., 0]
            mass = np.maximum(mass - before, 0.0)
            node = node * FANOUT + child
        return node
