# SPDX-License-Identifier: Apache-2.0
"""A re-implementation beside its original: each planted fault is named at its module, and nothing right is accused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rewritten import BERT_RULES, GPT2_RULES, Bert, Gpt2
from torch import nn

import paritas
from paritas.apps.reimplementation.compare import suggested
from paritas.apps.reimplementation.report import Comparison
from paritas.errors import InputError
from paritas.run.torch.float64 import InFloat64


def _noisy(model: nn.Module) -> nn.Module:
    """Scales of 1 and biases of 0 would hide that they are missing or swapped."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture(scope="module")
def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=99, n_positions=32, n_embd=32, n_layer=3, n_head=4, bos_token_id=0, eos_token_id=1
    )
    return _noisy(transformers.GPT2Model(config))


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40,
    )  # fmt: skip
    return _noisy(transformers.BertModel(config))


def _gpt2(model: nn.Module, fault: str = "", **options: Any) -> Comparison:
    return paritas.compare(model, Gpt2(fault=fault), rules=tomllib.loads(GPT2_RULES), **options)


def test_a_right_one_agrees_to_the_last_bits_of_float64(gpt2: nn.Module) -> None:
    report = _gpt2(gpt2)
    assert report.verdict == "agrees", str(report)
    assert report.error < 1e-13
    assert report.guilty == ()
    assert report.first_divergence is None
    assert {row.precision for row in report.outputs} == {"float64", "float32"}
    assert {row.case for row in report.outputs} == {"example", "right padding"}
    assert str(report).startswith("agrees: rewritten.Gpt2 against transformers.models.gpt2.modeling_gpt2.GPT2Model")


#: The fault, the module that is guilty of it on both sides, what is said of it.
FAULTS = [
    ("gelu", "h.1.mlp.act", "blocks.1.mlp.act", ""),
    ("eps", "h.1.ln_1", "blocks.1.norm1", ""),
    ("scale", "h.1.attn", "blocks.1.attention", "out gets another input"),
    ("swapped", "h.1.attn", "blocks.1.attention", "out gets another input"),
    ("heads", "h.1.attn", "blocks.1.attention", "return self.out(joined.flatten(2))"),
    ("post-norm", "h.1", "blocks.1", "attention gets another x"),
    ("residual", "h.1", "blocks.1", "look after rewritten.py"),
    ("position", "", "", "blocks.0 gets another x"),
]


@pytest.mark.parametrize(("fault", "original", "other", "words"), FAULTS, ids=lambda value: value or None)
def test_each_planted_fault_is_named_where_it_is(
    gpt2: nn.Module, fault: str, original: str, other: str, words: str
) -> None:
    report = _gpt2(gpt2, fault)
    assert report.verdict == "diverges"
    assert [(row.original.path, row.other.path) for row in report.guilty] == [(original, other)], str(report)
    assert words in report.guilty[0].first
    assert report.first_divergence is not None
    assert report.first_divergence.original.path.startswith(original)
    text = str(report)
    assert "rewritten.py:" in text
    assert "modeling_gpt2.py:" in text


def test_an_eps_that_float32_cannot_see_diverges_in_float64(gpt2: nn.Module) -> None:
    found = {row.precision: row.found for row in _gpt2(gpt2, "eps").outputs if row.case == "example"}
    assert found["float32"].agrees
    assert found["float64"].diverges


def test_a_mask_is_compared_where_it_hides_something(gpt2: nn.Module) -> None:
    report = _gpt2(gpt2, "mask")
    assert report.verdict == "diverges"
    assert {row.case for row in report.outputs if row.found.diverges} == {"right padding"}
    assert all("mask" in row.own_inputs[0] for row in report.guilty)
    assert "with its own mask[1, 1, 16, 16], of which the original's call has no twin" in str(report)


def test_a_layer_of_other_parts_is_compared_as_a_whole(bert: nn.Module) -> None:
    rules = tomllib.loads(BERT_RULES)
    report = paritas.compare(bert, Bert(), rules=rules)
    assert report.verdict == "agrees", str(report)
    assert "encoder.layer.0.attention.self.query" in report.apart
    wrong = paritas.compare(bert, Bert(fault="act"), rules=rules)
    assert [row.original.path for row in wrong.guilty] == ["encoder.layer.0", "encoder.layer.1"]
    assert wrong.guilty[0].first.startswith("down gets another input")


def test_heads_in_the_wrong_order_are_found(bert: nn.Module) -> None:
    rules = tomllib.loads(BERT_RULES)
    del rules["weight"][4]["heads"]  # the same shapes: no check of weights can see it
    report = paritas.compare(bert, Bert(), rules=rules)
    assert report.weights.complete
    assert report.verdict == "diverges"
    assert report.guilty[0].first.startswith("out gets another input")


