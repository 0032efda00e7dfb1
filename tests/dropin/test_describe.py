# SPDX-License-Identifier: Apache-2.0
"""What a model is, as text: what no result depends on is no part of it, whatever the model's library has made of it."""

from __future__ import annotations

import logging

import torch

from paritas.dropin.describe import describe
from paritas.dropin.watch import Watch


class OwnLogger(logging.Logger):
    """As NNCF puts one in the place of logging's, for all modules that are imported after it."""


def test_what_a_logger_remembers_is_no_change_of_a_model() -> None:
    model = torch.nn.Linear(2, 2)
    model.logger = OwnLogger("own")  # type: ignore[assignment]
    before, watch = describe(model, {}, lambda value: "a tensor"), Watch(model)
    model.logger.isEnabledFor(logging.DEBUG)  # and keeps the answer
    assert not watch.changed()
    assert describe(model, {}, lambda value: "a tensor") == before
    model.logger = logging.getLogger("another")  # type: ignore[assignment]
    assert describe(model, {}, lambda value: "a tensor") == before
