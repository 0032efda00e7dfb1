# SPDX-License-Identifier: Apache-2.0
"""What users do to a model after its first call: a table, of a small Llama."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers as hf

CONFIG = {
    "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "initializer_range": 0.2,
}  # fmt: skip


class LoRA(torch.nn.Module):
    """A linear layer with an adapter, as peft wraps one: switched by an attribute, merged through `.data`."""

    def __init__(self, base: torch.nn.Linear) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.base_layer, self.disabled, self.scaling = base, False, {"default": 2.0}
        self.lora_A = torch.nn.Parameter(torch.randn(4, base.in_features, generator=generator) * 0.3)
        self.lora_B = torch.nn.Parameter(torch.randn(base.out_features, 4, generator=generator) * 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.base_layer(x)
        return out if self.disabled else out + (x @ self.lora_A.T @ self.lora_B.T) * self.scaling["default"]

    def merge(self) -> None:
        self.base_layer.weight.data += (self.lora_B @ self.lora_A * self.scaling["default"]).detach()
        self.disabled = True


def with_adapter(model: Any) -> LoRA:
    own = model.model.layers[0].self_attn
    if not isinstance(own.q_proj, LoRA):
        own.q_proj = LoRA(own.q_proj)
    return own.q_proj


def in_place(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.mul_(2)


def data(model: Any) -> None:
    model.lm_head.weight.data = model.lm_head.weight.data * 2


def data_in_place(model: Any) -> None:
    model.lm_head.weight.data.mul_(2)


def row_of_data(model: Any) -> None:
    row = model.lm_head.weight.data[3]
    row.fill_(1.0)


def array(model: Any) -> None:
    model.lm_head.weight.detach().numpy()[:] *= 2


def row_of_array(model: Any) -> None:
    row = np.asarray(model.state_dict()["lm_head.weight"])[3]
    row[:2] = row[1::-1].copy()


def storage(model: Any) -> None:
    weight = model.lm_head.weight.detach()
    weight.untyped_storage().copy_((weight * 2).untyped_storage())


def half_of_storage(model: Any) -> None:
    values = torch.empty(0).set_(model.lm_head.weight.untyped_storage())  # type: ignore[call-overload]
    values[len(values) // 2 :] = 0.5


def dlpack(model: Any) -> None:
    torch.from_dlpack(model.lm_head.weight.detach()).mul_(2)


def c_code(model: Any) -> None:
    weight = model.lm_head.weight
    twice = weight.detach() * 2
    ctypes.memmove(weight.data_ptr(), twice.data_ptr(), twice.nbytes)


def buffer(model: Any) -> None:
    model.model.rotary_emb.inv_freq.mul_(0.5)


def buffer_replaced(model: Any) -> None:
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq * 0.5


def attribute(model: Any) -> None:
    model.model.layers[0].self_attn.scaling = 1.0


def activation(model: Any) -> None:
    model.model.layers[1].mlp.act_fn = torch.nn.GELU()


def output_embeddings(model: Any) -> None:
    torch.manual_seed(5)
    model.set_output_embeddings(torch.nn.Linear(32, 99, bias=False))


def input_embeddings(model: Any) -> None:
    torch.manual_seed(5)
    model.set_input_embeddings(torch.nn.Embedding(99, 32))


def fewer_layers(model: Any) -> None:
    model.model.layers = model.model.layers[:1]


def layers_exchanged(model: Any) -> None:
    layers = model.model.layers
    layers[0].mlp, layers[1].mlp = layers[1].mlp, layers[0].mlp


def more_tokens(model: Any) -> None:
    torch.manual_seed(5)
    model.resize_token_embeddings(105, mean_resizing=False)


def bfloat16(model: Any) -> None:
    model.to(torch.bfloat16)


def other_state(model: Any) -> None:
    torch.manual_seed(9)
    model.load_state_dict({name: torch.randn_like(value) * 0.2 for name, value in model.state_dict().items()})


def fewer_configured(model: Any) -> None:
    model.config.num_hidden_layers = 1


def hidden_states(model: Any) -> None:
    model.config.output_hidden_states = True


def eager(model: Any) -> None:
    model.set_attn_implementation("eager")


def forward_of_module(model: Any) -> None:
    own = model.model.layers[0].mlp.forward
    model.model.layers[0].mlp.forward = lambda hidden: own(hidden) * 0


def adapter(model: Any) -> None:
    with_adapter(model)


def adapter_scaled(model: Any) -> None:
    with_adapter(model).scaling["default"] = 5.0


def adapter_disabled(model: Any) -> None:
    with_adapter(model).disabled = True


def adapter_merged(model: Any) -> None:
    with_adapter(model).merge()


CHANGES: tuple[Callable[[Any], None], ...] = (
    in_place, data, data_in_place, row_of_data, array, row_of_array, storage, half_of_storage, dlpack, c_code,
    buffer, buffer_replaced, attribute, activation, output_embeddings, input_embeddings, fewer_layers,
    layers_exchanged, more_tokens, bfloat16, other_state, fewer_configured, hidden_states, eager, forward_of_module,
    adapter, adapter_scaled, adapter_disabled, adapter_merged,
)  # fmt: skip


def llama() -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**CONFIG)).eval()
