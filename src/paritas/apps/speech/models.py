# SPDX-License-Identifier: Apache-2.0
"""Speech to text, one voice to another, text to speech: models of transformers whose networks run on an engine.

Sound is mono float32 in [-1, 1] here, of the sampling rate that the model was trained with. Files of any rate and any
number of channels become that: soundfile reads them, `scipy.signal.resample_poly` resamples them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import paritas.transformers as ported
from paritas.errors import InputError, ParitasError, SourceError, first_line
from paritas.transformers.sound import LONGEST, check_length, recording

Told = Callable[[str], None]

MADE_UP = "a made-up voice"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """Hub ids or directories: of recognition, of voice conversion, of text to speech, and of the last two's vocoder."""

    asr: str = "microsoft/speecht5_asr"
    vc: str = "microsoft/speecht5_vc"
    tts: str = "microsoft/speecht5_tts"
    vocoder: str = "microsoft/speecht5_hifigan"

    def check(self) -> None:
        """Raise `SourceError` for what can be seen to be no checkpoint without asking the hub."""
        for option, name in dataclasses.asdict(self).items():
            if os.path.isdir(name):
                if not os.path.isfile(os.path.join(name, "config.json")):
                    raise SourceError(f"--{option}: {name} has no config.json.")
            elif name.startswith((".", "/", "~")) or name.count("/") > 1 or os.path.exists(name):
                raise SourceError(f"--{option}: there is no directory {name}.")


# --- sound ---------------------------------------------------------------------------------------------------


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Floats as 16-bit integers; what is beyond [-1, 1] is clipped."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


# --- voices --------------------------------------------------------------------------------------------------