def test_the_models_stay_as_they_are(gpt2: nn.Module) -> None:
    other = Gpt2()
    before = {name: value.clone() for name, value in [*gpt2.state_dict().items(), *other.state_dict().items()]}
    paritas.compare(gpt2, other, rules=tomllib.loads(GPT2_RULES))
    after = dict([*gpt2.state_dict().items(), *other.state_dict().items()])
    assert all(torch.equal(before[name], after[name]) and after[name].dtype == before[name].dtype for name in before)


# --- weights that do not fit -------------------------------------------------------------------


def test_what_has_no_place_is_told_and_the_verdict_is_incomplete(gpt2: nn.Module) -> None:
    rules = tomllib.loads(GPT2_RULES)
    rules["weight"] = [rule for rule in rules["weight"] if "ln_f" not in rule["from"]]
    report = paritas.compare(gpt2, Gpt2(), rules=rules)
    assert report.verdict == "incomplete"
    assert set(report.weights.unmatched) == {"ln_f.weight", "ln_f.bias"}
    assert set(report.weights.missing) == {"norm.weight", "norm.bias"}
    assert "from = 'ln_f\\.(weight|bias)'\nto = 'norm.\\1'" in report.weights.suggestion
    assert report.outputs == ()
    assert report.unseen["outputs"] == "not all weights are the original's, so the outputs say nothing"
    # What has all its weights is compared by itself all the same.
    assert any(row.original.path == "h.2" and row.alone.agrees for row in report.modules)


def test_a_fault_is_named_even_if_a_weight_is_missing(gpt2: nn.Module) -> None:
    rules = tomllib.loads(GPT2_RULES)
    rules["weight"] = [rule for rule in rules["weight"] if "ln_f" not in rule["from"]]
    report = paritas.compare(gpt2, Gpt2(fault="gelu"), rules=rules)
    assert report.verdict == "diverges"
    assert [row.original.path for row in report.guilty] == ["h.1.mlp.act"]


@pytest.mark.parametrize("which", ["gpt2", "bert"])
def test_the_suggested_rules_are_right(which: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(which)
    other, given = (Gpt2(), GPT2_RULES) if which == "gpt2" else (Bert(), BERT_RULES)
    rules = tomllib.loads(suggested(model, other))
    known = tomllib.loads(given)
    if which == "bert":  # what no shape tells
        next(rule for rule in rules["weight"] if "concat" in rule)["heads"] = 4
    report = paritas.compare(model, other, rules={**known, **rules})
    assert report.verdict == "agrees", str(report)
    with pytest.raises(InputError, match="All weights have their places"):
        suggested(model, other, {**known, **rules})


class _Plain(nn.Module):
    def __init__(self, shape: tuple[int, int] = (4, 6)):
        super().__init__()
        self.dense = nn.Linear(*shape)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(x)


@pytest.mark.parametrize(
    ("original", "other", "hint"),
    [
        ((4, 6), (6, 4), "dense.weight [6, 4] -> dense.weight [4, 6]; transpose = true fits"),
        ((4, 12), (4, 4), "dense.weight [12, 4] -> dense.weight [4, 4]; split = 0 into 3 fits"),
        ((4, 6), (4, 12), "dense.weight [6, 4] -> dense.weight [12, 4]; concat = 0 of 2 fits"),
        ((4, 6), (4, 7), "dense.weight [6, 4] -> dense.weight [7, 4]"),
    ],
)
def test_a_misfit_shows_both_shapes_and_what_would_fit(original: Any, other: Any, hint: str) -> None:
    report = paritas.compare(_Plain(original), _Plain(other), inputs={"x": torch.ones(2, original[0])})
    assert hint in [str(misfit) for misfit in report.weights.misfits]
    assert report.verdict == "incomplete"


def test_an_excuse_is_repeated_in_the_report() -> None:
    class More(_Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("steps", torch.zeros(3))

    skip = {"skip": [{"from": "steps", "because": "counts batches of the training"}]}
    report = paritas.compare(More(), _Plain(), rules=skip, inputs={"x": torch.ones(2, 4)})
    assert report.verdict == "agrees"
    assert "left out: steps: counts batches of the training" in str(report)


def test_weights_that_are_tied_in_one_model_only_are_found() -> None:
    class Two(nn.Module):
        def __init__(self, tied: bool):
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            if tied:
                self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))

    report = paritas.compare(Two(False), Two(True), inputs={"x": torch.ones(2, 4)})
    assert [misfit.hint for misfit in report.weights.misfits] == ["tied to another weight there"]
    assert paritas.compare(Two(True), Two(False), inputs={"x": torch.ones(2, 4)}).verdict == "agrees"


