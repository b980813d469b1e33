import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.memory.sum_tree import SumTree


def reference(leaves: np.ndarray, uniform: float) -> int:
    """Return the leaf at which the running sum exceeds a fraction of the total."""
    mass, running = uniform * leaves.sum(), 0.0
    for index, leaf in enumerate(leaves):
        running += leaf
        if running > mass:
            return index
    return int(np.flatnonzero(leaves)[-1])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=400), st.integers(0, 2**32 - 1))
def test_draws_are_in_proportion_to_the_leaves(numbers: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = np.array([numbers, numbers[::-1]], float)
    tree = SumTree(2, len(numbers))
    order = np.stack([rng.permutation(len(numbers)) for _ in range(2)])
    tree.set(order, np.take_along_axis(leaves, order, 1))
    assert tree.totals.tolist() == leaves.sum(1).tolist()
    if leaves.sum() == 0:
        return
    uniforms = rng.random((2, 50))
    drawn = tree.find(uniforms)
    for s in range(2):
        assert drawn[s].tolist() == [reference(leaves[s], uniform) for uniform in uniforms[s]]


def test_a_leaf_of_zero_is_never_found_at_the_ends() -> None:
    tree = SumTree(1, 600)
    tree.set(np.array([[17, 18, 300]]), np.array([[0.1, 0.2, 0.3]]))
    ends = np.array([[0.0, 1e-300, 0.5, np.nextafter(1.0, 0.0)]])
    assert tree.find(ends).tolist() == [[17, 17, 300, 300]]


def test_sums_do_not_drift_and_do_not_depend_on_order() -> None:
    rng = np.random.default_rng(0)
    tree, other = SumTree(1, 300), SumTree(1, 300)
    for _ in range(200):
        tree.set(rng.integers(300, size=(1, 64)), rng.random((1, 64)))
    other.leaves[:] = tree.leaves
    other.rebuild()
    assert other.totals.tolist() == tree.totals.tolist()
    tree.set(np.arange(300)[None], np.zeros((1, 300)))
    assert tree.totals.tolist() == [0.0]


def test_the_leaves_of_one_session_are_set_alone() -> None:
    tree = SumTree(3, 5)
    tree.set(np.array([[2]]), np.array([[4.0]]), np.array([1]))
    assert tree.totals.tolist() == [0.0, 4.0, 0.0]
