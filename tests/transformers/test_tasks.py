# SPDX-License-Identifier: Apache-2.0
"""The tasks that transformers has no pipeline for any more, through the model classes: summaries and answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers as hf

import paritas.transformers as ours

pytest.importorskip("openvino")


def bart() -> Any:
    torch.manual_seed(0)
    return hf.BartForConditionalGeneration(
        hf.BartConfig(
            vocab_size=99, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=80,
            init_std=0.3, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
            forced_bos_token_id=0, forced_eos_token_id=2,
        )
    ).eval()  # fmt: skip


def bert(cls: Any) -> Any:
    torch.manual_seed(0)
    return cls(
        hf.BertConfig(
            vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
            max_position_embeddings=64, initializer_range=0.3,
        )
    ).eval()  # fmt: skip


def article() -> dict[str, torch.Tensor]:
    """Two of them, the second one shorter: [2, 40]."""
    ids = torch.randint(5, 99, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    ids[1, 30:], mask[1, 30:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.slow
def test_bart_summarises() -> None:
    original, port = bart(), ours.port_model(bart(), engine="openvino")
    # As the checkpoints for summaries are told to: beams, no three words twice, neither too short nor too long.
    told = {
        "num_beams": 4,
        "no_repeat_ngram_size": 3,
        "length_penalty": 2.0,
        "min_length": 12,
        "max_length": 24,
    }
    want = original.generate(**article(), **told, early_stopping=True)
    got = port.generate(**article(), **told, early_stopping=True)
    assert got.tolist() == want.tolist()
    assert port.ports
    assert len(set(want[0].tolist())) > 4


def test_bert_answers_a_question() -> None:
    original = bert(hf.BertForQuestionAnswering)
    port = ours.port_model(bert(hf.BertForQuestionAnswering), engine="openvino")
    given = article()
    given["token_type_ids"] = (torch.arange(40) >= 9).long().expand(2, -1)  # the question, then the text
    with torch.no_grad():
        want = original(**given)
    got = port(**given)
    for name in ("start_logits", "end_logits"):
        assert torch.allclose(got[name], want[name], atol=1e-4)
        assert got[name].argmax(-1).tolist() == want[name].argmax(-1).tolist()
    # A switch that an earlier call did not give.
    assert torch.allclose(port(**given, use_cache=False).end_logits, want.end_logits, atol=1e-4)
    places = {"start_positions": torch.tensor([11, 12]), "end_positions": torch.tensor([15, 14])}
    with torch.no_grad():
        want = original(**given, **places)
    assert torch.allclose(port(**given, **places).loss, want.loss, atol=1e-4)


@pytest.mark.slow
def test_musicgen_makes_the_originals_music() -> None:
    torch.manual_seed(0)
    text = hf.T5Config(vocab_size=99, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4)
    audio = hf.EncodecConfig(
        num_filters=4, hidden_size=16, codebook_size=64, codebook_dim=16, upsampling_ratios=[4, 2],
        num_residual_layers=1, num_lstm_layers=1, target_bandwidths=[24.0], sampling_rate=16000,
    )  # fmt: skip
    decoder = hf.MusicgenDecoderConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, num_codebooks=2,
        max_position_embeddings=64, pad_token_id=64, bos_token_id=64, initializer_factor=0.3,
    )  # fmt: skip
    parts = {"text_encoder": text, "audio_encoder": audio, "decoder": decoder}
    config = hf.MusicgenConfig(**{name: part.to_dict() for name, part in parts.items()})
    original = hf.MusicgenForConditionalGeneration(config).eval()
    told = original.generation_config
    told.decoder_start_token_id = told.pad_token_id = 64
    port = ours.port_model(copy.deepcopy(original), engine="openvino")
    ids = torch.randint(5, 90, (2, 6))
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "guidance_scale": 3.0}
    want, got = (model.generate(**given, max_new_tokens=12, do_sample=False) for model in (original, port))
    assert want.abs().mean() > 0.01
    assert torch.allclose(got, want, atol=1e-4)
