# SPDX-License-Identifier: Apache-2.0
"""The small model's autoencoder: its encoder is set to average squares of pixels, its decoder learns to draw from them.

A group norm divides by what is in all of a picture, so that a shape would have another colour beside another one, and
what was learnt from parts of pictures would be wrong of whole ones. Here two channels of each are a large constant,
one up and one down, and the others' sum is 0 at each pixel: mean and variance are the same for all pictures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

HEIGHT = 256.0  # of the constant channels: a power of two, which every precision has
MEAN, SPREAD = 0.45, 0.75  # about those of pictures in [-1, 1]: latents are 0 and 1


def averages(pictures: torch.Tensor, side: int = 8) -> torch.Tensor:
    """Latents, float [batch, 3, height / side, width / side], of pictures [batch, 3, height, width] in [-1, 1]."""
    return (F.avg_pool2d(pictures, side) - MEAN) / SPREAD


@torch.no_grad()
def set_encoder(vae: Any) -> None:
    """Let an `AutoencoderKL` encode as `averages` does, all but without a variance."""
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.zero_()
            _bias(module).zero_()
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(HEIGHT * (2 / module.num_channels) ** 0.5)
    # What is carried: the constants, the three colours, and their negatives, which make the mean 0.
    encoder.conv_in.bias[:2] = torch.tensor([HEIGHT, -HEIGHT])
    for colour in range(3):
        encoder.conv_in.weight[2 + colour, colour, 1, 1] = 1
        encoder.conv_in.weight[5 + colour, colour, 1, 1] = -1
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                _carry(resnet.conv_shortcut, slice(0, 1), 1.0)
        for sampler in block.downsamplers or ():
            _carry(sampler.conv, slice(0, 2), 0.25)
    for colour in range(3):  # silu(x) - silu(-x) is x
        encoder.conv_out.weight[colour, 2 + colour, 1, 1] = 1 / SPREAD
        encoder.conv_out.weight[colour, 5 + colour, 1, 1] = -1 / SPREAD
    encoder.conv_out.bias[:3] = -MEAN / SPREAD
    encoder.conv_out.bias[3:] = -20.0  # the logarithm of the variance
    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.copy_(torch.eye(conv.weight.shape[0])[:, :, None, None])
        conv.bias.zero_()


def _bias(conv: nn.Conv2d) -> torch.Tensor:
    assert conv.bias is not None  # all of an `AutoencoderKL` have one
    return conv.bias


def _carry(conv: nn.Conv2d, taps: slice, part: float) -> None:
    for channel in range(8):
        conv.weight[channel, channel, taps, taps] = part


@torch.no_grad()
def start_decoder(vae: Any) -> None:
    """Weights to learn from, for a decoder whose group norms only scale: signals keep their size through it."""
    for name, module in vae.decoder.named_modules():
        if isinstance(module, nn.Conv2d):
            sized = {"conv1": 1.6, "conv2": 0.5, "conv_out": 0.1}.get(name.rpartition(".")[2], 1.0)
            module.weight.mul_(3**0.5 * sized)
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(HEIGHT * (2 / module.num_channels) ** 0.5)
    hold(vae)


@torch.no_grad()
def hold(vae: Any) -> None:
    """Keep the constant channels of a decoder constant, and the sum of the others 0, after a step of training."""
    for name, module in vae.decoder.named_modules():
        if isinstance(module, nn.GroupNorm):
            module.weight[:2] = 0
            module.bias[:2] = 0
        elif isinstance(module, nn.Conv2d) and not name.endswith("conv_out"):
            if not name.endswith("conv_in"):
                module.weight[:, :2] = 0  # a step of learning times the constant would shift all of a picture
            module.weight[2:] -= module.weight[2:].mean(0, keepdim=True)
            module.weight[:2] = 0
            bias = _bias(module)
            bias[2:] -= bias[2:].mean()
            up = 0.0 if name.endswith("conv2") else HEIGHT  # conv2's is added to what is there
            bias[:2] = torch.tensor([up, -up])
