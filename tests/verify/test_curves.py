# SPDX-License-Identifier: Apache-2.0
"""What the curves are drawn of, and that they can be drawn."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys

import pytest
from made_reports import BAD, GOOD, HOSTILE, deep, looked_inside, module, report

from paritas.verify.report import curves
from paritas.verify.report.layers import layers, stacks
from paritas.verify.report.panels import panels


def paths(*names: str) -> list[str]:
    return [row.path for row in layers([module(name) for name in names])]


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["embeddings.words", "embeddings", "encoder.layer.0.attention", "encoder.layer.0", "encoder.layer.1",
          "encoder", "pooler"],
         ["embeddings", "encoder.layer.0", "encoder.layer.1", "pooler"]),
        (["m.fc", "m.act", "m"], ["m.fc", "m.act"]),  # the wrapper is no point
        (["fc1", "act", "fc2"], ["fc1", "act", "fc2"]),
        (["0", "1.0", "1.1", "1", "2"], ["0", "1.0", "1.1", "2"]),  # few points: the list inside the list
        (["stem", "stages.0.layers.0.conv", "stages.0.layers.0", "stages.0.layers.1", "stages.0", "stages.1.layers.0",
          "stages.1", "norm"],
         ["stem", "stages.0.layers.0", "stages.0.layers.1", "stages.1.layers.0", "norm"]),
        ([name for i in range(7) for name in (f"stages.{i}.layers.0", f"stages.{i}")],
         [f"stages.{i}" for i in range(7)]),
        (["layers.0.mlp.experts.0", "layers.0.mlp", "layers.0"], ["layers.0"]),  # experts are no layers
        (["fc"], ["fc"]),
        ([""], [""]),
        ([], []),
    ],
)  # fmt: skip
def test_layers(names: list[str], shown: list[str]) -> None:
    assert paths(*names) == shown


def test_every_call_of_a_shared_layer_is_a_point() -> None:
    rows = [module("groups.0.layers.0", call=call) for call in range(12)]
    assert layers(rows) == tuple(rows)


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["a.layer.0", "a", "head"], {"a.layer.0": "", "a": "", "head": ""}),
        (["m.encoder.block.0", "m.decoder.block.0", "m.decoder", "head"],
         {"m.encoder.block.0": "m.encoder", "m.decoder.block.0": "m.decoder", "m.decoder": "m.decoder", "head": ""}),
        (["fc"], {"fc": ""}),
    ],
)  # fmt: skip
def test_stacks(names: list[str], parts: dict[str, str]) -> None:
    assert stacks([module(name) for name in names]) == parts


def named(report, **changes):
    return dataclasses.replace(report, environment=dataclasses.replace(report.environment, **changes))


def test_reports_of_one_original_share_an_axis_and_others_have_their_own() -> None:
    other = dataclasses.replace(GOOD, subject="another/model")
    shown = panels([("a", GOOD), ("b", BAD), ("c", named(GOOD, engine="mindspore", mode="graph")), ("d", other)])
    assert [panel.subject for panel in shown] == ["a/model", "another/model"]
    labels = [line.label for line in shown[0].lines]
    assert labels == ["openvino bfloat16 (a)", "openvino bfloat16 (b)", "mindspore graph bfloat16"]
    assert [row.name for row in shown[0].layers] == [row.name for row in layers(GOOD.modules)]


def test_layers_that_one_report_lacks_keep_their_place() -> None:
    less = looked_inside(tuple(row for row in deep(8) if not row.path.startswith("encoder.layer.3")))
    for order in ([less, looked_inside(deep(8))], [looked_inside(deep(8)), less]):
        (panel,) = panels([(str(at), one) for at, one in enumerate(order)])
        assert [row.path for row in panel.layers] == [row.path for row in layers(deep(8))]


def test_what_has_no_curve_is_said() -> None:
    blind = looked_inside((), unseen_modules={"encoder": "the engine shows outputs only"})
    (panel,) = panels([("a", report()), ("b", blind), ("c", GOOD)])
    assert len(panel.lines) == 1
    assert list(panel.undrawn.values()) == [
        "outputs only were compared: verify with --level modules",
        "the engine shows outputs only",
    ]
    pytest.importorskip("matplotlib")
    assert "not drawn: openvino bfloat16 (a): outputs only" in curves.svg([("a", report()), ("b", BAD)])


ODD = looked_inside(
    (
        module("encoder.layer.0", math.inf, fault="NaN", torch_error=math.nan),
        module("encoder.layer.$\\frac{1", 0.0),
        module("decoder.layer.0", math.nan, torch_error=0.0),
        *[module(f"decoder.layer.{at}", call=1) for at in range(80)],
    ),
    module_tolerance=None,
)


@pytest.mark.parametrize("one", [GOOD, BAD, ODD, HOSTILE, report()], ids=["good", "bad", "odd", "hostile", "none"])
def test_pictures_are_drawn(one) -> None:
    pytest.importorskip("matplotlib")
    png = curves.png([("a", one)])
    assert png.startswith(b"\x89PNG") and len(png) > 20_000
    text = curves.svg([("a", one)])
    assert text.startswith("<svg") and "<script" not in text and "<img" not in text


def test_the_same_reports_make_the_same_picture() -> None:
    pytest.importorskip("matplotlib")
    assert curves.svg([("a", BAD)]) == curves.svg([("a", BAD)])


def test_the_svg_has_the_pages_colours_links_and_tooltips() -> None:
    pytest.importorskip("matplotlib")
    text = curves.svg([("", BAD)])
    colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert not colours & {"#0072b2", "#1f2328", "#c8102e"}, colours
    assert "var(--series-0)" in text and "var(--bad)" in text
    links = re.findall(r'<a href="#(r0-m\d+)"><title>([^<]*)', text)
    shown = layers(BAD.modules)
    assert [BAD.modules[int(anchor.partition("m")[2])] for anchor, _ in links] == list(shown)
    assert links[4][1].startswith("encoder.layer.3 (3): 50x tolerance, error 5.00e-03\n    modeling_made.py:7")
    assert "_blank" not in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)


def test_drawing_leaves_no_trace_in_matplotlib() -> None:
    pytest.importorskip("matplotlib")
    code = (
        "import sys, matplotlib; settings = matplotlib.rcParams; settings['font.size'] = 17\n"
        "from made_reports import GOOD; from paritas.verify.report import curves; curves.png([('', GOOD)])\n"
        "assert (settings['font.size'], settings['svg.fonttype']) == (17, 'path')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rpartition("/")[0])


def test_without_matplotlib_it_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(curves, "drawable", lambda: False)
    with pytest.raises(curves.DrawingMissing, match=r"pip install 'paritas\[report\]'"):
        curves.png([("", GOOD)])
    assert curves.svg([("", GOOD)]).startswith("<svg")
