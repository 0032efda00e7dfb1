# SPDX-License-Identifier: Apache-2.0
"""The small model that draws: its captions and pictures, its training in a few seconds, and the page, in a browser."""

from __future__ import annotations

import dataclasses
import io
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("diffusers")

from browsers import DESKTOP, PHONE, browser, free_port
from paritas.apps import frame
from paritas.apps.pixart import autoencoder, measure, networks, scenes, small_model, train
from paritas.apps.pixart import page as pixart_page
from paritas.apps.pixart.drawing import Drawer, Drawn, Step, Wish, apart, size
from paritas.apps.pixart.scenes import Scene, Thing
from paritas.cli import app as commands
from paritas.errors import InputError, SourceError

PROMPT = "a red circle left of a blue square"
RED, BLUE = Thing("red", "circle"), Thing("blue", "square")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A pipeline that has learnt next to nothing, and what its training said."""
    place = tmp_path_factory.mktemp("pixart")
    said: list[str] = []
    train.run(train.QUICK, place / "model", place / "work", said.append, count=4)
    return place / "model", said


# --- captions and pictures -----------------------------------------------------------------------------------


def test_a_picture_is_what_its_scene_says() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        picture = scenes.picture(Scene("beside", RED, BLUE), rng)
        assert tuple(picture[128, 69]) == scenes.COLOURS["red"] and tuple(picture[128, 187]) == scenes.COLOURS["blue"]
        assert tuple(picture[128, 128]) == tuple(picture[0, 0]) == scenes.BACKGROUNDS["white"]
    picture = scenes.picture(Scene("three", RED, background="black"), rng, height=128, width=384)
    assert picture.shape == (128, 384, 3)
    assert all(tuple(picture[64, round(384 * x)]) == scenes.COLOURS["red"] for x, _ in scenes.GROUPS["three"])


def test_what_a_caption_leaves_open_is_another_with_each_thing() -> None:
    rng = np.random.default_rng(0)
    for left_open, same in (("colour", False), ("shape", True)):
        picture = scenes.picture(Scene("three", RED), rng, left_open=left_open)
        middles = [tuple(picture[128, round(256 * x)]) for x, _ in scenes.GROUPS["three"]]
        assert middles[0] == scenes.COLOURS["red"] and all((middle == middles[0]) == same for middle in middles[1:])
        assert (picture != scenes.picture(Scene("three", RED), rng)).any()


def test_captions_say_which_is_where() -> None:
    rng = np.random.default_rng(0)
    for text in (
        "red",
        "two red circles left of a blue square",
        "a large red circle left of a blue square",
        "a star star",
    ):
        assert not scenes.learnt(text), text
    found = {scenes.caption(Scene("beside", RED, BLUE), rng) for _ in range(200)}
    assert PROMPT in found and "a blue square to the right of a red circle" in found
    assert not any(re.match("a blue square (to the )?left", text) for text in found)
    assert scenes.caption(Scene("two", RED), rng).startswith("two red circles")
    for left_open, text in (("colour", "a circle"), ("shape", "a red shape")):
        said = {scenes.caption(Scene("middle", RED), rng, left_open) for _ in range(50)}
        assert text in said and "a red circle" not in said
    known = networks.tokenizer()
    for _ in range(200):  # a word is a token: the training of the text encoder counts on it
        text = scenes.caption(scenes.draw(rng), rng)
        assert scenes.learnt(text) and scenes.learnt(f" {text.upper()}."), text
        assert len(known(text)["input_ids"]) == len(text.split()) + 1 <= 24


def test_what_is_held_out_is_not_trained_on() -> None:
    rng = np.random.default_rng(0)
    drawn = [scenes.draw(rng) for _ in range(300)]
    assert not any(scene.held_out for scene in drawn)
    assert all(scenes.draw(rng, held_out=True).held_out for _ in range(20))
    assert {scene.layout for scene in drawn} == set(scenes.LAYOUTS)


def test_the_autoencoder_averages_and_is_the_same_for_parts_and_wholes() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vae = networks.autoencoder().eval()
    autoencoder.set_encoder(vae)
    autoencoder.start_decoder(vae)
    with torch.no_grad():
        for norm in (m for m in vae.decoder.modules() if isinstance(m, torch.nn.GroupNorm)):
            norm.bias[2:].uniform_(-0.5, 0.5)  # as if it had learnt
        pictures = train.pixels([scenes.picture(scenes.draw(rng), rng) for _ in range(3)])
        encoded = vae.encode(pictures).latent_dist
        torch.testing.assert_close(encoded.mean, autoencoder.averages(pictures), atol=1e-4, rtol=0)
        assert encoded.std.max() < 1e-4
        whole = vae.decode(encoded.mean).sample[:, :, 112:144, 112:144]
        part = vae.decode(encoded.mean[:, :, 8:24, 8:24]).sample[:, :, 48:80, 48:80]
    torch.testing.assert_close(part, whole, atol=0.01 * float(whole.std()), rtol=0)  # by group norms: 0.4


def test_latents_are_those_of_the_whole_picture() -> None:
    rng = np.random.default_rng(0)
    scene = scenes.draw(rng)
    few = train.latents([scene], np.random.default_rng(1))
    picture = scenes.picture(scene, np.random.default_rng(1))
    every = autoencoder.averages(train.pixels([picture]))
    assert (few - every).square().mean() < 1e-3


# --- training ------------------------------------------------------------------------------------------------


def test_a_short_training_writes_a_pipeline(trained: tuple[Path, list[str]]) -> None:
    directory, said = trained
    text = "\n".join(said)
    for stage in ("text encoder", "autoencoder", "transformer"):
        assert re.search(rf"^{stage}.*: \d+ of \d+, \d+ s", text, re.M), text
    assert re.search(r"of 4 held-out captions are drawn right: [\d.]+ %", text)
    full = networks.transformer(train.Plan().width, train.Plan().layers)
    known = networks.tokenizer()
    parts = (full, networks.autoencoder(), networks.text_encoder(len(known)))
    assert 2 * sum(p.numel() for part in parts for p in part.parameters()) < 4_900_000  # bytes, of 16 bits each
    again: list[str] = []
    train.run(train.QUICK, directory.with_name("again"), directory.with_name("work"), again.append, count=4)
    assert "transformer: from" in "\n".join(again)  # a stage that is done is not done again
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (directory / weights).read_bytes() == (directory.with_name("again") / weights).read_bytes()


def test_a_training_goes_on_from_a_pipeline_s_weights(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    said: list[str] = []
    train.run(train.QUICK, tmp_path / "model", tmp_path / "work", said.append, count=4, start=trained[0])
    text = "\n".join(said)
    assert re.search(r"^transformer, further: 4 of 4", text, re.M) and "text encoder" not in text
    files = ("transformer/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors")
    assert [(tmp_path / "model" / file).read_bytes() == (trained[0] / file).read_bytes() for file in files] == [
        False,
        True,
    ]
    assert f"--seed 0 --steps 4 --batch 4 --rate 0.002 --from {trained[0]}" in (
        tmp_path / "model" / "README.md"
    ).read_text(encoding="utf-8")
    with pytest.raises(InputError, match="its networks have other sizes"):
        train.run(train.QUICK, tmp_path / "model", tmp_path / "other", said.append, start=small_model())


def test_the_judge_is_trained_apart(tmp_path: Path) -> None:
    said: list[str] = []
    train.run_judge(train.QUICK, tmp_path / "judge", tmp_path / "work", said.append, count=4)
    text = "\n".join(said)
    assert re.search(r"^judge: 2 of 2", text, re.M)
    assert re.search(r"^The judge has \d of 4 true pictures right", text, re.M)
    assert (tmp_path / "judge" / "judge.safetensors").stat().st_size == measure.JUDGE.stat().st_size


@pytest.mark.slow  # torch's loader of data forks, and leaves a handler of signals to whoever comes next
def test_pictures_made_by_other_processes_are_the_same() -> None:
    words, now = networks.tokenizer(), train.Lesson(1.0, own=0.5)
    given = []
    for workers in (0, 2):
        course = train.Course("course", 5, (3, 4), lambda _: None)
        given.append(list(course.given(lambda _, rng: train.batch(train.QUICK, words, now, rng), workers)))
    for (step, one), (number, other) in zip(*given, strict=True):
        assert step == number
        for field in dataclasses.fields(one):
            torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), rtol=0, atol=0)


def test_the_source_s_snippet_with_only_the_import_changed(trained: tuple[Path, list[str]]) -> None:
    pytest.importorskip("openvino")
    from diffusers import PixArtAlphaPipeline as Original

    from paritas.diffusers import PixArtAlphaPipeline

    images = []
    for made in (Original, PixArtAlphaPipeline):
        pipe = made.from_pretrained(trained[0], use_safetensors=True)
        generator = torch.Generator().manual_seed(42)
        images.append(pipe(PROMPT, guidance_scale=0.0, num_inference_steps=4, generator=generator).images[0])
    want, got = (np.asarray(image) for image in images)
    assert got.shape == (256, 256, 3)
    assert apart(got, want)[0] <= 1


# --- the small model -----------------------------------------------------------------------------------------


def test_the_small_model_is_shipped_as_diffusers_saves_one() -> None:
    from diffusers import PixArtAlphaPipeline

    weights = list(small_model().rglob("*.safetensors"))
    assert len(weights) == 3 and sum(path.stat().st_size for path in weights) <= 5_000_000
    assert "license: apache-2.0" in (small_model() / "README.md").read_text(encoding="utf-8")
    pipe = PixArtAlphaPipeline.from_pretrained(small_model())
    assert {part.dtype for part in (pipe.text_encoder, pipe.vae, pipe.transformer)} == {torch.float32}


def test_the_small_model_draws_what_is_written() -> None:
    from diffusers import PixArtAlphaPipeline

    pipe = PixArtAlphaPipeline.from_pretrained(small_model())
    assert measure.accuracy(pipe, measure.judge(), 32) >= 0.96  # of 400, and on each engine, below


def test_the_judge_tells_true_pictures_from_others() -> None:
    judge = measure.judge()
    found = measure.true(judge, 64)
    assert found.part >= 0.98 and found.count - found.right <= sum(found.wrong.values())
    rng = np.random.default_rng(0)
    other = {"layout": "above", "colour": "beside", "shape": "beside", "size": "middle", "background": "beside"}
    for kind, change in other.items():
        wanted = Scene("middle", RED, size="large") if kind == "size" else Scene("beside", RED, BLUE)
        shown = {
            "layout": Scene(change, RED, BLUE),
            "colour": Scene(change, RED, Thing("green", "square")),
            "shape": Scene(change, RED, Thing("blue", "star")),
            "size": Scene(change, RED, size="small"),
            "background": Scene(change, RED, BLUE, background="grey"),
        }[kind]
        with torch.no_grad():
            wrong = measure.mistaken(judge(train.pixels([scenes.picture(shown, rng)])), [wanted])[0]
        assert [name for name, place in measure.KINDS.items() if wrong[place].any()] == [kind]


def test_how_much_is_drawn_right_is_a_table(trained: tuple[Path, list[str]], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["measure", str(trained[0]), "--engine", "torch", "--count", "4", "--steps", "1"])
    measure.main()
    said = capsys.readouterr().out
    assert "4 captions of combinations that no training saw, 1 steps" in said
    assert re.search(r"^true pictures +\d =", said, re.M) and re.search(r"^PyTorch +\d = +[\d.]+ % +\d", said, re.M)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino", "mindspore"])
def test_the_small_model_draws_what_is_written_on_every_engine(engine: str) -> None:
    from diffusers import PixArtAlphaPipeline

    from paritas.diffusers import port

    if engine != "torch":
        pytest.importorskip(engine)
    pipe = PixArtAlphaPipeline.from_pretrained(small_model())
    assert measure.accuracy(pipe if engine == "torch" else port(pipe, engine=engine), measure.judge(), 400) >= 0.98


def test_the_example_draws_on_an_engine(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(sys, "argv", ["text_to_image.py", PROMPT, "--out", str(tmp_path / "picture.png")])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "text_to_image.py"), run_name="__main__")
    assert re.search(r"openvino: [\d.]+ s, at most [01] of 255 levels", capsys.readouterr().out)
    picture = np.asarray(Image.open(tmp_path / "picture.png")).astype(int)
    left, right = picture[88:168, :128].reshape(-1, 3), picture[88:168, 128:].reshape(-1, 3)
    for half, colour in ((left, "red"), (right, "blue")):
        assert (np.abs(half - np.array(scenes.COLOURS[colour])).max(1) < 24).mean() > 0.2


# --- drawing -------------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    drawer = Drawer(str(trained[0]), "torch")
    for change, words in (
        ({"prompt": " "}, "There is nothing to draw"),
        ({"steps": 0}, "The steps have to be from 1 to 50, not 0"),
        ({"steps": 51}, "The steps have to be from 1 to 50, not 51"),
        ({"seed": -1}, "The seed has to be from 0 to"),
        ({"precision": "int8"}, "PyTorch has fp32, bf16 here, not int8"),
        ({"width": 250}, "The width has to be a multiple of 32 from 32 to 512, not 250: 256 would do"),
        ({"height": 4096}, "The height has to be a multiple of 32 from 32 to 512, not 4096: 512 would do"),
    ):
        with pytest.raises(InputError, match=words):
            list(drawer.draw(Wish(**{"prompt": PROMPT, **change})))
    with pytest.raises(InputError, match="'big' is no width and height: write 256 x 256"):
        size("big")
    assert size("512 × 256") == size("512x256") == (512, 256)
    (tmp_path / "model_index.json").write_text("{")
    for source, words in (
        (str(tmp_path / "nothing"), "There is no directory"),
        (str(Path(__file__).parent), "it has no model_index.json"),
        (str(tmp_path), "cannot be loaded"),
    ):
        with pytest.raises(SourceError, match=words):
            list(Drawer(source, "torch").draw(Wish(PROMPT)))


def test_hints_say_what_is_left_out(trained: tuple[Path, list[str]]) -> None:
    drawer = Drawer(str(trained[0]), "torch")
    *_, drawn = drawer.draw(Wish(PROMPT, steps=1))
    assert isinstance(drawn, Drawn)
    assert drawer.hints(Wish(PROMPT)) == []
    assert drawer.hints(Wish(PROMPT, negative="red")) == [
        "The negative prompt does nothing at a guidance of 1 or less."
    ]
    (hint,) = drawer.hints(Wish("red " * 119 + "blue heart"))
    assert hint == "The prompt is too long, its last 2 words are left out: blue heart"
    (hint,) = drawer.hints(Wish("red " * 118 + "turquoise"))  # a word that is made of letters: cut within
    assert hint == "The prompt is too long, its last word is left out: turquoise"
    (hint,) = drawer.hints(Wish("red " * 150 + "heart"))
    assert hint == f"The prompt is too long, its last 32 words are left out: {'red ' * 6}… {'red ' * 5}heart"
    drawer.is_small = True
    (hint,) = drawer.hints(Wish("a turquoise cat, a red circle"))
    assert hint.startswith("The small model does not know: turquoise, cat. It draws circles")
    (hint,) = drawer.hints(Wish("four stars and a red circle"))
    assert hint.startswith("The small model guesses here.")


def test_a_drawing_is_seen_and_can_be_given_up(trained: tuple[Path, list[str]]) -> None:
    drawer = Drawer(str(trained[0]), "torch")
    seen = list(drawer.draw(Wish(PROMPT, steps=3, seed=5, negative="blue", guidance=2.0)))
    pictures = [now.picture for now in seen if isinstance(now, Step) and now.picture is not None]
    assert len(pictures) == 2 and pictures[0].shape == (256, 256, 3) and (pictures[0] != pictures[1]).any()
    assert isinstance(seen[-1], Drawn) and 0 < seen[-1].each < seen[-1].whole
    (*_, again) = drawer.draw(Wish(PROMPT, steps=3, seed=5, negative="blue", guidance=2.0))
    assert (again.picture == seen[-1].picture).all()
    drawing = drawer.draw(Wish(PROMPT, steps=50))
    next(drawing)
    drawing.close()
    assert drawer._turn.acquire(timeout=30)  # the worker has gone
    drawer._turn.release()


# --- the page ------------------------------------------------------------------------------------------------


def use(page: Any, address: str, engine: str) -> tuple[np.ndarray, np.ndarray]:
    """What a user does: the picture, as it was downloaded, and PyTorch's beside it."""
    from playwright.sync_api import expect

    page.goto(address)
    expect(page.get_by_role("heading", name=f"Text to picture on {engine}")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")  # nothing is beside the screen
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("There is nothing to draw: write what the picture is to show.")
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator(".took", has_text="4 steps of")).to_contain_text("in fp32")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".said .hint")).to_have_count(0)
    picture = page.locator(".drawn img").first
    expect(picture).to_be_visible()
    page.wait_for_function("document.querySelector('.drawn img').naturalWidth == 256")
    with page.expect_download() as download:
        page.locator(".drawn").get_by_label("Download").first.click()
    drawn = np.asarray(Image.open(download.value.path()).convert("RGB"))
    page.get_by_role("button", name="Draw the same in PyTorch").click()
    expect(page.locator(".said .hint")).to_contain_text(f"{engine} is")
    page.wait_for_function("document.querySelector('.compared img')?.naturalWidth == 256")
    answer = page.request.get(page.locator(".compared img").first.get_attribute("src"))
    beside = np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))
    page.get_by_label("Prompt", exact=True).fill("a turquoise cat")
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator(".said .hint")).to_contain_text("The small model does not know: turquoise, cat.")
    return drawn, beside


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_user_in_a_browser(screen: tuple[int, int]) -> None:
    pytest.importorskip("openvino")
    drawer = Drawer("", "openvino")
    blocks = pixart_page.page(drawer)
    address = frame.serve(blocks, "127.0.0.1", free_port())
    try:
        with browser(size=screen, patience=120) as (page, wrong):
            drawn, beside = use(page, address, "OpenVINO")
            assert not wrong
    finally:
        blocks.close(verbose=False)
    assert apart(drawn, beside)[0] <= 1
    (*_, want) = drawer.draw(Wish(PROMPT, seed=7, engine="torch"))
    assert (want.picture == beside).all()


def test_the_command_refuses_what_it_cannot_serve(tmp_path: Path) -> None:
    for arguments, words in (
        ([str(tmp_path)], "it has no model_index.json"),
        (["./nothing"], "There is no directory ./nothing"),
        (["--engine", "abacus"], "There is no engine 'abacus'"),
    ):
        result = CliRunner().invoke(commands, ["demo", "pixart", *arguments])
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert words in result.stderr