def test_a_weight_that_no_output_depends_on_is_not_called_right() -> None:
    class Unused(_Plain):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(2, 2)

    report = paritas.compare(Unused(), Unused(), inputs={"x": torch.ones(2, 4)})
    assert report.verdict == "incomplete"
    assert report.unseen["spare.weight"] == "no output depends on it with these inputs"


def test_the_checkpoint_is_written_under_the_new_names(gpt2: nn.Module, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    file = tmp_path / "new.safetensors"
    _gpt2(gpt2, write=file)
    other = Gpt2().eval()
    other.load_state_dict(load_file(file))
    ids = torch.randint(0, 99, (2, 9))
    with torch.no_grad():
        want, got = gpt2(ids).last_hidden_state, other(ids, torch.ones_like(ids))
    torch.testing.assert_close(got, want)
    with pytest.raises(InputError, match="is not written: 40 weights are unmatched, 40 missing"):
        paritas.compare(gpt2, Gpt2(), write=tmp_path / "none.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["new.safetensors"]


# --- inputs, outputs, reports ------------------------------------------------------------------


def test_what_the_other_model_calls_otherwise_is_told(gpt2: nn.Module) -> None:
    rules = tomllib.loads(GPT2_RULES)
    del rules["inputs"]
    report = paritas.compare(gpt2, Gpt2(), rules=rules)
    assert report.verdict == "incomplete"
    assert (
        "Gpt2.forward takes ids, mask, and no input_ids: say in the rules which is which"
        in report.unseen['case "example"']
    )


def test_an_output_without_a_twin_is_incomplete(bert: nn.Module) -> None:
    class First(Bert):
        def forward(self, input_ids, attention_mask, token_type_ids):
            return super().forward(input_ids, attention_mask, token_type_ids)[0]

    report = paritas.compare(bert, First(), rules=tomllib.loads(BERT_RULES))
    assert report.verdict == "incomplete"
    assert "output pooler_output" in report.unseen


def test_the_report_is_json_and_markdown(gpt2: nn.Module) -> None:
    report = _gpt2(gpt2, "gelu")
    data = json.loads(report.to_json())
    assert data["verdict"] == "diverges"
    assert data["guilty"] == ["h.1.mlp.act"]
    assert len(data["modules"]) == len(report.modules)
    text = report.to_markdown()
    assert text.startswith("# Re-implementation: diverges: rewritten.Gpt2")
    assert "| h.1.mlp.act (NewGELUActivation) | blocks.1.mlp.act (GELU) |" in text


def test_float32_inside_a_model_does_not_round_in_float64() -> None:
    class Casts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.float() + x.to(torch.float32) + torch.zeros(3, dtype=torch.float16)
            return torch.softmax(y, -1, dtype=torch.float32)

    x = torch.rand(3, dtype=torch.float64)
    with InFloat64():
        got = Casts()(x)
    assert got.dtype == torch.float64
    assert torch.equal(got, torch.softmax(2 * x, -1))
    assert torch.get_default_dtype() == torch.float32


def test_a_llama_agrees_with_itself() -> None:
    """Rotary embeddings, norms that cast to float32, grouped heads: nothing of that is taken for a fault."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    report = paritas.compare(transformers.LlamaForCausalLM(config), transformers.LlamaForCausalLM(config))
    assert report.verdict == "agrees", str(report)
    assert report.error == 0.0


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"weights": []}, "rules has a table 'weights'"),
        ({"weight": [{"from": "a("}]}, "[[weight]] 1 needs to = 'name'"),
        ({"weight": [{"from": "a(", "to": "b"}]}, "'a(' is no regular expression"),
        ({"weight": [{"from": "a", "to": "b\\1"}]}, "asks for group 1; 'a' has 0"),
        ({"weight": [{"from": "a", "to": "b", "split": 0}]}, "split cuts one weight into the several"),
        ({"weight": [{"from": ["a", "b"], "to": "c"}]}, "so it needs concat = DIMENSION"),
        ({"skip": [{"from": "a"}]}, 'needs its reason: because = "..."'),
        ("nowhere.toml", "There is no file of rules nowhere.toml"),
    ],
)
def test_rules_that_cannot_be_are_refused(rules: Any, words: str) -> None:
    with pytest.raises(InputError) as raised:
        paritas.compare(_Plain(), _Plain(), rules=rules, inputs={"x": torch.ones(2, 4)})
    assert words in str(raised.value)
