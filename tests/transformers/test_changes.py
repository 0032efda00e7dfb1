# SPDX-License-Identifier: Apache-2.0
"""What is changed after the first call is seen, cheaply; what is not changed costs no new port."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from changes import CHANGES, adapter, adapter_merged, data_in_place, llama, with_adapter

import paritas.transformers as ours
from paritas.dropin import arrays, network
from paritas.dropin.describe import describe
from paritas.dropin.watch import Watch
from work import calls_of

IDS = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(1))


def text(model: torch.nn.Module) -> str:
    names = {id(tensor): name for name, tensor in Watch(model).tensors.items()}
    return describe(model, names, lambda value: pytest.fail(f"{value!r} has no description"))


def forward(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_noticed(change: Callable[[Any], None]) -> None:
    model = llama()
    if change.__name__.startswith("adapter_"):
        adapter(model)
    watch = Watch(model)
    assert not watch.changed()
    weights, description = watch.weights(), text(model)
    change(model)
    assert watch.changed()
    watch.look()
    assert not watch.changed()
    assert (watch.weights(), text(model)) != (weights, description)


def test_an_array_is_looked_at_while_it_lives() -> None:
    model = llama()
    watch = Watch(model)
    held = model.lm_head.weight.detach().numpy()
    assert not watch.changed()  # it was only read
    for value in (1.0, 2.0):
        held[0, 0] = value
        assert watch.changed()
        watch.look()
        assert not watch.changed()
    del held
    assert not watch.changed()
    assert not arrays._handed.keys() & watch._storages.keys()


def test_a_copy_has_the_same_description() -> None:
    model = llama()
    assert text(copy.deepcopy(model)) == text(model) == text(llama())


def test_code_that_is_put_in_the_place_of_a_method_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    watch, before = Watch(model), text(model)
    cls: Any = type(model.model.layers[0].mlp)
    own = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, hidden: own(self, hidden) * 2)
    assert watch.changed()
    assert text(model) != before
    monkeypatch.setattr(cls, "forward", lambda self, hidden: own(self, hidden) * 3)
    third = text(model)
    monkeypatch.setattr(cls, "forward", lambda self, hidden: own(self, hidden) * 2)
    assert before != text(model) != third


def test_a_function_of_the_models_module_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    watch, before = Watch(model := llama()), text(model)
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: (q, k))
    assert watch.changed()
    assert text(model) != before


def test_what_the_originals_code_remembers_is_no_change_of_the_callers() -> None:
    torch.manual_seed(0)
    vision = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
            "intermediate_size": 32, "vocab_size": 99}  # fmt: skip
    model = hf.Qwen2VLModel(hf.Qwen2VLConfig(text_config=text, vision_config=vision)).eval()
    watch = Watch(model)
    names = {id(tensor): name for name, tensor in watch.tensors.items()}
    before, weights = describe(model, names, repr), watch.weights()
    model.rope_deltas = torch.ones(2, 1)
    watch.look()
    assert (describe(model, names, repr), watch.weights()) == (before, weights)


def test_asking_costs_little() -> None:
    watch = Watch(llama())
    watch.changed()
    assert calls_of(watch.changed) < 100


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each port that was captured."""
    made: list[int] = []
    own = network.capture

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return own(*args, **kwargs)

    monkeypatch.setattr(network, "capture", counting)
    return made


def test_an_adapter_switched_off_and_on_again_has_two_ports(captures: list[int]) -> None:
    original, port = llama(), ours.port_model(llama(), engine="torch")
    for model in (original, port):
        adapter(model)
    for disabled in (False, True, False, True):
        for model in (original, port):
            with_adapter(model).disabled = disabled
        assert torch.allclose(forward(port).logits, forward(original).logits, atol=1e-4)
    assert len(captures) == 2
    for model in (original, port):
        adapter_merged(model)
    assert torch.allclose(forward(port).logits, forward(original).logits, atol=1e-4)


def test_what_generation_sets_costs_no_port(captures: list[int]) -> None:
    port = ours.port_model(llama(), engine="torch")
    forward(port)
    port.generation_config.max_new_tokens = 3
    port.name = "mine"
    port.lm_head.weight.requires_grad_(False)
    forward(port)
    forward(port)
    assert len(captures) <= 2  # `name` might be read by some code: it costs one


@pytest.mark.slow
def test_written_through_data_between_two_calls() -> None:
    original, port = llama(), ours.port_model(llama(), engine="torch")
    forward(port)
    for model in (original, port):
        data_in_place(model)
    assert torch.allclose(forward(port).logits, forward(original).logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_after_a_change_the_answer_is_the_originals(change: Callable[[Any], None]) -> None:
    pytest.importorskip("openvino")
    original, port = llama(), ours.port_model(llama(), engine="openvino")
    if change.__name__.startswith("adapter_"):
        for model in (original, port):
            adapter(model)
    forward(port)
    for model in (original, port):
        change(model)
    got, want = forward(port), forward(original)
    assert got.logits.dtype == want.logits.dtype
    if want.logits.dtype == torch.bfloat16:  # as verification judges it
        truth = forward(original.double()).logits
        assert (got.logits - truth).abs().max() <= 2 * (want.logits - truth).abs().max()
    else:
        assert torch.allclose(got.logits, want.logits, atol=1e-3)
    assert (got.hidden_states is None) == (want.hidden_states is None)
