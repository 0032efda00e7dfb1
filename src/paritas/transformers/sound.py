# SPDX-License-Identifier: Apache-2.0
"""Sound files for models that hear: mono float32 in [-1, 1], of the sampling rate that a model was trained with.

soundfile reads files of any rate and any number of channels, `scipy.signal.resample_poly` resamples them.
"""

from __future__ import annotations

import math
import os

import numpy as np

from paritas.errors import InputError

SHORTEST = 0.1  # seconds; what is shorter has fewer samples than the first layers of a model look at
LONGEST = 30 * 60.0  # seconds, for models that take any length: so that one file does not fill the memory
RATES = (1_000, 768_000)  # Hz; a header with another one is broken, and its filter would fill the memory


def recording(path: str | os.PathLike[str], rate: int, longest: float = LONGEST) -> np.ndarray:
    """The sound of a file, [samples], mono float32 of `rate` Hz. longest: in seconds.

    Raises `InputError` for what is no sound, silent, or too short or too long.
    """
    import soundfile

    name = os.path.basename(path)
    try:
        told = soundfile.info(path)
        check_length(told.frames / max(told.samplerate, 1), longest)  # before a long one is decoded
        samples, found = soundfile.read(path, dtype="float32")
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise InputError(
            f"{name} cannot be read as sound: WAV, FLAC, OGG and MP3 can. "
            f"Others become one of them with:   ffmpeg -i {name} sound.wav"
        ) from error
    check_length(len(samples) / found, longest)  # the header may have lied
    sound = resampled(samples, found, rate)
    if not np.isfinite(sound).all():
        raise InputError(f"{name} holds numbers that are no sound: NaN or infinity.")
    if not sound.any():
        raise InputError(f"{name} is silent throughout. Is the microphone on?")
    return sound


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Integers or floats, [samples] or [samples, channels] of `rate` Hz, as mono float32 of `wanted` Hz."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"The sound has a sampling rate of {rate} Hz; {RATES[0]} to {RATES[1]} can be used.")
    if np.issubdtype(samples.dtype, np.integer):
        samples = samples / -float(np.iinfo(samples.dtype).min)
    sound = samples.astype(np.float32)
    if sound.ndim == 2:
        sound = sound.mean(axis=1)
    if rate == wanted:
        return sound
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    return np.asarray(resample_poly(sound, wanted // common, rate // common), dtype=np.float32)


def check_length(seconds: float, longest: float) -> None:
    if seconds < SHORTEST:
        raise InputError(f"The recording has {seconds:.2f} s; at least {SHORTEST} s are needed.")
    if seconds > longest:
        raise InputError(f"The recording has {seconds:.1f} s; this model takes at most {longest:.1f} s at once.")
