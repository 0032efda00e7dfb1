# SPDX-License-Identifier: Apache-2.0
"""Models with an encoder and a decoder: two graphs in one directory, the decoder with its keys and values inside."""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.deploy import tiny_whisper
from tests.deploy.causal import tokenizer_of_bytes

import paritas
import paritas.transformers as ours
from paritas.cli.commands.generate import writer_for
from paritas.errors import InputError, InputsNeeded, SizeError

openvino = pytest.importorskip("openvino")

TEXT, SPEECH = "text2text-generation-with-past", "automatic-speech-recognition-with-past"

#: Of the vocabulary: that of a tokenizer of bytes, and a few more.
SIZE = 320

SIZES = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
}  # fmt: skip

MODELS: dict[str, Any] = {
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=SIZE, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
            initializer_factor=2.0, tie_word_embeddings=False,
        )
    ),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(vocab_size=SIZE, init_std=0.3, **SIZES)),
    "marian": lambda: hf.MarianMTModel(
        hf.MarianConfig(vocab_size=SIZE, init_std=0.3, pad_token_id=1, decoder_start_token_id=1, eos_token_id=2,
                        **SIZES)
    ),
    "fsmt": lambda: hf.FSMTForConditionalGeneration(
        hf.FSMTConfig(langs=["en", "de"], src_vocab_size=SIZE, tgt_vocab_size=SIZE, init_std=0.3, **SIZES)
    ),
    "mt5": lambda: hf.MT5ForConditionalGeneration(
        hf.MT5Config(vocab_size=SIZE, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
                     initializer_factor=1.0)
    ),
    "umt5": lambda: hf.UMT5ForConditionalGeneration(
        hf.UMT5Config(vocab_size=SIZE, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                      decoder_start_token_id=0, initializer_factor=1.5)
    ),
    "m2m100": lambda: hf.M2M100ForConditionalGeneration(hf.M2M100Config(vocab_size=SIZE, init_std=0.3, **SIZES)),
    "mbart": lambda: hf.MBartForConditionalGeneration(
        hf.MBartConfig(vocab_size=SIZE, init_std=0.3, decoder_start_token_id=2, **SIZES)
    ),
    "pegasus": lambda: hf.PegasusForConditionalGeneration(
        hf.PegasusConfig(vocab_size=SIZE, init_std=0.3, **SIZES)
    ),
    "led": lambda: hf.LEDForConditionalGeneration(
        hf.LEDConfig(vocab_size=SIZE, init_std=0.3, attention_window=4, max_encoder_position_embeddings=64,
                     max_decoder_position_embeddings=64,
                     **{k: v for k, v in SIZES.items() if "position" not in k})
    ),
    "speech2text": lambda: hf.Speech2TextForConditionalGeneration(
        hf.Speech2TextConfig(vocab_size=SIZE, init_std=0.3, input_feat_per_channel=8, conv_channels=16,
                             max_source_positions=90, max_target_positions=40, decoder_start_token_id=2,
                             **{k: v for k, v in SIZES.items() if "position" not in k})
    ),
    "moonshine": lambda: hf.MoonshineForConditionalGeneration(
        hf.MoonshineConfig(vocab_size=SIZE, initializer_range=0.3, hidden_size=32, intermediate_size=48,
                           encoder_num_hidden_layers=2, decoder_num_hidden_layers=2, encoder_num_attention_heads=4,
                           decoder_num_attention_heads=4, max_position_embeddings=64, pad_token_id=2)
    ),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            vocab_size=SIZE, num_mel_bins=8, max_source_positions=30, max_target_positions=40, pad_token_id=1,
            bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, suppress_tokens=None,
            begin_suppress_tokens=None, init_std=0.3, **{k: v for k, v in SIZES.items() if "position" not in k},
        )
    ),
}  # fmt: skip


HEARING = ("whisper", "speech2text", "moonshine")


def kinds(*daily: str) -> list[Any]:
    return [pytest.param(name, marks=() if name in daily else pytest.mark.slow) for name in MODELS]


#: Of random weights with which two texts are answered differently, and not by one token again and again; 0 for others.
SEEDS = {"bart": 1, "mt5": 2, "umt5": 1}


@functools.cache
def made(name: str) -> tuple[Any, paritas.components.Components[Any]]:
    torch.manual_seed(SEEDS.get(name, 0))
    model = MODELS[name]().eval()
    return model, paritas.port(model)  # the task follows from the model


@pytest.mark.parametrize("name", kinds("t5"))
def test_both_agree_with_the_original(name: str) -> None:
    _, port = made(name)
    reports = port.verify(level="outputs")
    assert list(reports) == ["encoder", "decoder"] and reports.agrees, str(reports)
    assert port.task == (SPEECH if name in HEARING else TEXT)


