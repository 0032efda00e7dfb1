# SPDX-License-Identifier: Apache-2.0
"""The page of `paritas demo pixart`: a prompt becomes a picture, seen while it does, and PyTorch's beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from paritas.apps import frame
from paritas.apps.frame import ONE_AT_A_TIME, Told, seconds
from paritas.apps.pixart.drawing import LARGEST_SEED, STEPS, Drawer, Drawn, Wish, apart, size
from paritas.errors import InputError
from paritas.run.engine import about

#: The hyphen is one that no line breaks at.
INTRO = (
    "Write what you want to see: PixArt\u2011α draws it, each of its networks computed by the engine that you choose."
)

KNOWN = (
    "The small model knows circles, squares, triangles, stars and hearts in red, orange, yellow, green, blue, purple, "
    "pink and black: how many, where, and on white, grey or black."
)
SMALL_PROMPTS = (
    "a red circle left of a blue square",
    "three yellow stars on a black background",
    "a big pink heart",
    "a green triangle above an orange circle",
    "a purple square in the top left corner on a grey background",
)
PROMPTS = (
    "A small cactus with a happy face in the Sahara desert.",
    "an astronaut sitting in a diner, eating fries, cinematic, analog film",
    "professional portrait photo of an anthropomorphic cat wearing fancy gentleman hat and jacket walking in autumn "
    "forest.",
)


def page(drawer: Drawer, *, seed: int = 0, said: Callable[[str], None] = lambda line: None) -> Any:
    """The page, a `gradio.Blocks`. said: called with a line for the terminal."""
    gr = frame.gradio()
    few = drawer.few_steps
    side = drawer.side
    sizes = [f"{side} × {side}"]
    if not drawer.is_small:
        sizes += [f"{side} × {3 * side // 4}", f"{3 * side // 4} × {side}"]

    with frame.page("Text to picture", INTRO, engine=drawer.engine, said=said) as (blocks, around):
        last = gr.State(None)
        with gr.Row(equal_height=False, elem_classes=["bench"]):
            with gr.Column():
                prompt = gr.Textbox(
                    label="Prompt", lines=2, autofocus=True,
                    placeholder=SMALL_PROMPTS[0] if drawer.is_small else PROMPTS[0],
                )  # fmt: skip
                gr.Examples([[text] for text in (SMALL_PROMPTS if drawer.is_small else PROMPTS)], [prompt])
                if drawer.is_small:
                    gr.HTML(f"<p>{KNOWN}</p>", elem_classes=["foot"])
                with gr.Row():
                    draw = gr.Button("Draw", variant="primary", scale=3)
                    stop = gr.Button("Stop", scale=1, min_width=80)
                note = around.said_here()
                with gr.Column(elem_classes=["settings"]):
                    with gr.Row():
                        engine = gr.Dropdown(drawer.engines, value=drawer.engine, label="Engine", interactive=True)
                        precision = gr.Dropdown(
                            drawer.precisions(drawer.engine), value="fp32", label="Precision", interactive=True
                        )
                    with gr.Row():
                        steps = gr.Slider(*STEPS, value=4 if few else 20, step=1, label="Steps")
                        drawn = gr.Number(seed, precision=0, minimum=0, maximum=LARGEST_SEED, label="Seed")
                    with gr.Accordion("Negative prompt, guidance, size", open=False):
                        negative = gr.Textbox(
                            label="Negative prompt", info="What is not to be seen; it needs guidance.", lines=1
                        )
                        guidance = gr.Slider(
                            0, 10, value=0, step=0.5, label="Guidance", info="Above 1, steps take twice as long."
                        )
                        wide = gr.Dropdown(
                            sizes, value=sizes[0], label="Size", allow_custom_value=True, interactive=True,
                            info="Width × height, in pixels.",
                        )  # fmt: skip
            with gr.Column():
                picture = _picture(gr, "Picture", "drawn")
                compare = gr.Button("Draw the same in PyTorch", interactive=False)
                said_of_both = around.said_here()
                other = _picture(gr, "The same seed in PyTorch", "compared", visible=False)
        around.foot("PixArt-α, a small model that was trained on shapes" if drawer.is_small else drawer.source)

        def paint(
            text: str,
            unwanted: str,
            number: float | None,
            count: float,
            dimensions: str,
            guide: float,
            on: str,
            kind: str,
        ) -> Iterator[Any]:
            label = about(on).label
            width, height = size(dimensions)
            wish = Wish(
                text or "", unwanted or "", _whole(number), int(count), width, height, float(guide), on, kind
            )  # fmt: skip
            hidden = gr.Image(visible=False)
            for seen in drawer.draw(wish):
                if isinstance(seen, Drawn):
                    hint = "\n".join(drawer.hints(wish))
                    pressed = gr.Button(interactive=not about(on).is_original)
                    told = Told(_time(seen), hint, label)
                    yield seen.picture, seen, pressed, hidden, around.nothing(), told
                else:
                    if seen.what.startswith(("Loading", "Porting")):
                        said(seen.what)
                    shown = gr.skip() if seen.picture is None else seen.picture
                    told = Told(f"{seen.what}…", engine=label)
                    yield shown, None, gr.Button(interactive=False), hidden, around.nothing(), told

        def again(before: Drawn | None) -> Iterator[Any]:
            if before is None:
                raise InputError("There is no picture yet to compare with.")
            wish = before.wish
            for seen in drawer.draw(Wish(**{**vars(wish), "engine": "torch", "precision": "fp32"})):
                if isinstance(seen, Drawn):
                    hint = _difference(before, seen)
                    told = Told(_time(before), hint, about(wish.engine).label, plain=True)
                    yield gr.Image(seen.picture, visible=True), told
                else:
                    yield gr.Image(seen.picture, visible=True), Told(f"{seen.what}…", engine="PyTorch")

        # A choice of engine changes which precisions there are; what is at the top says what computed last.
        engine.change(
            lambda on: gr.Dropdown(drawer.precisions(on), value="fp32"), [engine], [precision], api_visibility="private"
        )
        asked = [prompt, negative, drawn, steps, wide, guidance, engine, precision]
        shown = [picture, last, compare, other, said_of_both, note, around.top]
        running = gr.on(
            [draw.click, prompt.submit], around.streams(5)(paint), asked, shown,
            api_name="draw", show_progress="minimal", show_progress_on=[picture], **ONE_AT_A_TIME,
        )  # fmt: skip
        beside = compare.click(
            around.streams(1)(again), [last], [other, said_of_both, around.top],
            api_visibility="private", show_progress="minimal", show_progress_on=[other], **ONE_AT_A_TIME,
        )  # fmt: skip
        stop.click(around.heading, None, [around.top], cancels=[running, beside], api_visibility="private")
    return blocks


def _picture(gr: Any, label: str, name: str, visible: bool = True) -> Any:
    # "share" is not among the buttons: it would send the picture to another host.
    return gr.Image(
        label=label, format="png", interactive=False, buttons=["download", "fullscreen"], visible=visible,
        elem_classes=[name],
    )  # fmt: skip


def _whole(number: float | None) -> int:
    if number is None:
        raise InputError("The seed has to be a whole number.")
    return int(number)


def _time(drawn: Drawn) -> str:
    wish = drawn.wish
    steps = "1 step" if wish.steps == 1 else f"{wish.steps} steps of {_short(drawn.each)}"
    return f"{steps} in {wish.precision}, {seconds(drawn.whole)} in all"


def _short(count: float) -> str:
    return f"{1000 * count:.0f} ms" if count < 1 else seconds(count)


def _difference(ours: Drawn, theirs: Drawn) -> str:
    level, part = apart(ours.picture, theirs.picture)
    label = about(ours.wish.engine).label
    same = (
        "They are the same."
        if not level
        else f"They differ by at most {level} of 255 levels, in {100 * part:.2g} % of values."
    )
    faster = theirs.each / ours.each
    return f"{same} A step takes PyTorch {_short(theirs.each)}: {label} is {faster:.1f} times as fast."
