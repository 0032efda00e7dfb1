# SPDX-License-Identifier: Apache-2.0
"""The small model that draws: its captions and pictures, its training in a few seconds, and the page, in a browser."""

from __future__ import annotations

import io
import re
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
from paritas.apps.pixart import networks, scenes, train
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


def test_captions_say_which_is_where() -> None:
    rng = np.random.default_rng(0)
    found = {scenes.caption(Scene("beside", RED, BLUE), rng) for _ in range(200)}
    assert PROMPT in found and "a blue square to the right of a red circle" in found
    assert not any(re.match("a blue square (to the )?left", text) for text in found)
    assert scenes.caption(Scene("two", RED), rng).startswith("two red circles")
    vague = {scenes.caption(Scene("middle", RED), rng, vague=True) for _ in range(50)}
    assert {"a circle", "a red shape"} <= vague and "a red circle" not in vague
    known = networks.tokenizer()
    for _ in range(200):  # a word is a token: the training of the text encoder counts on it
        text = scenes.caption(scenes.draw(rng), rng)
        assert len(known(text)["input_ids"]) == len(text.split()) + 1 <= 24


def test_what_is_held_out_is_not_trained_on() -> None:
    rng = np.random.default_rng(0)
    drawn = [scenes.draw(rng) for _ in range(300)]
    assert not any(scene.held_out for scene in drawn)
    assert all(scenes.draw(rng, held_out=True).held_out for _ in range(20))
    assert {scene.layout for scene in drawn} == set(scenes.LAYOUTS)
    mixer = train.Mixer(torch.randn(300, 4, 32, 32), drawn)
    mixed = [mixer.draw(rng)[0] for _ in range(300)]
    assert not any(scene.held_out or scene.first == scene.second for scene in mixed)
    assert set(mixed) - set(drawn)


def test_latents_are_whitened_and_decode_to_the_same() -> None:
    torch.manual_seed(0)
    vae = networks.autoencoder().eval()
    pictures = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        want = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        train.whiten(vae, pictures)
        latents = vae.encode(pictures).latent_dist.mean
        torch.testing.assert_close(vae.decode(latents).sample, want, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)


# --- training ------------------------------------------------------------------------------------------------


def test_a_short_training_writes_a_pipeline(trained: tuple[Path, list[str]]) -> None:
    directory, said = trained
    text = "\n".join(said)
    for stage in ("text encoder", "autoencoder", "latents", "transformer", "judge"):
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


# --- drawing -------------------------------------------------------------------------------------------------


def test_what_cannot_be_drawn(trained: tuple[Path, list[str]], tmp_path: Path) -> None:
    drawer = Drawer(str(trained[0]), "torch")
    for change, words in (
        ({"prompt": " "}, "There is nothing to draw"),
        ({"steps": 0}, "The steps have to be from 1 to 50, not 0"),
        ({"steps": 51}, "The steps have to be from 1 to 50, not 51"),
        ({"seed": -1}, "The seed has to be from 0 to"),
        ({"precision": "int8"}, "PyTorch has fp32, bf16 here, not int8"),
        ({"width": 250}, "The width has to be a multiple of 64 from 64 to 512, not 250: 256 would do"),
        ({"height": 4096}, "The height has to be a multiple of 64 from 64 to 512, not 4096: 512 would do"),
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
    assert hint == "Of the prompt the last words are left out, it is too long: blue heart"
    drawer.is_small = True
    (hint,) = drawer.hints(Wish("a turquoise cat, a red circle"))
    assert hint.startswith("The small model does not know: turquoise, cat.")


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
    return drawn, np.asarray(Image.open(io.BytesIO(answer.body())).convert("RGB"))


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_user_in_a_browser(trained: tuple[Path, list[str]], screen: tuple[int, int]) -> None:
    pytest.importorskip("openvino")
    drawer = Drawer(str(trained[0]), "openvino")
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