def test_its_files_take_what_optimums_take(tmp_path: Path) -> None:
    model, port = made("t5")
    port.save(tmp_path / "port")
    core = openvino.Core()
    encoder = core.read_model(tmp_path / "port" / "openvino_encoder_model.xml")
    decoder = core.read_model(tmp_path / "port" / "openvino_decoder_model.xml")
    assert {port.any_name for port in encoder.inputs} == {"input_ids", "attention_mask"}
    assert {port.any_name for port in decoder.inputs} == {
        *("input_ids", "encoder_hidden_states", "encoder_attention_mask", "beam_idx"),
    }
    assert encoder.outputs[0].any_name == "last_hidden_state" and decoder.outputs[0].any_name == "logits"
    assert len(decoder.get_variables()) == 8  # two layers: keys and values of own tokens and of the encoder's
    # OpenVINO alone generates: the first call computes the encoder's keys and values, and the others only read them.
    config = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    ids = torch.randint(3, 60, (2, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    want = model.generate(ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    hidden = core.compile_model(encoder, "CPU", config)([ids.numpy(), mask.numpy()])[0]
    request = core.compile_model(decoder, "CPU", config).create_infer_request()
    new, tokens = np.zeros((2, 1), np.int64), []
    for _ in range(8):
        given = {"encoder_attention_mask": mask.numpy(), "beam_idx": np.arange(2, dtype=np.int32)}
        logits = request.infer({"input_ids": new, "encoder_hidden_states": hidden, **given})["logits"]
        logits[:, -1, 1] = -np.inf  # as min_new_tokens has it
        new = logits[:, -1].argmax(-1)[:, None]
        tokens.append(new)
        hidden = np.zeros_like(hidden)
    assert np.concatenate(tokens, 1).tolist() == want[:, 1:].tolist()
    assert len(set(want.flatten().tolist())) > 2


def test_positions_beyond_the_table_are_refused() -> None:
    _, port = made("whisper")
    decoder = port["decoder"]
    (guard,) = decoder.manifest.guards
    assert guard.holds.endswith("<= 40")
    given = {"input_ids": np.ones((1, 41), np.int64), "encoder_hidden_states": np.zeros((1, 30, 32), np.float32)}
    with pytest.raises(SizeError, match="modeling_whisper"):
        decoder(**given)
    assert decoder(**{**given, "input_ids": np.ones((1, 40), np.int64)})["logits"].shape == (1, 40, SIZE)


def test_a_model_of_another_kind_is_refused() -> None:
    model, _ = made("t5")
    with pytest.raises(InputsNeeded, match="T5ForConditionalGeneration has no automatic-speech-recognition-with-past"):
        paritas.port(model, task=SPEECH)
    with pytest.raises(InputsNeeded, match="T5EncoderModel has no text2text"):
        paritas.port(hf.T5EncoderModel(model.config), task=TEXT)


def test_whisper_in_genai(tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    model = tiny_whisper.save(tmp_path / "original")
    port = paritas.port(tmp_path / "original", task=SPEECH)
    assert not [str(note) for note in port.notes if "tokenizer" in str(note)]
    port.save(tmp_path / "port")
    processor = hf.WhisperProcessor.from_pretrained(tmp_path / "port")
    pipeline = genai.WhisperPipeline(str(tmp_path / "port"), "CPU", INFERENCE_PRECISION_HINT="f32")
    for seed, beams, language in ((0, 1, "en"), (1, 1, "de"), (0, 3, "en")):
        sound = tiny_whisper.sound(seed)
        features = processor.feature_extractor(sound, sampling_rate=16000, return_tensors="pt").input_features
        want = model.generate(
            features, language=language, task="transcribe", num_beams=beams, max_new_tokens=20, min_new_tokens=20,
            do_sample=False,
        )  # fmt: skip
        config = pipeline.get_generation_config()
        config.max_new_tokens = config.min_new_tokens = 20
        config.num_beams, config.language, config.task = beams, f"<|{language}|>", "transcribe"
        text = pipeline.generate(sound.tolist(), config).texts[0]
        assert text == processor.tokenizer.decode(want[0], skip_special_tokens=True), (seed, beams)
        assert len(set(text)) > 1
    del pipeline
    gc.collect()
    _check_hearing(tmp_path / "original", tmp_path / "port", tmp_path / "said.wav")


def _check_hearing(original: Path, place: Path, file: Path) -> None:
    """Sounds in, texts out: by a pipeline, by `generate`, and on the command line."""
    soundfile = pytest.importorskip("soundfile")
    sound, options = tiny_whisper.sound(1), {"max_new_tokens": 20, "min_new_tokens": 20, "num_beams": 1}
    theirs = hf.pipeline("automatic-speech-recognition", str(original))
    want = theirs(sound.copy(), generate_kwargs=options)
    assert ours.pipeline(model=str(place))(sound.copy(), generate_kwargs=options) == want
    port = paritas.load(place)
    assert port.generate(sound, **options) == want["text"]
    long = np.concatenate([tiny_whisper.sound(seed) for seed in (1, 2, 3)])[:80_000]  # 5 s, and it hears 2 at once
    stamped = {**options, "min_new_tokens": 5}
    read = theirs.feature_extractor(
        long, sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest", return_attention_mask=True
    )
    ids = theirs.model.generate(**read, **stamped, return_timestamps=True)
    assert port.generate(long, **stamped) == theirs.tokenizer.decode(ids[0], skip_special_tokens=True)
    soundfile.write(file, np.repeat(sound, 2), 32000, subtype="FLOAT")  # of another rate
    heard: list[str] = []
    assert writer_for(place, {}).write(str(file), options, heard.append) == "".join(heard)
    with pytest.raises(InputError, match="cannot be read as sound"):
        port.generate("hello world")


GREEDY: dict[str, Any] = {"max_new_tokens": 10, "min_new_tokens": 10, "do_sample": False}


def _asked(model: Any) -> dict[str, Any]:
    """Two rows, the second one padded where the model takes tokens."""
    generator = torch.Generator().manual_seed(3)
    if isinstance(model, hf.WhisperForConditionalGeneration):
        return {"input_features": torch.randn(2, 8, 60, generator=generator)}
    if model.main_input_name != "input_ids":  # and is given a mask, of which the second row hears less
        sizes = (2, 96, 8) if model.main_input_name == "input_features" else (2, 9000)
        mask = torch.ones(sizes[:2], dtype=torch.int64)
        mask[1, sizes[1] // 2 :] = 0
        return {model.main_input_name: torch.randn(sizes, generator=generator), "attention_mask": mask}
    ids = torch.randint(4, 58, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids.masked_fill(mask == 0, model.config.pad_token_id), "attention_mask": mask}


@pytest.mark.parametrize("name", kinds("bart"))
def test_its_tokens_are_pytorchs(name: str, tmp_path: Path) -> None:
    model, port = made(name)
    port.save(tmp_path / "port")
    auto = ours.AutoModelForSpeechSeq2Seq if name in HEARING else ours.AutoModelForSeq2SeqLM
    opened = auto.from_pretrained(tmp_path / "port")
    assert isinstance(opened, getattr(ours, type(model).__name__))
    opened.generation_config = model.generation_config
    given = _asked(model)
    for options in ({}, {"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 2, "do_sample": True}):
        torch.manual_seed(1)
        want = model.generate(**given, **{**GREEDY, **options})
        torch.manual_seed(1)
        assert torch.equal(opened.generate(**given, **{**GREEDY, **options}), want), options
    assert len(set(want.flatten().tolist())) > 2
    loaded = paritas.load(tmp_path / "port")
    assert torch.equal(loaded.generate(**given, **GREEDY), model.generate(**given, **GREEDY))
    start = torch.full((2, 3), model.config.decoder_start_token_id)
    with torch.no_grad():
        out, wanted = opened(**given, decoder_input_ids=start), model(**given, decoder_input_ids=start)
    torch.testing.assert_close(out.logits, wanted.logits, atol=1e-4, rtol=1e-4)
    assert type(out) is type(wanted) and out.past_key_values.get_seq_length() == 3
    mask = torch.ones_like(start)
    opened(**given, decoder_input_ids=start, decoder_attention_mask=mask)
    mask[1, 0] = 0
    with pytest.raises(InputError, match=f"{type(model).__name__}.from_pretrained.*, engine='openvino'"):
        opened(**given, decoder_input_ids=start, decoder_attention_mask=mask)
    if name not in HEARING:
        _check_answers(model, loaded, tmp_path / "port")


def _check_answers(model: Any, port: Any, place: Path) -> None:
    """Texts in, texts out: by `generate`, and on the command line."""
    tokenizer = tokenizer_of_bytes()
    tokenizer.save_pretrained(place)
    prompts, options = ["the quick brown fox", "hello"], {**GREEDY, "pad_token_id": tokenizer.pad_token_id}
    read = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    want = tokenizer.batch_decode(model.generate(**read, **options), skip_special_tokens=True)
    assert port.generate(prompts, **options) == want and want[0] != want[1]
    alone = model.generate(read.input_ids[:1], **options)
    assert port.generate(prompts[0], **options) == tokenizer.decode(alone[0], skip_special_tokens=True)
    pieces: list[str] = []
    assert writer_for(place, {}).write(prompts[0], options, pieces.append) == "".join(pieces)
    with pytest.raises(InputError, match=r"has no pipeline translation_en_to_de.*load"):
        ours.pipeline("translation_en_to_de", str(place))
