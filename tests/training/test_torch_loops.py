# SPDX-License-Identifier: Apache-2.0
"""torch's loops train a model that MindSpore computes: the same gradients, the same curve, dropout and all."""

from __future__ import annotations

import copy
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T
from side_by_side import Batch, both, furthest, train, worst_gradient

import paritas
from families import CLIP_TEXT, CLIP_VISION, IDS, LAYERS, T5, TEXT, VISION
from paritas.errors import InputError

pytest.importorskip("mindspore")

Made = tuple[Any, list[Batch], dict[str, Any]]

GENERATOR = torch.Generator()


def _ids(*shape: int, high: int = 120) -> torch.Tensor:
    return torch.randint(2, high, shape, generator=GENERATOR)


def _padded(ids: torch.Tensor) -> torch.Tensor:
    mask = torch.ones_like(ids)
    mask[-1, -3:] = 0
    return mask


def bert() -> Made:
    model = T.BertForSequenceClassification(T.BertConfig(**TEXT, **LAYERS, max_position_embeddings=64, num_labels=3))
    ids = [_ids(4, 12) for _ in range(3)]
    return model, [{"input_ids": i, "attention_mask": _padded(i), "labels": i[:, 0] % 3} for i in ids], {}


def gpt2() -> Made:
    model = T.GPT2LMHeadModel(T.GPT2Config(vocab_size=120, n_embd=32, n_head=4, n_layer=2, n_positions=64, **IDS))
    ids = [_ids(2, 10) for _ in range(3)]
    return model, [{"input_ids": i, "labels": i.masked_fill(i > 100, -100)} for i in ids], {}


def t5() -> Made:
    model = T.T5ForConditionalGeneration(T.T5Config(**T5, decoder_start_token_id=0))
    ids = [_ids(2, 9) for _ in range(3)]
    return model, [{"input_ids": i, "attention_mask": _padded(i), "labels": i[:, :5].contiguous()} for i in ids], {}


def vit() -> Made:
    config = T.ViTConfig(**VISION, **LAYERS, num_labels=5, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    batches = [
        {"pixel_values": torch.randn(3, 3, 32, 32, generator=GENERATOR), "labels": _ids(3, high=5)} for _ in range(3)
    ]
    return T.ViTForImageClassification(config), batches, {}


def clip() -> Made:
    model = T.CLIPModel(T.CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=24))
    batches = [
        {
            "input_ids": _ids(3, 8), "pixel_values": torch.randn(3, 3, 32, 32, generator=GENERATOR),
            "return_loss": True,
        }
        for _ in range(3)
    ]  # fmt: skip
    return model, batches, {}


def llama() -> Made:
    model = T.LlamaForCausalLM(T.LlamaConfig(**TEXT, **LAYERS, num_key_value_heads=2, attention_dropout=0.1, **IDS))
    ids = [_ids(2, 10) for _ in range(3)]
    return model, [{"input_ids": i, "labels": i} for i in ids], {}


def unet() -> Made:
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        dropout=0.1,
    )  # fmt: skip
    batches = [
        {"sample": torch.randn(2, 3, 8, 8, generator=GENERATOR), "timestep": _ids(2, high=1000)} for _ in range(3)
    ]
    return model, batches, {"loss": lambda out: (out.sample - 0.5).pow(2).mean()}


def convolutions() -> Made:
    """Running statistics, masks of whole channels."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.2), nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8, momentum=0.3, affine=False), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4),
    )  # fmt: skip
    batches = [{"input": torch.randn(5, 3, 8, 8, generator=GENERATOR)} for _ in range(3)]
    return model, batches, {"loss": lambda out: (out - 0.3).pow(2).mean()}


def lora() -> Made:
    peft = pytest.importorskip("peft")
    model, batches, how = gpt2()
    config = peft.LoraConfig(target_modules=["c_attn"], r=4, lora_dropout=0.1, init_lora_weights=False)
    return peft.get_peft_model(model, config), batches, how


MODELS: list[Any] = [
    bert,
    convolutions,
    *(pytest.param(one, marks=pytest.mark.slow) for one in (gpt2, t5, vit, clip, llama, unet, lora)),
]


def _built(make: Callable[[], Made]) -> Made:
    torch.manual_seed(0)
    GENERATOR.manual_seed(0)
    model, batches, how = make()
    return model.train(), batches, how


@pytest.mark.parametrize("make", MODELS)
def test_gradients_and_curve_are_pytorch_s(make: Callable[[], Made]) -> None:
    model, batches, how = _built(make)
    want, got, exact = both(model, batches, 20, **how)
    error, whose = worst_gradient(want, got, exact)
    assert error <= 1e-5, whose
    assert furthest(want, got) <= 1e-3
    assert type(got.model).__name__ == type(model).__name__ and isinstance(got.model, type(model))


def test_a_gradient_that_is_off_is_seen() -> None:
    model, batches, _ = _built(bert)
    want = train(copy.deepcopy(model), batches, 1)
    model.classifier.weight.register_hook(lambda gradient: gradient * 1.001)
    error, whose = worst_gradient(want, train(model, batches, 1), want)
    assert error > 5e-4 and whose == "classifier.weight"


# --- what loops do beside ------------------------------------------------------------------------------------


def _small() -> Any:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)).train()


def _x(seed: int, rows: int = 5) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """The same weights, on PyTorch and on MindSpore."""
    plain = _small()
    return plain, paritas.trainable(copy.deepcopy(plain))


def _two_forwards(model: Any) -> None:
    first, second = model(_x(1)), model(_x(2))
    (first.pow(2).mean() + 2 * second.sum()).backward()


def _other_order(model: Any) -> None:
    first, second = model(_x(1)), model(_x(2))
    second.sum().backward()
    first.pow(2).mean().backward()


def _accumulated(model: Any) -> None:
    for seed in range(3):
        (model(_x(seed)).pow(2).mean() / 3).backward()


def _other_sizes(model: Any) -> None:
    model(_x(1)).sum().backward()
    model(_x(1, rows=1)).sum().backward()


def _in_evaluation_mode(model: Any) -> None:
    model.eval()
    model(_x(1)).pow(2).sum().backward()
    model.train()


def _frozen(model: Any) -> None:
    model[0].requires_grad_(False)
    model(_x(1)).pow(2).sum().backward()
    model[0].requires_grad_(True)


def _written(model: Any) -> None:
    """Weights that somebody writes to are the engine's at once, also where they are replaced."""
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[3].weight.data = model[3].weight.detach() + 1
    model(_x(1)).pow(2).sum().backward()


