# SPDX-License-Identifier: Apache-2.0
"""Speech on an engine: Whisper with its long forms and assistants, SpeechT5 with its always random decoder pre-net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf

import paritas.transformers as ours
from tiny_speech import hifigan, speecht5

pytest.importorskip("openvino")

LANGUAGES = {"<|en|>": 100, "<|nl|>": 101}
TASKS = {"transcribe": 102, "translate": 103}
NO_TIMESTAMPS = 104  # after it the 51 timestamps of one second, in steps of 20 ms


def whisper(cls: Any = hf.WhisperForConditionalGeneration, **changed: Any) -> Any:
    """One that hears a second at once instead of thirty."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 200, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "init_std": 0.3,
        "max_source_positions": 50, "max_target_positions": 64, "num_mel_bins": 8, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3, "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }  # fmt: skip
    model = cls(hf.WhisperConfig(**{**sizes, **changed})).eval()
    told = model.generation_config
    told._from_model_config = False  # otherwise it is made anew when the model is loaded
    told.is_multilingual, told.lang_to_id, told.task_to_id = True, LANGUAGES, TASKS
    told.no_timestamps_token_id, told.max_initial_timestamp_index = NO_TIMESTAMPS, 50
    return model


def ported(model: Any, engine: str = "openvino") -> Any:
    return ours.port_model(model, engine=engine)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    place = tmp_path_factory.mktemp("whisper")
    whisper().save_pretrained(place)
    port = ours.AutoModelForSpeechSeq2Seq.from_pretrained(
        place, dtype=torch.float32, low_cpu_mem_usage=True, use_safetensors=True, attn_implementation="sdpa",
        engine="openvino",
    )  # fmt: skip
    return hf.AutoModelForSpeechSeq2Seq.from_pretrained(place), port


def sound(batch: int, frames: int = 100) -> torch.Tensor:
    return torch.randn(batch, 8, frames, generator=torch.Generator().manual_seed(0))


def tokens(model: Any, features: torch.Tensor, **arguments: Any) -> list[list[int]]:
    torch.manual_seed(1)
    return model.generate(features, **arguments).tolist()


def test_whisper_takes_language_and_task(pair: tuple[Any, Any]) -> None:
    original, port = pair
    for arguments in (
        {"language": "nl", "task": "transcribe", "max_new_tokens": 20},
        {"language": "en", "task": "translate", "return_timestamps": True, "max_new_tokens": 20},
        {"max_new_tokens": 20, "num_beams": 2},  # the language is heard first
    ):
        for batch in (2, 1):
            want = tokens(original, sound(batch), **arguments)
            assert tokens(port, sound(batch), **arguments) == want, arguments
            assert len(set(want[0])) > 3


@pytest.mark.slow
def test_whisper_goes_on_beyond_its_window(pair: tuple[Any, Any]) -> None:
    original, port = pair
    mask = torch.ones(2, 330, dtype=torch.int64)
    mask[1, 200:] = 0
    want = tokens(
        original, sound(2, 330), attention_mask=mask, return_timestamps=True, language="en", max_new_tokens=30
    )
    got = tokens(port, sound(2, 330), attention_mask=mask, return_timestamps=True, language="en", max_new_tokens=30)
    assert got == want
    torch.manual_seed(1)
    arguments = {
        "return_timestamps": True, "return_segments": True, "language": "en", "condition_on_prev_tokens": True,
        "temperature": (0.0, 0.4), "logprob_threshold": -1.0, "compression_ratio_threshold": 1.35,
        "no_speech_threshold": 0.6, "max_new_tokens": 30,
    }  # fmt: skip
    for model in pair:
        model.generation_config.prev_sot_token_id = 105
    heard = []
    for model in pair:
        torch.manual_seed(1)
        (segments,) = model.generate(sound(1, 330), **arguments)["segments"]
        heard.append([(float(s["start"]), float(s["end"]), s["tokens"].tolist()) for s in segments])
    assert len(heard[0]) > 2
    assert heard[0] == heard[1]


@pytest.mark.slow
def test_a_decoder_assists_with_the_encoder_of_the_model(pair: tuple[Any, Any], tmp_path: Path) -> None:
    original, port = pair
    whisper(hf.WhisperForCausalLM, decoder_layers=1).save_pretrained(tmp_path)
    assistant = ours.AutoModelForCausalLM.from_pretrained(tmp_path, engine="openvino")
    assert isinstance(assistant, hf.WhisperForCausalLM)
    for arguments in ({"task": "transcribe"}, {"return_timestamps": True}):
        given: dict[str, Any] = {"language": "nl", "max_new_tokens": 20, **arguments}
        want = tokens(original, sound(1), **given)
        assert tokens(port, sound(1), assistant_model=assistant, **given) == want
    assert {port_.manifest.inputs[0].name for port_ in assistant.ports} == {"input_ids"}  # it never encoded


