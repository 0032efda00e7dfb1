# SPDX-License-Identifier: Apache-2.0
"""Operators over windows that are written in others of torch: adaptive pools, Fourier transforms of short times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def adaptive_max_pool(x: torch.Tensor, output_size: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """`adaptive_max_pool1d` to `3d`: the largest of each window, and its place in the flat picture.

    One axis after the other: of equal ones the first in the flat picture is the first of the first row that has one.
    """
    wanted = list(output_size) if isinstance(output_size, (list, tuple)) else [output_size]
    count = len(wanted)
    size = list(x.shape[x.dim() - count :])
    place: torch.Tensor | None = None  # of each element that is left, among the axes that are done
    below: Any = 1  # how many elements of these one step along the next axis is
    for offset in reversed(range(count)):
        axis, windows, long = x.dim() - count + offset, wanted[offset], size[offset]
        if windows is None:
            windows = long
        most = (long + windows - 1) // windows + 1  # no window is longer
        number = torch.arange(windows)
        starts = number * long // windows
        ends = ((number + 1) * long + windows - 1) // windows
        # Shorter windows read their last element again, which is never the first of the largest.
        read = torch.minimum(starts.unsqueeze(1) + torch.arange(most), (ends - 1).unsqueeze(1))  # [windows, most]
        taken = x.index_select(axis, read.flatten()).unflatten(axis, (windows, most))
        x, first = taken.max(axis + 1)
        shape = [windows if a == axis else 1 for a in range(x.dim())]
        along = read.flatten()[first + (number * most).reshape(shape)] * below
        if place is None:
            place = along
        else:
            held = place.index_select(axis, read.flatten()).unflatten(axis, (windows, most))
            place = held.gather(axis + 1, first.unsqueeze(axis + 1)).squeeze(axis + 1) + along
        below = below * long
    assert place is not None
    return x, place


def short_time_fourier(
    x: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> torch.Tensor:
    """`stft` of signals, [n] or [batch, n]: [.., frequencies, frames], complex or as pairs."""
    step = n_fft // 4 if hop_length is None else hop_length
    frames = x.unfold(-1, n_fft, step)  # [.., frames, n_fft]
    whole = _window(window, n_fft, n_fft if win_length is None else win_length, x)
    if whole is not None:
        frames = frames * whole
    norm = "ortho" if normalized else "backward"
    if x.is_complex() or (whole is not None and whole.is_complex()) or onesided is False:
        found = torch.fft.fft(frames, norm=norm)
    else:
        found = torch.fft.rfft(frames, norm=norm)
    found = found.transpose(-1, -2)
    return found if return_complex or x.is_complex() else torch.view_as_real(found)


def centred_fourier(
    x: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    *rest: Any,
    **options: Any,
) -> torch.Tensor:
    """`stft` that pads by itself; the other arguments are those of the one that does not."""
    if center:
        rows = x.reshape(1, -1, x.shape[-1])
        padded = torch.nn.functional.pad(rows, (n_fft // 2, n_fft // 2), mode=pad_mode)
        x = padded.reshape(*x.shape[:-1], x.shape[-1] + n_fft // 2 * 2)
    return short_time_fourier(x, n_fft, hop_length, win_length, window, *rest, **options)


def _window(window: torch.Tensor | None, n_fft: int, length: int, like: torch.Tensor) -> torch.Tensor | None:
    """The window with zeros around it."""
    if window is None:
        if length == n_fft:
            return None
        window = torch.ones(length, dtype=like.real.dtype)
    left = (n_fft - length) // 2
    return torch.nn.functional.pad(window, (left, n_fft - length - left))


def inverse_short_time_fourier(
    x: torch.Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: torch.Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> torch.Tensor:
    """`istft` of [.., frequencies, frames] complex numbers: frames are added up and divided by the squared windows."""
    step = n_fft // 4 if hop_length is None else hop_length
    frames = x.transpose(-1, -2)
    norm = "ortho" if normalized else "backward"
    if return_complex:
        raise NotImplementedError("istft of complex signals")
    if onesided is False:  # the other half is taken for the conjugate of this one
        frames = frames[..., : n_fft // 2 + 1]
    parts = torch.fft.irfft(frames, n_fft, norm=norm)  # [.., frames, n_fft]
    whole = _window(window, n_fft, n_fft if win_length is None else win_length, parts)
    if whole is None:
        whole = torch.ones(n_fft, dtype=parts.dtype)
    parts = parts * whole
    rows = parts if parts.dim() == 3 else parts.unsqueeze(0)
    count = rows.shape[1]
    long = n_fft + step * (count - 1)
    squares = whole.square().expand(1, count, n_fft)
    signal, weight = (
        torch.nn.functional.fold(v.transpose(1, 2), (1, long), (1, n_fft), stride=(1, step)).flatten(1)
        for v in (rows, squares)
    )
    start = n_fft // 2 if center else 0
    end = start + length if length is not None else long - start if center else long
    signal, weight = signal[:, start:end], weight[:, start:end]
    found = signal / weight
    if length is not None:  # what no frame reaches is zero
        found = torch.nn.functional.pad(found, (0, length))[:, :length]
    return found if parts.dim() == 3 else found.squeeze(0)


def inverse_hermitian(x: torch.Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> torch.Tensor:
    """`fft_ihfftn` of real signals: along the last of the dimensions first."""
    dims = list(range(-len(s), 0)) if dim is None and s is not None else dim
    dims = list(range(x.dim())) if dims is None else list(dims)
    sizes: list[Any] = list(s) if s is not None else [None] * len(dims)
    last = None if sizes[-1] == -1 else sizes[-1]
    found = torch.fft.ihfft(x, last, dims[-1], norm)
    if len(dims) == 1:
        return found
    rest = None if s is None else sizes[:-1]
    return torch.fft.ifftn(found, rest, dims[:-1], norm)


def inverse_hermitian_2(x: torch.Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> torch.Tensor:
    """`fft_ihfft2`."""
    return inverse_hermitian(x, s, dim, norm)


WINDOWS: dict[str, Callable[..., Any]] = {
    **{f"aten.adaptive_max_pool{rank}d.default": adaptive_max_pool for rank in (1, 2, 3)},
    "aten.fft_ihfft2.default": inverse_hermitian_2,
    "aten.fft_ihfftn.default": inverse_hermitian,
    "aten.stft.default": short_time_fourier,
    "aten.stft.center": centred_fourier,
    "aten.istft.default": inverse_short_time_fourier,
}
