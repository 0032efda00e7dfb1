# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a package that is installed, and keeps others from being imported: mended only where it is."""

from __future__ import annotations

import logging
import sys
from typing import Any

_logger = logging.getLogger("paritas")

#: What a library of operators declares goes with it.
_declared: list[Any] = []


def mend_torchvision() -> bool:
    """Make torchvision importable where it is a wheel for CUDA beside a torch without; whether that was needed.

    It fails as it describes two of its operators, which it could not load, and transformers fails with it. Declared,
    they are known, and nothing here calls them. Nothing is done where torchvision is not installed, or imports. To be
    called before transformers is imported.
    """
    try:
        import torchvision
    except ModuleNotFoundError:
        return False
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    import torchvision

    _logger.warning(
        "torchvision %s was built for another torch than %s: it is imported without operators of its own, which these "
        "models do not call (nms raises)",
        torchvision.__version__,
        torch.__version__,
    )
    return True
