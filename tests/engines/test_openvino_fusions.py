# SPDX-License-Identifier: Apache-2.0
"""What OpenVINO's CPU plugin fuses wrongly is kept apart, and what it fuses well stays together."""

from __future__ import annotations

import openvino
import pytest
import torch

import paritas


class _Reduced(torch.nn.Module):
    """`function` of this module and x, [n, 4, 5]; weight has one number for each of what is left along one axis."""

    def __init__(self, function, count):
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.randn(count, generator=torch.Generator().manual_seed(1)))
        self.norm = torch.nn.BatchNorm1d(count)
        self.norm.running_mean = torch.randn(count, generator=torch.Generator().manual_seed(2))

    def forward(self, x):
        return self.function(self, x)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda m, x: x.mean(-1) + m.weight, 4),
        (lambda m, x: x.sum(0).relu() * m.weight, 5),
        (lambda m, x: x.mean(-1, keepdim=True) * m.weight[:, None], 4),
        (lambda m, x: m.norm(x.mean(2)), 4),
        (lambda m, x: x.prod(-1) - m.weight, 4),
        (lambda m, x: (x.norm(dim=-1) + 9).sqrt() / m.weight, 4),
    ],
)
def test_a_reduction_before_constants_is_right(function, count):
    model = _Reduced(function, count).eval()
    port = paritas.port(model, engine="openvino", inputs={"x": torch.randn(3, 4, 5)})
    for size in (3, 7):
        x = torch.randn(size, 4, 5)
        with torch.no_grad():
            assert (port(x=x) - model(x)).abs().max() < 1e-5


@pytest.mark.parametrize("heads", [5, 3])
def test_a_number_for_each_head_behind_a_layer_is_right(heads):
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.each = torch.nn.Linear(5, 5, bias=False), torch.nn.Parameter(torch.randn(heads))

        def forward(self, x):  # [batch, heads, length, width]
            return self.layer(x).relu() * self.each[:, None, None]

    model = Scaled().eval()
    port = paritas.port(model, engine="openvino", inputs={"x": torch.randn(2, heads, 4, 5)})
    x = torch.randn(3, heads, 6, 5)
    with torch.no_grad():
        assert (port(x=x) - model(x)).abs().max() < 1e-5


def test_bilinear_with_a_bias_is_right():
    model, given = torch.nn.Bilinear(2, 3, 4).eval(), (torch.randn(8, 2), torch.randn(8, 3))
    port = paritas.port(model, engine="openvino", inputs=given)
    with torch.no_grad():
        assert (port(*given) - model(*given)).abs().max() < 1e-5


class _Normed(torch.nn.Module):
    """Rows of a table, looked up by whole numbers where there is one, divided by their root mean square."""

    def __init__(self, rows: int):
        super().__init__()
        self.table = torch.nn.Embedding(rows, 5) if rows else torch.nn.Identity()
        self.weight = torch.nn.Parameter(torch.randn(5))

    def forward(self, x):
        x = self.table(x)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class _Turned(torch.nn.Module):
    """Heads, [batch, heads, length, 8], turned by the angles of their positions."""

    def forward(self, x, positions):
        angles = positions[..., None] * torch.tensor([1.0, 0.5, 0.25, 0.125])
        cos, sin = (f(torch.cat((angles, angles), -1))[:, None] for f in (torch.cos, torch.sin))
        first, second = x[..., :4], x[..., 4:]
        return x * cos + torch.cat((-second, first), -1) * sin


@pytest.mark.parametrize(
    ("model", "given", "kind"),
    [
        (_Normed(0), {"x": torch.randn(3, 4, 5)}, "RMS"),
        (_Normed(9), {"x": torch.randint(0, 9, (3, 4))}, "RMS"),
        (_Turned(), {"x": torch.randn(2, 3, 4, 8), "positions": torch.randint(0, 9, (2, 4))}, "RoPE"),
    ],
    ids=["root mean square", "of looked up rows", "rotary embedding"],
)
def test_what_the_plugin_has_an_operator_for_is_one(model, given, kind, tmp_path):
    port = paritas.port(model.eval(), engine="openvino", inputs=given)
    with torch.no_grad():
        assert (port(**given) - model(**given)).abs().max() < 1e-5
    port.save(tmp_path / "port")
    port.close()
    compiled = openvino.Core().compile_model(str(tmp_path / "port" / "openvino_model.xml"), "CPU")
    kinds = {op.get_rt_info()["layerType"].value for op in compiled.get_runtime_model().get_ops()}
    assert any(kind in found for found in kinds), kinds


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sqrt().relu(),
        lambda x: x.rsqrt().relu(),
        lambda x: (x / x.round()).relu(),
        lambda x: (x.pow(0.3) * 2 + 1).relu(),
        lambda x: x.log().relu(),
        lambda x: torch.relu_(x.sqrt() - x),
        lambda x: x.asin().neg().relu(),
        lambda x: x.fmod(0.0).relu(),
        lambda x: (torch.nn.functional.avg_pool1d(x.sqrt(), 2).abs() + 1).relu(),
        lambda x: (x.sqrt() @ torch.ones(3, 3) + x).relu(),
    ],
)
def test_a_rectifier_keeps_the_nan_that_was_made_before_it(function):
    class Does(torch.nn.Module):
        def forward(self, x):
            return function(x)

    x = torch.linspace(-2, 2, 9).reshape(3, 3)
    want = function(x)
    assert want.isnan().any()
    port = paritas.port(Does().eval(), engine="openvino", inputs={"x": x})
    torch.testing.assert_close(port(x=x), want, equal_nan=True, rtol=1e-5, atol=1e-6)