def speaker(path: str | os.PathLike[str] | None, size: int) -> torch.Tensor:
    """What a voice sounds like, an x-vector, float32 [1, size]: from a file of NumPy, or None for a made-up one."""
    if path is None:
        drawn = torch.randn(1, size, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(drawn)
    return fitting(_vector(path), os.fspath(path), size)


def speakers(given: Sequence[str]) -> dict[str, np.ndarray]:
    """Of every NAME=FILE.npy, or FILE.npy, the x-vector, float32 [size], by name. Raises `InputError`."""
    found: dict[str, np.ndarray] = {}
    for one in given:
        name, named, file = one.partition("=")
        if not named or os.path.exists(one):
            name, file = Path(one).stem, one
        if not name or name in found:
            raise InputError(f"--speaker {one}: {'that name is given twice' if name else 'it has no name'}.")
        found[name] = _vector(file)
    return found


def fitting(vector: np.ndarray, name: str, size: int) -> torch.Tensor:
    """An x-vector [size] as a model takes it, [1, size]."""
    if vector.size != size:
        raise InputError(f"The speaker {name} has {vector.size} numbers; this model takes x-vectors of {size}.")
    return torch.from_numpy(vector)[None]


def _vector(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"There is no file {os.fspath(path)} with a speaker's x-vector.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{os.fspath(path)} is no .npy file: {error}") from error
    shape = getattr(vector, "shape", None)  # an .npz has none
    if shape is None or shape not in ((vector.size,), (1, vector.size)) or vector.dtype.kind not in "fiu":
        raise InputError(f"{os.fspath(path)} holds no x-vector: one row of numbers is needed, not {shape}.")
    vector = vector.astype(np.float32).reshape(-1)
    if not np.isfinite(vector).all() or not vector.any():
        raise InputError(f"{os.fspath(path)} holds no x-vector: NaN, infinity, or nothing but zeros.")
    return vector


# --- models --------------------------------------------------------------------------------------------------


class Recogniser:
    """Speech to text. `pipe`: a pipeline "automatic-speech-recognition", of transformers or of Paritas."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.rate: int = pipe.feature_extractor.sampling_rate
        self._speecht5 = pipe.model.config.model_type == "speecht5"
        self.longest = _longest(pipe.model, self.rate) if self._speecht5 else LONGEST

    @classmethod
    def load(cls, source: str, engine: str | None = None, **where: Any) -> Recogniser:
        """source: a SpeechT5 that recognises speech, Whisper, or anything else that the pipeline takes.

        where: `engine_device`, `ov_config`.
        """
        with _loading(source):
            if "SpeechT5" in " ".join(_classes(source)):
                _check_class(source, "SpeechT5ForSpeechToText")
            return cls(
                ported.pipeline(
                    "automatic-speech-recognition",
                    model=source,
                    engine=cast("Any", engine),
                    dtype=torch.float32,
                    **where,
                )
            )

    def text(self, sound: np.ndarray, seed: int = 0) -> str:
        """What is said in a sound [samples] of `rate` Hz. seed: for models that draw when they are unsure."""
        check_length(len(sound) / self.rate, self.longest)
        told: dict[str, Any] = {}
        if self._speecht5:  # as many characters as it has positions for, greedily as in its own examples
            limit = self.pipe.model.config.max_text_positions - 1
            told["generate_kwargs"] = {"num_beams": 1, "max_new_tokens": limit}
        elif len(sound) > 30 * self.rate:
            # Whisper goes on beyond its window by its timestamps; the memory of CTC grows with the square.
            whisper = self.pipe.type == "seq2seq_whisper"
            told = {"return_timestamps": True} if whisper else {"chunk_length_s": 30}
        torch.manual_seed(seed)
        return self.pipe(sound.copy(), **told)["text"].strip()


class Voice:
    """SpeechT5 that speaks: a text, or what another one has said. `model` and `vocoder` may be on an engine or not."""

    def __init__(self, model: Any, processor: Any, vocoder: Any) -> None:
        self.model, self.processor, self.vocoder = model, processor, vocoder
        self.rate: int = processor.feature_extractor.sampling_rate
        self.longest = _longest(model, self.rate)

    @classmethod
    def load(cls, name: str, source: str, vocoder: Any, engine: str | None = None, **where: Any) -> Voice:
        """name: SpeechT5ForTextToSpeech or SpeechT5ForSpeechToSpeech. where: `engine_device`, `ov_config`."""
        with _loading(source):
            _check_class(source, name)
            model = getattr(ported, name).from_pretrained(source, engine=engine, dtype=torch.float32, **where)
            return cls(model, ported.SpeechT5Processor.from_pretrained(source), vocoder)

    def say(self, text: str, speaker: torch.Tensor, seed: int = 0) -> np.ndarray:
        """The text spoken: [samples] of `rate` Hz. speaker: [1, size]. The same seed speaks it in the same way."""
        if not text.strip():
            raise InputError("There is no text to say.")
        tokens = self.processor(text=text.strip(), return_tensors="pt")["input_ids"]
        limit = self.model.config.max_text_positions
        if tokens.shape[1] > limit:
            raise InputError(
                f"The text has {tokens.shape[1]} tokens; this model reads at most {limit} at once. Say it in parts."
            )
        return self._speech(tokens, tokens.shape[1], speaker, seed)

    def convert(self, sound: np.ndarray, speaker: torch.Tensor, seed: int = 0) -> np.ndarray:
        """What is said in a sound [samples] of `rate` Hz, by another speaker [1, size]: [samples] of `rate` Hz."""
        check_length(len(sound) / self.rate, self.longest)
        values = self.processor(audio=sound, sampling_rate=self.rate, return_tensors="pt")["input_values"]
        return self._speech(values, _positions(self.model, values.shape[1]), speaker, seed)

    def unknown(self, text: str) -> list[str]:
        """The characters that the model has no token for, and leaves out: digits, mostly."""
        tokenizer = self.processor.tokenizer
        found = []
        for character in sorted(set(text)):
            if not character.isspace():
                tokens = tokenizer(character, add_special_tokens=False)["input_ids"]
                if tokenizer.unk_token_id in tokens:
                    found.append(character)
        return found

    def _speech(self, given: torch.Tensor, length: int, speaker: torch.Tensor, seed: int) -> np.ndarray:
        config = self.model.config
        # Its own limit is 20 frames for each position of the input. A long input that it never finds the end of would
        # run beyond the decoder's positions, where the original fails.
        ratio = min(20.0, config.max_speech_positions * config.reduction_factor / length)
        torch.manual_seed(seed)
        with torch.no_grad():
            speech = self.model.generate_speech(given, speaker, vocoder=self.vocoder, maxlenratio=ratio)
        return speech.numpy()


def _positions(model: Any, samples: int) -> int:
    """How many positions of its speech encoder so many samples take."""
    prenet = model.speecht5.encoder.prenet
    return int(prenet._get_feat_extract_output_lengths(samples))


def _longest(model: Any, rate: int) -> float:
    """Seconds for which a SpeechT5 has positions."""
    return model.config.max_speech_positions * math.prod(model.config.conv_stride) / rate


def _classes(source: str) -> list[str]:
    """The classes that a checkpoint says it is of."""
    import transformers

    return list(transformers.PretrainedConfig.get_config_dict(source)[0].get("architectures") or [])


def _check_class(source: str, wanted: str) -> None:
    # All of SpeechT5 share a configuration: transformers would load one as another, with random weights in between.
    if (found := _classes(source)) and wanted not in found:
        raise SourceError(f"{source} is a {found[0]}; a {wanted} is needed here.")


@contextlib.contextmanager
def _loading(source: str) -> Iterator[None]:
    """What goes wrong while a checkpoint is loaded, as a `SourceError` that names it."""
    try:
        yield
    except ParitasError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise SourceError(f"{source} cannot be loaded: {first_line(error)}") from error


# --- all of them ---------------------------------------------------------------------------------------------


class Speech:
    """The three, each loaded when it is first used; one call at a time, whoever calls.

    voices: x-vectors [size] by name; with none of them there is `MADE_UP`. device, ov_config: as in `paritas.port`.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | None = None,
        voices: Mapping[str, np.ndarray] | None = None,
        engine: str | None = None,
        *,
        device: str = "",
        ov_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.checkpoints = checkpoints or Checkpoints()
        self.engine = engine
        self._where: dict[str, Any] = {"engine_device": device, "ov_config": ov_config}
        self._vectors = dict(voices or {})
        self._loaded: dict[str, Any] = {}
        self._turn = threading.Lock()  # models are no more thread-safe than torch's random numbers are

    @property
    def voices(self) -> list[str]:
        """The names of the voices to choose from."""
        return list(self._vectors) or [MADE_UP]

    def hear(self, path: str | None, seed: int = 0, told: Told = lambda what: None) -> str:
        """What is said in a file. told: called with what is being done."""
        path = _given(path)
        with self._turn:
            recogniser = self._recogniser(told)
            sound = recording(path, recogniser.rate, recogniser.longest)
            told("Listening")
            return recogniser.text(sound, seed)

    def convert(
        self, path: str | None, voice: str, seed: int = 0, told: Told = lambda what: None
    ) -> tuple[int, np.ndarray]:
        """What is said in a file, in another voice: its rate in Hz, and [samples]."""
        path = _given(path)
        with self._turn:
            converter = self._voice("vc", "SpeechT5ForSpeechToSpeech", told)
            sound = recording(path, converter.rate, converter.longest)
            told("Speaking")
            return converter.rate, converter.convert(sound, self._speaker(voice, converter), seed)

    def say(
        self, text: str | None, voice: str, seed: int = 0, told: Told = lambda what: None
    ) -> tuple[int, np.ndarray, list[str]]:
        """The text in a voice: its rate in Hz, [samples], and the characters that were left out."""
        text = text or ""
        if not text.strip():  # before anything is loaded for it
            raise InputError("There is no text to say.")
        with self._turn:
            reader = self._voice("tts", "SpeechT5ForTextToSpeech", told)
            told("Speaking")
            return reader.rate, reader.say(text, self._speaker(voice, reader), seed), reader.unknown(text)

    def _speaker(self, voice: str, model: Voice) -> torch.Tensor:
        size = model.model.config.speaker_embedding_dim
        if not self._vectors:
            return speaker(None, size)
        if voice not in self._vectors:
            raise InputError(f"There is no voice {voice!r}. There are: {', '.join(self.voices)}.")
        return fitting(self._vectors[voice], voice, size)

    def _recogniser(self, told: Told) -> Recogniser:
        if "asr" not in self._loaded:
            told(f"Loading {self.checkpoints.asr}")
            self._loaded["asr"] = Recogniser.load(self.checkpoints.asr, self.engine, **self._where)
        return self._loaded["asr"]

    def _voice(self, which: str, name: str, told: Told) -> Voice:
        if "vocoder" not in self._loaded:
            source = self.checkpoints.vocoder
            told(f"Loading {source}")
            with _loading(source):
                _check_class(source, "SpeechT5HifiGan")
                self._loaded["vocoder"] = ported.SpeechT5HifiGan.from_pretrained(
                    source, engine=cast("Any", self.engine), dtype=torch.float32, **self._where
                )
        if which not in self._loaded:
            source = getattr(self.checkpoints, which)
            told(f"Loading {source}")
            self._loaded[which] = Voice.load(name, source, self._loaded["vocoder"], self.engine, **self._where)
        return self._loaded[which]


def _given(path: str | None) -> str:
    if not path:
        raise InputError("There is no recording: record one with the microphone, or choose a file.")
    return path
