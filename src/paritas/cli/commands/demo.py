# SPDX-License-Identifier: Apache-2.0
"""`paritas demo`: the main job on a real checkpoint, which `make port` runs, and pages to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paritas.cli.commands.speech import Host, PortNumber, Seed
from paritas.cli.commands.translate import EngineOption
from paritas.cli.options import Debug, DemoEngines, DemoOut, Device, Json, Measure, OvConfig, Quiet, Seconds
from paritas.cli.outcome import DIVERGES, OK, console, print_json, say
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="[MODEL]",
        show_default=False,
        help="A PixArt-α pipeline: a hub id, PixArt-alpha/PixArt-LCM-XL-2-1024-MS for one, or a directory. If not "
        "given, the small model that comes with Paritas, which needs no network.",
    ),
]


def demo(
    context: typer.Context,
    out: DemoOut = Path("ports"),
    engine: DemoEngines = None,
    seconds: Seconds = 2.0,
    measure: Measure = True,
    device: Device = "",
    ov_config: OvConfig = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Port the real checkpoint all-MiniLM-L6-v2 to every engine and precision, and show that nothing changed.

    Prints parity, worst module, speed against PyTorch eager, size and load time, then embeds real sentences on each
    engine and shows the ranking of neighbours beside PyTorch's. The exit code is 1 if anything diverges.

    **Examples**

      paritas demo

      paritas demo --engine openvino --no-bench --out /tmp/ports
    """
    if context.invoked_subcommand:
        return OK
    from paritas.apps import demo as main_job

    properties = properties_of(ov_config)
    with Stages("all-MiniLM-L6-v2", quiet=quiet) as stages:
        result = main_job.run(
            out,
            engine,
            seconds=seconds,
            measure=measure,
            device=device,
            ov_config=properties,
            progress=stages,
            detail=stages.detail,
        )
    if as_json:
        print_json(result.to_json())
    else:
        console().print(result.terminal())
    return OK if result.agrees else DIVERGES


def pixart(
    model: Checkpoint = "",
    engine: EngineOption = None,
    host: Host = "127.0.0.1",
    port: PortNumber = 7860,
    seed: Seed = 0,
    debug: Debug = False,
) -> int:
    """Serve a page that draws what is written, by PixArt-α with its networks on an engine.

    Prompt, negative prompt, seed, steps, size, engine and precision; the picture is seen while it is drawn, and the
    same seed's in PyTorch beside it. Needs pip install 'paritas[page,diffusers]'. Ctrl-C ends it.

    **Examples**

      paritas demo pixart

      paritas demo pixart PixArt-alpha/PixArt-LCM-XL-2-1024-MS --engine openvino
    """
    from paritas.apps import frame
    from paritas.apps.pixart import page
    from paritas.apps.pixart.drawing import Drawer
    from paritas.extras import require

    require("diffusers", "paritas demo pixart")
    drawer = Drawer(model, engine)
    blocks = page.page(drawer, seed=seed, said=_say)
    frame.serve_until_interrupted(blocks, host, port, f"PixArt-α on {drawer.engine}", _say)
    return OK


OwnIndex = Annotated[
    str | None,
    typer.Argument(metavar="[INDEX]", help="Your songs, by paritas search index (or a URL); else 3,000 that ship."),
]


def playlist(
    index: OwnIndex = None,
    engine: EngineOption = None,
    host: Host = "127.0.0.1",
    port: PortNumber = 7860,
    debug: Debug = False,
) -> int:
    """Serve a page that makes playlists of what songs mean, with the verse that was found and a map of all songs.

    The songs that ship were made for it and need no network; they are read into an index when the page is first
    served, and are there at once the next time. Needs pip install 'paritas[page,search,demo]'. Ctrl-C ends it.

    **Examples**

      paritas demo playlist

      paritas demo playlist songs.idx --engine openvino
    """
    from paritas.extras import require

    require("search", "paritas demo playlist")
    from paritas.apps import frame
    from paritas.apps.playlist import page
    from paritas.apps.playlist.collection import Collection

    collection = Collection(index, engine)
    blocks = page.page(collection, said=_say)
    frame.serve_until_interrupted(blocks, host, port, "Playlists", _say)
    return OK


Architecture = Annotated[
    str, typer.Argument(metavar="MODEL", help="Of open_clip's, as ViT-B-32, or hf-hub:OWNER/NAME.")
]
Weights = Annotated[
    str, typer.Option("--pretrained", metavar="TAG|FILE", help="Weights: a tag of open_clip's, or a file.")
]


def clip(
    model: Architecture,
    pretrained: Weights = "",
    engine: EngineOption = None,
    host: Host = "127.0.0.1",
    port: PortNumber = 7860,
    debug: Debug = False,
) -> int:
    """Serve a page on which a CLIP model says which caption fits which picture, and what of the picture says so.

    Pictures, captions, bars of probabilities; parts of a picture are covered one by one to see which count. Needs
    pip install 'paritas[page,clip]'. Ctrl-C ends it.

    **Examples**

      paritas demo clip ViT-B-32 --pretrained laion2b_s34b_b79k

      paritas demo clip RN50 --pretrained RN50.ckpt --engine mindspore
    """
    from paritas.extras import require

    require("clip", "paritas demo clip")
    from paritas.apps import frame
    from paritas.apps.captions import page
    from paritas.apps.captions.matching import Matcher

    matcher = Matcher(model, pretrained, engine)
    blocks = page.page(matcher, said=_say)
    frame.serve_until_interrupted(blocks, host, port, f"{model} on {matcher.engine}", _say)
    return OK


def _say(line: str) -> None:
    say(line, err=True)