@pytest.mark.slow
def test_a_smaller_whisper_assists(pair: tuple[Any, Any]) -> None:
    original, port = pair
    assistant = ported(whisper(d_model=16))
    given: dict[str, Any] = {"language": "nl", "task": "transcribe", "max_new_tokens": 20}
    want = tokens(original, sound(1), **given)
    assert tokens(port, sound(1), assistant_model=assistant, **given) == want
    assert assistant.ports


@pytest.mark.slow
def test_the_pipeline_hears_in_chunks(pair: tuple[Any, Any]) -> None:
    original, port = pair
    features = hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)
    noise = np.random.default_rng(0).standard_normal(40000).astype(np.float32)
    assistant = whisper(hf.WhisperForCausalLM, decoder_layers=1)
    for told in ({}, {"return_timestamps": True}):  # with five beams, the pipeline's own number
        texts = [
            build(
                "automatic-speech-recognition", model=model, tokenizer=words(), feature_extractor=features,
                chunk_length_s=1, max_new_tokens=20, batch_size=2, **more,
            )(noise.copy(), **told)
            for build, model, more in (
                (hf.pipeline, original, {}), (ours.pipeline, port, {"engine": "openvino"})
            )
        ]  # fmt: skip
        assert texts[0] == texts[1]
        assert len(texts[0]["text"]) > 10
    heard = ours.pipeline(
        "automatic-speech-recognition", model=port, tokenizer=words(), feature_extractor=features,
        chunk_length_s=1, max_new_tokens=20, batch_size=1,
        generate_kwargs={"assistant_model": assistant, "num_beams": 1}, engine="openvino",
    )(noise.copy())  # fmt: skip
    want = hf.pipeline(
        "automatic-speech-recognition", model=original, tokenizer=words(), feature_extractor=features,
        chunk_length_s=1, max_new_tokens=20, batch_size=1, generate_kwargs={"num_beams": 1},
    )(noise.copy())  # fmt: skip
    assert heard == want


def words() -> Any:
    """Whisper's tokenizer with two hundred tokens at the places that the models here have."""
    special = {
        **LANGUAGES, **{f"<|{task}|>": place for task, place in TASKS.items()},
        "<|pad|>": 0, "<|unk|>": 1, "<|endoftext|>": 2, "<|startoftranscript|>": 3, "<|notimestamps|>": NO_TIMESTAMPS,
        **{f"<|{0.02 * step:.2f}|>": NO_TIMESTAMPS + 1 + step for step in range(51)},
    }  # fmt: skip
    taken = set(special.values())
    vocabulary = {**{f"Ġw{i}": i for i in range(200) if i not in taken}, **special}
    return hf.WhisperTokenizer(vocab=vocabulary, merges=[], unk_token="<|unk|>", pad_token="<|pad|>")


# --- SpeechT5 ------------------------------------------------------------------------------------------------


def drawn(*sizes: int) -> torch.Tensor:
    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


def spoken(model: Any, *given: torch.Tensor, seed: int = 7, **arguments: Any) -> torch.Tensor:
    torch.manual_seed(seed)
    return model.generate_speech(*given, **arguments)


@pytest.mark.slow
def test_text_becomes_speech_with_the_same_dropout() -> None:
    original, port = speecht5(hf.SpeechT5ForTextToSpeech), ported(speecht5(hf.SpeechT5ForTextToSpeech))
    vocoders = hifigan(), ported(hifigan())
    ids, speaker = torch.arange(5, 14)[None], drawn(1, 16)
    told = {"minlenratio": 3.0, "maxlenratio": 3.0}  # it never stops early
    want = spoken(original, ids, speaker, **told)
    got = spoken(port, ids, speaker, **told)
    assert got.shape == want.shape
    assert torch.allclose(got, want, atol=1e-4)
    other = spoken(port, ids, speaker, seed=8, **told)  # as the original: every run is another
    assert other.shape != want.shape or not torch.allclose(other, want, atol=1e-2)
    made = len(port.ports)

    want = spoken(original, ids, speaker, vocoder=vocoders[0], **told)
    got = spoken(port, ids, speaker, vocoder=vocoders[1], **told)
    assert torch.allclose(got, want, atol=1e-4)
    two, speakers = ids.repeat(2, 1), drawn(2, 16)
    want, lengths = spoken(original, two, speakers, vocoder=vocoders[0], return_output_lengths=True, **told)
    got, ours_ = spoken(port, two, speakers, vocoder=vocoders[1], return_output_lengths=True, **told)
    assert torch.allclose(got, want, atol=1e-4)
    assert ours_ == lengths
    assert len(port.ports) == made  # not one port for each length


