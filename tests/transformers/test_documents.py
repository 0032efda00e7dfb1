# SPDX-License-Identifier: Apache-2.0
"""The listings of mindone's documentation, with `mindone.transformers` as `paritas.transformers` and nothing else
changed: MindSpore tensors in and out, on both engines, against transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf

pytest.importorskip("mindspore")
pytest.importorskip("openvino")

WORDS = """
a photo of cat dog The the walks in park cute Studies have been shown that owning is good for you show list colors:
red, blue Portugal <extra_id_0> <extra_id_1> <extra_id_2>
""".split()  # noqa: SIM905


def save(model: Any, directory: Path, subfolder: str = "") -> None:
    """The model as a user finds it: weights, configuration, and a tokenizer of whole words."""
    model.save_pretrained(directory / subfolder)
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(
            {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}, unk_token="<unk>"
        )
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    fast.save_pretrained(directory / subfolder)


def clip(projected: bool = False) -> Any:
    torch.manual_seed(0)
    config = hf.CLIPTextConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, eos_token_id=1, pad_token_id=0, projection_dim=16, initializer_range=0.3,
    )  # fmt: skip
    return (hf.CLIPTextModelWithProjection if projected else hf.CLIPTextModel)(config)


def t5(cls: Any) -> Any:
    torch.manual_seed(0)
    return cls(
        hf.T5Config(
            vocab_size=60, d_model=32, d_ff=48, d_kv=8, num_layers=1, num_heads=4, decoder_start_token_id=0,
            initializer_factor=3.0,
        )
    )  # fmt: skip


#: For what another test asks of MindSpore on every day too: T5Model has the encoder inside.
REPEATED = pytest.mark.parametrize(
    "engine", ["openvino", pytest.param("mindspore", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(params=["openvino", "mindspore"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PARITAS_ENGINE", request.param)
    return request.param


def near(got: Any, want: torch.Tensor) -> bool:
    """MindSpore tensors, and the original's numbers."""
    import mindspore

    assert isinstance(got, mindspore.Tensor)
    want = want.detach()
    return bool(np.abs(got.asnumpy() - want.numpy()).max() <= 1e-4 * want.abs().mean())


def test_clip_text(engine: str, tmp_path: Path) -> None:
    from mindspore import Tensor

    from paritas.transformers import AutoTokenizer, CLIPTextModel

    save(clip(), tmp_path)
    original = hf.CLIPTextModel.from_pretrained(tmp_path)

    model = CLIPTextModel.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inputs = tokenizer(["a photo of a cat", "a photo of a dog"], padding=True, return_tensors="np")
    outputs = model(Tensor(inputs.input_ids))

    assert model.engine == engine
    want = original(torch.from_numpy(inputs.input_ids))
    assert near(outputs.last_hidden_state, want.last_hidden_state)
    assert near(outputs[1], want[1])


def test_two_text_encoders_in_subfolders(engine: str, tmp_path: Path) -> None:
    from mindspore import Tensor

    from paritas.transformers import AutoTokenizer, CLIPTextModel, CLIPTextModelWithProjection

    save(clip(), tmp_path, "text_encoder")
    save(clip(projected=True), tmp_path, "text_encoder_2")
    originals = [
        hf.CLIPTextModel.from_pretrained(tmp_path, subfolder="text_encoder"),
        hf.CLIPTextModelWithProjection.from_pretrained(tmp_path, subfolder="text_encoder_2"),
    ]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path, subfolder="text_encoder", use_fast=False)
    text_encoder_one = CLIPTextModel.from_pretrained(tmp_path, subfolder="text_encoder")
    text_encoder_two = CLIPTextModelWithProjection.from_pretrained(tmp_path, subfolder="text_encoder_2")
    for text_encoder, original in zip([text_encoder_one, text_encoder_two], originals, strict=True):
        text_inputs = tokenizer(
            ["a photo of a cat", "a photo of a dog"],
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="np",
        )
        prompt_embeds = text_encoder(Tensor(text_inputs.input_ids), output_hidden_states=True)
        want = original(torch.from_numpy(text_inputs.input_ids), output_hidden_states=True)
        assert near(prompt_embeds[0], want[0])
        assert len(prompt_embeds.hidden_states) == 3
        assert near(prompt_embeds.hidden_states[-2], want.hidden_states[-2])


