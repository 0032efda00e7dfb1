# SPDX-License-Identifier: Apache-2.0
"""A model on an engine as an object: copied, pickled, hooked, differentiated, and its caches in others' hands."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from changes import llama

import paritas
import paritas.transformers as ours
from paritas.errors import InputError

pytest.importorskip("openvino")

IDS = torch.randint(3, 90, (2, 7), generator=torch.Generator().manual_seed(1))


def near(got: torch.Tensor, want: torch.Tensor) -> bool:
    return got.shape == want.shape and got.dtype == want.dtype and torch.allclose(got, want, atol=1e-4)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return llama(), ours.port_model(llama(), engine="openvino")


def logits(model: Any, **arguments: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False, **arguments).logits


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - what was written a moment before


def saved(model: Any) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, pickled, saved],
    ids=["deepcopy", "pickle", "save"],
)
def test_a_copy_is_a_model_of_its_own(pair: tuple[Any, Any], copied: Callable[[Any], Any]) -> None:
    original, port = pair
    logits(port)
    other = copied(port)
    assert type(other) is type(port)
    assert other.engine == "openvino"
    assert other.ports == []
    with torch.no_grad():
        other.lm_head.weight.mul_(3)
    assert near(logits(other) / 3, logits(original))
    assert near(logits(port), logits(original))
    layer = copied(port.model.layers[0].mlp)  # a part of it: PyTorch's
    hidden = torch.ones(1, 2, 32)
    assert near(layer(hidden), original.model.layers[0].mlp(hidden))


def test_the_signatures_are_the_originals(pair: tuple[Any, Any]) -> None:
    original, port = pair
    for name in ("__init__", "forward", "generate"):
        assert inspect.signature(getattr(type(port), name)) == inspect.signature(getattr(type(original), name))
    inner = (port.model.layers[0].forward, original.model.layers[0].forward)
    assert inspect.signature(inner[0]) == inspect.signature(inner[1])
    assert list(port.state_dict()) == list(original.state_dict())


def test_the_bases_are_the_originals_too(pair: tuple[Any, Any]) -> None:
    original, port = pair
    assert set(type(original).__bases__) <= set(type(port).__bases__)
    assert [cls for cls in type(port).__mro__ if issubclass(type(original), cls)] == list(type(original).__mro__)


def test_hooks_of_inner_modules_are_called_by_the_original(pair: tuple[Any, Any]) -> None:
    original, port = pair
    want = logits(original)
    for model in pair:
        model.model.layers[0].register_forward_hook(lambda module, given, out: out * 2, prepend=True)
        seen: list[Any] = []
        model.model.layers[1].register_forward_pre_hook(lambda module, given, to=seen: to.append(given[0].shape))
        doubled = logits(model)
        assert seen == [(2, 7, 32)]
        assert not near(doubled, want)
        generated = model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0)
        for layer in model.model.layers:
            layer._forward_hooks.clear()
            layer._forward_pre_hooks.clear()
        if model is original:
            expected = doubled, generated
    assert near(doubled, expected[0])
    assert generated.tolist() == expected[1].tolist()
    assert near(logits(port), want)


def test_training_mode_is_pytorchs(pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    original, port = pair
    port.train()
    loss = port(input_ids=IDS, labels=IDS).loss
    loss.backward()
    original.train()
    want = original(input_ids=IDS, labels=IDS).loss
    want.backward()
    assert near(loss, want)
    assert near(port.lm_head.weight.grad, original.lm_head.weight.grad)
    port.eval()
    original.eval()
    assert near(logits(port), logits(original))


@pytest.mark.slow
def test_pages_of_a_batch_that_changes_are_pytorchs(pair: tuple[Any, Any]) -> None:
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12]]
    greedy = hf.GenerationConfig(max_new_tokens=3, do_sample=False, eos_token_id=-1, pad_token_id=0)
    want, got = (model.generate_batch(inputs=prompts, generation_config=greedy) for model in pair)
    assert {name: one.generated_tokens for name, one in got.items()} == {
        name: one.generated_tokens for name, one in want.items()
    }
    assert all(len(one.generated_tokens) == 3 for one in got.values())


def test_what_the_original_does_not_take_is_its_own_error(pair: tuple[Any, Any]) -> None:
    said = []
    for model in pair:
        with pytest.raises(RuntimeError) as raised, torch.no_grad():
            model(inputs_embeds=torch.zeros(2, 7, 31), use_cache=False)
        said.append((raised.type, str(raised.value)))
    assert said[0] == said[1]


@pytest.mark.parametrize(("dtype", "nearest"), [(torch.float16, 2e-2), (torch.float64, 1e-12)])
def test_an_answer_has_the_models_dtype(dtype: torch.dtype, nearest: float) -> None:
    original, port = (model.to(dtype) for model in (llama(), ours.port_model(llama(), engine="openvino")))
    want, got = logits(original), logits(port)
    assert got.dtype == want.dtype == dtype
    assert torch.allclose(got, want, atol=nearest)


def test_gradients_by_inputs_are_refused_when_they_are_asked_for(pair: tuple[Any, Any]) -> None:
    original, port = pair
    embeds = original.get_input_embeddings()(IDS).detach().requires_grad_()
    out = port(inputs_embeds=embeds, use_cache=False).logits
    assert near(out, original(inputs_embeds=embeds, use_cache=False).logits)
    with pytest.raises(InputError, match="no gradient by inputs_embeds"):
        out.sum().backward()


def test_gradients_by_weights_are_refused_when_they_are_asked_for(pair: tuple[Any, Any]) -> None:
    _, port = pair
    head = torch.nn.Linear(99, 2)
    with pytest.raises(InputError, match=r"no gradient by its weights.*model\.train"):
        head(port(input_ids=IDS).logits).sum().backward()
    with torch.no_grad():
        assert not port(input_ids=IDS).logits.requires_grad
    port.requires_grad_(False)
    head(port(input_ids=IDS).logits).sum().backward()
    port.requires_grad_(True)


def test_a_port_of_it_is_a_port_of_the_original(pair: tuple[Any, Any]) -> None:
    _, port = pair
    made = paritas.port(port, engine="torch", inputs={"input_ids": IDS})
    assert made.verify().verdict == "agrees"
    logits(port)
    assert type(port.ports[0].original()) is hf.LlamaForCausalLM


# --- caches --------------------------------------------------------------------------------------------------


def cached(model: Any, **arguments: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=IDS, **arguments)


def going_on(model: Any, cache: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS[:1, :2].expand(len(cache.layers[0].keys), 2), past_key_values=cache).logits


EDITS: dict[str, Callable[[Any], Any]] = {
    "none": lambda cache: cache,
    "copied": copy.deepcopy,
    "pickled": pickled,
    "cropped": lambda cache: cache.crop(-3) or cache,
    "repeated": lambda cache: cache.batch_repeat_interleave(2) or cache,
    "selected": lambda cache: cache.batch_select_indices(torch.tensor([1])) or cache,
    "reordered": lambda cache: cache.reorder_cache(torch.tensor([1, 0])) or cache,
    "written into": lambda cache: cache.layers[1].keys.mul_(0.5) is None or cache,
    "replaced": lambda cache: setattr(cache.layers[0], "values", cache.layers[0].values * 2) or cache,
    "given more": lambda cache: (
        [cache.update(torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 8), i) for i in (0, 1)] and cache
    ),
    "made of its tensors": lambda cache: hf.DynamicCache([(entry[0], entry[1]) for entry in cache]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("kind", ["none given", "dynamic", "static"])
def test_a_cache_is_anybodys(pair: tuple[Any, Any], edit: str, kind: str) -> None:
    found = []
    for model in pair:
        given = {
            "none given": lambda: None,
            "dynamic": lambda: hf.DynamicCache(config=pair[0].config),
            "static": lambda: hf.StaticCache(config=pair[0].config, max_cache_len=24),
        }[kind]()
        if edit not in ("none", "copied", "pickled", "reordered", "written into") and kind == "static":
            return  # transformers' own cannot
        cache = cached(model, **({} if given is None else {"past_key_values": given})).past_key_values
        assert given is None or cache is given
        cache = EDITS[edit](cache)
        found.append((cache, going_on(model, cache)))
    (want, first), (got, second) = found
    assert near(second, first)
    assert type(got).__name__ == type(want).__name__
    assert isinstance(got, type(want))
    assert int(got.get_seq_length()) == int(want.get_seq_length())
    assert len(got) == len(want) == 2
    assert near(got.layers[1].keys, want.layers[1].keys)
    assert type(got) is type(want)
    assert near(going_on(pair[0], got), going_on(pair[0], want))  # in the original's hands


@pytest.mark.slow
def test_a_static_cache_is_returned_where_one_was_asked_for(pair: tuple[Any, Any]) -> None:
    told = {"do_sample": False, "max_new_tokens": 4, "pad_token_id": 0, "return_dict_in_generate": True}
    want, got = (model.generate(IDS, cache_implementation="static", **told) for model in pair)
    assert got.sequences.tolist() == want.sequences.tolist()
    assert isinstance(got.past_key_values, hf.StaticCache)
    assert near(got.past_key_values.layers[0].keys, want.past_key_values.layers[0].keys)


@pytest.mark.slow
def test_a_window_is_all_that_is_left_in_a_cache_that_was_given_back() -> None:
    torch.manual_seed(0)
    config = hf.Gemma3TextConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, head_dim=8, num_key_value_heads=2,
        intermediate_size=48, sliding_window=4, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    original = hf.Gemma3ForCausalLM(config).eval()
    port = ours.port_model(copy.deepcopy(original), engine="openvino")
    caches = [hf.DynamicCache(config=config) for _ in range(2)]
    want, got = (cached(model, past_key_values=cache) for model, cache in zip((original, port), caches, strict=True))
    assert near(got.logits, want.logits)
    for one, other in zip(caches[1].layers, caches[0].layers, strict=True):
        assert near(one.keys, other.keys)
    # The window of the original's cache has forgotten what the engine would want: PyTorch goes on.
    assert near(going_on(port, caches[1]), going_on(original, caches[0]))


# --- torch.inference_mode ----------------------------------------------------------------------


def test_everything_may_happen_in_inference_mode(tmp_path: Any) -> None:
    original = llama()
    original.save_pretrained(tmp_path)
    want = logits(original)
    with torch.inference_mode():
        for make in (ours.LlamaForCausalLM, ours.AutoModelForCausalLM):
            port = make.from_pretrained(tmp_path, engine="openvino")
            assert near(port(input_ids=IDS, use_cache=False).logits, want)
            assert len(port.ports) == 1
            port.lm_head.weight.mul_(3)
            assert near(port(input_ids=IDS, use_cache=False).logits / 3, want)


def test_what_was_cast_in_inference_mode_is_pytorchs(caplog: Any) -> None:
    port = ours.port_model(llama(), engine="openvino")
    with torch.inference_mode():
        port.double().float()
        want = port(input_ids=IDS, use_cache=False).logits
        port.lm_head.weight.mul_(3)  # a tensor of inference mode has no count of its writes
        assert near(port(input_ids=IDS, use_cache=False).logits / 3, want)
    assert "torch.inference_mode" in caplog.text


# --- what no graph can be made of --------------------------------------------------------------


def test_what_cannot_be_traced_is_computed_by_pytorch_and_said_once(caplog: Any) -> None:
    class Branching(hf.LlamaForCausalLM):
        def forward(self, input_ids: Any = None, threshold: Any = None, **kwargs: Any) -> Any:
            if threshold is not None and input_ids.sum() > threshold:
                input_ids = input_ids.flip(1)
            return super().forward(input_ids=input_ids, use_cache=False)

    original = Branching(llama().config).eval()
    port = ours.port_model(copy.deepcopy(original), engine="openvino")
    low, high = torch.tensor(0), torch.tensor(10**6)
    for threshold in (low, high, low):
        with torch.no_grad():
            got, want = (model(input_ids=IDS, threshold=threshold).logits for model in (port, original))
        assert near(got, want)
    said = [record.message for record in caplog.records if "PyTorch computes" in record.message]
    assert len(said) == 1
    assert "test_objects.py" in said[0]
    with torch.no_grad():  # without the branch there is a port
        port(input_ids=IDS)
    assert len(port.ports) == 1


def test_a_token_that_is_not_there_is_an_index_error(pair: tuple[Any, Any]) -> None:
    with pytest.raises(IndexError, match="vocabulary"), torch.no_grad():
        pair[1](input_ids=IDS + 10_000)
