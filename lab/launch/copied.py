"""The code of a submission, copied for jobs that wait, so that later edits do not reach them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.types import HydraContext
from omegaconf import DictConfig

from lab.run.code.copy import CodeCopy
from lab.run.code.snapshot import CodeSnapshot
from lab.sweep_spec import read_max_file_size


def copy_code(config: DictConfig, root: Path) -> CodeCopy:
    """Copy the code of this process into the run directory of a sweep."""
    return CodeSnapshot.take(root, max_size=read_max_file_size(config)).freeze(root / ".code")


def with_config_groups_of(code: CodeCopy, context: HydraContext) -> HydraContext:
    """Return a Hydra context that reads config groups from a copy of the code."""
    loader: Any = copy.deepcopy(context.config_loader)
    for element in loader.config_search_path.get_path():
        before, scheme, path = str(element.path).rpartition("file://")
        if before == "" and element.path is not None:  # a folder, with or without file://; pkg:// paths stay
            element.path = f"{scheme}{code.translate(path)}"
    loader.repository = ConfigRepository(config_search_path=loader.config_search_path)
    return HydraContext(config_loader=loader, callbacks=context.callbacks)
