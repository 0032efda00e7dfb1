# SPDX-License-Identifier: Apache-2.0
"""Recordings in bytes become what a port hears, by transformers' feature extractor of the port."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.errors import InputError
from paritas.extras import require
from paritas.ports import Port
from paritas.serve.images import content_of
from paritas.serve.settings import Limits


class Sounds:
    """Reads recordings of any rate and number of channels for a port."""

    name, content = "audio", "audio"

    def __init__(self, directory: Path, told: Mapping[str, Any], port: Port, limits: Limits) -> None:
        require("speech", "paritas serve, of recordings")
        require("port", "paritas serve, of recordings")
        from transformers import AutoFeatureExtractor

        self._extractor: Any = AutoFeatureExtractor.from_pretrained(directory)
        self._rate = int(told.get("sampling_rate") or 16_000)
        self._limits, self._lock = limits, threading.Lock()
        self._wanted = [spec.name for spec in port.inputs]

    def read(self, values: Sequence[bytes | str]) -> dict[str, Any]:
        heard = [self._samples(row, value) for row, value in enumerate(values)]
        with self._lock:
            found = self._extractor(
                heard, sampling_rate=self._rate, return_tensors="np", padding=True, return_attention_mask=True
            )
        return {name: np.asarray(found[name]) for name in self._wanted if name in found}

    def _samples(self, row: int, value: bytes | str) -> np.ndarray:
        import soundfile

        given = content_of(value)
        try:
            with soundfile.SoundFile(io.BytesIO(given)) as file:
                seconds = file.frames / max(1, file.samplerate)
                if seconds > self._limits.seconds_of_sound:
                    raise InputError(
                        f"recording {row} lasts {seconds:.0f} s, more than the {self._limits.seconds_of_sound:.0f} "
                        "that this server takes."
                    )
                rate, samples = file.samplerate, file.read(dtype="float32", always_2d=True).mean(axis=1)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - libsndfile raises whatever it meets
            raise InputError(f"recording {row} of {len(given)} bytes cannot be read: {error}") from None
        if not len(samples):
            raise InputError(f"recording {row} is empty.")
        if rate != self._rate:
            from scipy.signal import resample_poly

            samples = resample_poly(samples, self._rate, rate).astype(np.float32)
        return samples
