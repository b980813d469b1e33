import torch

import lab  # noqa: F401 - before the first matrix product, for what it asks of the library that makes them

torch.set_num_threads(1)