@pytest.mark.parametrize(
    "loop",
    [_two_forwards, _other_order, _accumulated, _other_sizes, _in_evaluation_mode, _frozen, _written],
    ids=lambda loop: loop.__name__.strip("_"),
)
def test_gradients_of(pair: tuple[Any, Any], loop: Callable[[Any], None]) -> None:
    for model in pair:
        model.zero_grad()
        torch.manual_seed(3)
        loop(model)
    for (name, want), got in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
        assert (want.grad is None) == (got.grad is None), name
        if want.grad is not None:
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-5, atol=1e-6, msg=name)


def test_an_input_has_a_gradient(pair: tuple[Any, Any]) -> None:
    found = []
    for model in pair:
        torch.manual_seed(3)
        x = _x(1).requires_grad_()
        model(x).pow(2).sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)


def test_what_torch_refuses_is_refused(pair: tuple[Any, Any]) -> None:
    model = pair[1]
    loss = model(_x(1)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
    loss = model(_x(1)).sum()
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_model_is_saved_and_copied_as_torch_s(pair: tuple[Any, Any]) -> None:
    plain, model = pair
    assert list(model.state_dict()) == list(plain.state_dict())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].weight.zero_()
        assert model[0].weight.abs().sum() > 0
        torch.manual_seed(0)
        assert not torch.equal(twin(_x(1)), model(_x(1)))


@pytest.mark.parametrize(
    ("model", "engine", "message"),
    [
        (torch.nn.Linear(2, 2), "openvino", 'openvino computes no gradients: .* engine="mindspore" does'),
        (torch.nn.Linear(2, 2).half(), "mindspore", "has weights of float16. .*model.float"),
    ],
)
def test_what_cannot_be_trained_is_refused(model: Any, engine: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        paritas.trainable(model, engine=engine)


def test_hooks_inside_are_refused(pair: tuple[Any, Any]) -> None:
    model = pair[1]
    handle = model[0].register_forward_hook(lambda *given: None)
    try:
        with pytest.raises(InputError, match="0 has hooks"):
            model(_x(1))
    finally:
        handle.remove()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_pytorch_s(dtype: torch.dtype) -> None:
    """The dtype that is returned, its numbers, and gradients that are rounded as PyTorch's are."""
    plain = _small()
    pair = plain, paritas.trainable(copy.deepcopy(plain))
    outputs, gradients = [], []
    for model in pair:
        model.zero_grad()
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype=dtype):
            out = model(_x(1))
        out.float().pow(2).sum().backward()
        outputs.append(out)
        gradients.append([p.grad for p in model.parameters()])
    last = torch.finfo(dtype).eps
    assert outputs[1].dtype == dtype
    torch.testing.assert_close(outputs[1], outputs[0], rtol=last, atol=0)
    torch.manual_seed(3)
    exact = torch.autograd.grad(pair[0](_x(1)).pow(2).sum(), list(pair[0].parameters()))
    for got, want, true in zip(gradients[1], gradients[0], exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).abs().max() <= 4 * last * want.abs().max()
        assert (got - true).abs().max() > 1e-5 * true.abs().max()  # it is not float32 that was computed


@pytest.mark.slow
def test_the_recipe_s_perplexity_is_pytorch_s() -> None:
    main = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "training" / "characters.py"))["main"]
    want, got = main()
    assert got == pytest.approx(want, rel=1e-3) and want < 2


def test_labels_out_of_range_are_refused() -> None:
    model, batches, _ = _built(bert)
    model = paritas.trainable(model)
    model(**batches[0])
    with pytest.raises(InputError, match=r"labels holds 3 at \[1\]; the model knows 0 to 2, and -100 for what is left"):
        model(**{**batches[0], "labels": torch.tensor([0, 3, 1, 2])})
