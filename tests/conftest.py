import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

import lab  # noqa: F401 - before the first matrix product, for what it asks of the library that makes them

# Readline, which pytest imports, sets COLUMNS for child processes, in whose messages lines would be broken then. It is
# not in os.environ of this process, so that only a value that is set first can be deleted.
os.environ["COLUMNS"] = ""
del os.environ["COLUMNS"]
torch.set_num_threads(1)
settings.register_profile("lab", deadline=None)  # tests run beside others, on machines of any speed
settings.load_profile("lab")


@pytest.fixture(autouse=True)
def small_numbers() -> Iterator[None]:
    """Undo what a Session sets for its process, in which hypothesis would miss the smallest numbers."""
    yield
    torch.set_flush_denormal(False)