def letters() -> Any:
    """A tokenizer of whole words, as small as the models here."""
    known = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", "a", "cat", "sat", "on", "the", "mat"])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return hf.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", model_max_length=40)


def said(build: Any, model: Any, told: dict[str, Any], **parts: Any) -> Any:
    speaks = build("text-to-audio", model=model, tokenizer=letters(), **parts)
    torch.manual_seed(7)
    return speaks("the cat sat on a mat", **told), speaks


@pytest.mark.slow
def test_the_pipeline_speaks() -> None:
    told = {"forward_params": {"speaker_embeddings": drawn(1, 16), "minlenratio": 3.0, "maxlenratio": 3.0}}
    want, _ = said(hf.pipeline, speecht5(hf.SpeechT5ForTextToSpeech), told, vocoder=hifigan())
    got, speaks = said(ours.pipeline, speecht5(hf.SpeechT5ForTextToSpeech), told, vocoder=hifigan(), engine="openvino")
    assert got["sampling_rate"] == want["sampling_rate"]
    assert got["audio"].shape == want["audio"].shape
    assert np.allclose(got["audio"], want["audio"], atol=1e-4)
    assert speaks.model.ports
    assert speaks.vocoder.ports  # the vocoder is on the engine too


@pytest.mark.slow
def test_a_voice_becomes_another() -> None:
    original, port = speecht5(hf.SpeechT5ForSpeechToSpeech), ported(speecht5(hf.SpeechT5ForSpeechToSpeech))
    vocoders = hifigan(), ported(hifigan())
    given = drawn(1, 2000), drawn(1, 16)
    want = spoken(original, *given, vocoder=vocoders[0], minlenratio=0.5, maxlenratio=0.5)
    got = spoken(port, *given, vocoder=vocoders[1], minlenratio=0.5, maxlenratio=0.5)
    assert torch.allclose(got, want, atol=1e-4)


@pytest.mark.slow
def test_speech_becomes_text() -> None:
    original, port = speecht5(hf.SpeechT5ForSpeechToText), ported(speecht5(hf.SpeechT5ForSpeechToText))
    mask = torch.ones(2, 2000, dtype=torch.int64)
    mask[1, 1500:] = 0
    for told in ({}, {"num_beams": 3}):
        arguments = {
            "input_values": drawn(2, 2000), "attention_mask": mask, "max_length": 24, "no_repeat_ngram_size": 1,
            **told,
        }  # fmt: skip
        want = original.generate(**arguments).tolist()
        assert port.generate(**arguments).tolist() == want
        assert len(set(want[0])) > 2


@pytest.mark.slow
def test_text_becomes_speech_on_mindspore() -> None:
    pytest.importorskip("mindspore")
    original, port = (
        speecht5(hf.SpeechT5ForTextToSpeech),
        ported(speecht5(hf.SpeechT5ForTextToSpeech), "mindspore"),
    )
    vocoders = hifigan(), ported(hifigan(), "mindspore")
    given = torch.arange(5, 11)[None], drawn(1, 16)
    want = spoken(original, *given, vocoder=vocoders[0], minlenratio=1.5, maxlenratio=1.5)
    got = spoken(port, *given, vocoder=vocoders[1], minlenratio=1.5, maxlenratio=1.5)
    assert torch.allclose(got, want, atol=1e-4)


# --- VITS ----------------------------------------------------------------------------------------------------


def vits(stochastic: bool) -> Any:
    torch.manual_seed(0)
    return hf.VitsModel(
        hf.VitsConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=24, flow_size=16,
            spectrogram_bins=17, upsample_initial_channel=16, upsample_rates=[4, 4], upsample_kernel_sizes=[8, 8],
            resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], initializer_range=0.1,
            posterior_encoder_num_wavenet_layers=2, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=2,
            duration_predictor_num_flows=2, duration_predictor_filter_channels=16, depth_separable_num_layers=2,
            duration_predictor_flow_bins=4, wavenet_dilation_rate=1, use_stochastic_duration_prediction=stochastic,
        )
    ).eval()  # fmt: skip


@pytest.mark.parametrize("stochastic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_vits_speaks_with_the_same_noise(stochastic: bool) -> None:
    want, _ = said(hf.pipeline, vits(stochastic), {})
    got, speaks = said(ours.pipeline, vits(stochastic), {}, engine="openvino")
    assert got["audio"].shape == want["audio"].shape
    assert np.allclose(got["audio"], want["audio"], atol=1e-4)
    assert {"VitsHifiGan", "VitsTextEncoder"} <= {
        port.manifest.source.model_class.rpartition(".")[2] for port in speaks.model.ports
    }
