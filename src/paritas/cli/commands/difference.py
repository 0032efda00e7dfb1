# SPDX-License-Identifier: Apache-2.0
"""`paritas difference`: a CLIP model on an engine beside PyTorch, by the CLIP Handbook's formulas."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from paritas.cli.bar import Bar
from paritas.cli.options import OTHER_ENGINES, Debug, Json, Quiet, either, engine_names
from paritas.cli.outcome import DIVERGES, OK, print_json, say
from paritas.errors import InputError
from paritas.extras import require

Names = Annotated[
    list[str], typer.Argument(metavar="MODEL...", help="Architectures of open_clip, as RN50 or ViT-B-32.")
]
Pretrained = Annotated[
    str, typer.Option("--pretrained", metavar="TAG|FILE", help="Weights; random ones of a seed if not given.")
]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine",
        "-e",
        autocompletion=engine_names,
        help=f"{either(OTHER_ENGINES)}; repeatable. All that are here, in each mode, if not given.",
    ),
]
Picture = Annotated[Path | None, typer.Option("--image", help="A picture; one that is drawn if not given.")]
Captions = Annotated[
    list[str] | None, typer.Option("--text", help="Captions; repeatable. The handbook's three if not given.")
]
Bar_ = Annotated[float, typer.Option("--most", min=0, help="The mean relative difference that is still good.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="A file for the table, in Markdown.")]


def difference(
    models: Names,
    pretrained: Pretrained = "",
    engines: Engines = None,
    image: Picture = None,
    text: Captions = None,
    most: Bar_ = 1e-4,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Compare CLIP models on engines with PyTorch, as the MindSpore-CLIP Handbook does: its example, its two formulas.

    Mean absolute and mean relative difference (with 1e-6) of image_features, text_features and probs, beside the
    figures that the handbook has for that architecture. The exit code is 1 if a relative difference is over --most.

    **Examples**

      paritas difference RN50 ViT-B-32

      paritas difference ViT-B-32 --pretrained ViT-B-32.ckpt --engine mindspore --image CLIP.png
    """
    from paritas import store
    from paritas.run.engine import about
    from paritas.run.engine import engines as known

    require("clip", "paritas difference")
    from paritas.apps.difference import CAPTIONS, differences, to_markdown

    names = [about(name).name for name in engines or ()]
    names = names or [name for name, one in known().items() if one.available and not about(name).is_original]
    columns = [(name, mode) for name in names for mode in about(name).modes]
    picture = None
    if image is not None:
        from PIL import Image, UnidentifiedImageError

        try:
            picture = Image.open(image)
        except FileNotFoundError:
            raise InputError(f"There is no file {image}.") from None
        except UnidentifiedImageError:
            raise InputError(f"{image} is no picture that Pillow knows.") from None
    rows = []
    with Bar("difference", "outputs", quiet=quiet) as bar:
        for model in models:
            for row in differences(model, columns, pretrained=pretrained, picture=picture, captions=text or CAPTIONS):
                rows.append(row)
                bar(len(rows), 3 * len(columns) * len(models), f"{row.model} {row.engine}")
    table = to_markdown(rows)
    if out is not None:
        store.replace_text(out, table)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
    else:
        say(table)
    return DIVERGES if any(not row.relative <= most for row in rows) else OK