def test_t5(engine: str, tmp_path: Path) -> None:
    from mindspore import Tensor

    from paritas.transformers import AutoTokenizer, T5Model

    save(t5(hf.T5Model), tmp_path)
    original = hf.T5Model.from_pretrained(tmp_path)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = T5Model.from_pretrained(tmp_path)
    input_ids = tokenizer("Studies have been shown that owning a dog is good for you", return_tensors="np").input_ids
    decoder_input_ids = tokenizer("Studies show that", return_tensors="np").input_ids
    decoder_input_ids = model._shift_right(Tensor(decoder_input_ids))
    outputs = model(input_ids=Tensor(input_ids), decoder_input_ids=decoder_input_ids)
    last_hidden_states = outputs[0]

    ids = torch.from_numpy(input_ids)
    want = original(input_ids=ids, decoder_input_ids=torch.from_numpy(decoder_input_ids.asnumpy()))
    assert near(last_hidden_states, want[0])
    assert near(outputs.encoder_last_hidden_state, want.encoder_last_hidden_state)
    assert near(model.encoder(input_ids=Tensor(input_ids))[0], want.encoder_last_hidden_state)


@REPEATED
def test_t5_encoder(engine: str, tmp_path: Path) -> None:
    from mindspore import Tensor

    from paritas.transformers import T5EncoderModel

    save(t5(hf.T5EncoderModel), tmp_path)
    ids = np.array([[5, 6, 7, 8, 1]])
    outputs = T5EncoderModel.from_pretrained(tmp_path)(input_ids=Tensor(ids))
    want = hf.T5EncoderModel.from_pretrained(tmp_path)(input_ids=torch.from_numpy(ids))
    assert near(outputs[0], want[0])


@pytest.mark.slow
def test_t5_with_labels_gives_a_loss(engine: str, tmp_path: Path) -> None:
    from mindspore import Tensor

    from paritas.transformers import AutoTokenizer, T5ForConditionalGeneration

    save(t5(hf.T5ForConditionalGeneration), tmp_path)
    original = hf.T5ForConditionalGeneration.from_pretrained(tmp_path)

    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path)
    input_ids = tokenizer("The <extra_id_0> walks in <extra_id_1> park", return_tensors="np").input_ids
    labels = tokenizer("<extra_id_0> cute dog <extra_id_1> the <extra_id_2>", return_tensors="np").input_ids
    outputs = model(input_ids=Tensor(input_ids), labels=Tensor(labels))

    # In float64: these weights are so large that PyTorch's own float32 is further from it than the ports are.
    want = original.double()(input_ids=torch.from_numpy(input_ids), labels=torch.from_numpy(labels))
    assert near(outputs.loss, want.loss)
    assert near(outputs[1], want[1])


def test_llama_answers_and_generates(engine: str, tmp_path: Path) -> None:
    from mindspore import tensor

    from paritas.transformers import AutoTokenizer, LlamaForCausalLM

    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, initializer_range=0.3, pad_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    save(hf.LlamaForCausalLM(config), tmp_path)
    original = hf.LlamaForCausalLM.from_pretrained(tmp_path)

    model = LlamaForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    inputs = tokenizer(["A list of colors: red, blue", "Portugal is"], padding=True, return_tensors="np")
    outputs = model(tensor(inputs.input_ids))
    generated_ids = model.generate(
        input_ids=tensor(inputs.input_ids), max_new_tokens=12, use_cache=True, do_sample=False
    )

    ids = torch.from_numpy(inputs.input_ids)
    assert near(outputs.logits, original(ids).logits)
    want = original.generate(input_ids=ids, max_new_tokens=12, use_cache=True, do_sample=False)
    assert generated_ids.asnumpy().tolist() == want.tolist()
    assert len(tokenizer.batch_decode(generated_ids, skip_special_tokens=True)) == 2
