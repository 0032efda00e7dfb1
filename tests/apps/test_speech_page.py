# SPDX-License-Identifier: Apache-2.0
"""The page of speech: its sound, its models and its errors without a browser, and all of it in one."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import re
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from typer.testing import CliRunner

from browsers import browser, free_port
from paritas.apps import frame
from paritas.apps.speech import models as app
from paritas.apps.speech import page as speech_page
from paritas.apps.speech.models import MADE_UP, Checkpoints, Speech, recording, speaker, speakers
from paritas.cli import app as commands
from paritas.errors import InputError, SourceError
from paritas.transformers.sound import resampled
from tiny_speech import save_all

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("sentencepiece")

RATE = 16_000
TEXT, WORD = "make the days count", "days"  # a second of speech takes a model of this size 500 steps
CLASSES = ("SpeechT5ForSpeechToSpeech", "SpeechT5ForTextToSpeech", "SpeechT5HifiGan")

runner = CliRunner()


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    found = save_all(tmp_path_factory.mktemp("checkpoints"))
    return Checkpoints(**{name: str(path) for name, path in found.items()})


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("voices")
    for seed, name in enumerate(("Anna", "Ben")):
        np.save(place / f"{name}.npy", np.random.default_rng(seed).standard_normal((1, 16)))
    return {name: place / f"{name}.npy" for name in ("Anna", "Ben")}


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stereo of 44.1 kHz and 16 bits, as a microphone records."""
    path = tmp_path_factory.mktemp("wav") / "said.wav"
    noise = 0.1 * np.random.default_rng(0).standard_normal(6615).astype(np.float32)
    soundfile.write(path, np.stack([tone(0.15, 44_100), noise], axis=1), 44_100, subtype="PCM_16")
    return path


@pytest.fixture
def originals(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's models in place of the ports, which take half a minute each to be made."""

    def without_engine(build: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, engine, engine_device, ov_config, **kwargs: build(*args, **kwargs)

    plain = types.SimpleNamespace(pipeline=without_engine(hf.pipeline), SpeechT5Processor=hf.SpeechT5Processor)
    for name in CLASSES:
        loaded = types.SimpleNamespace(from_pretrained=without_engine(getattr(hf, name).from_pretrained))
        setattr(plain, name, loaded)
    monkeypatch.setattr(app, "ported", plain)


# --- sound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
def test_any_rate_becomes_the_models(rate: int) -> None:
    got, want = resampled(tone(0.5, rate), rate, RATE), tone(0.5, RATE)
    assert got.dtype == np.float32 and abs(len(got) - len(want)) <= 1
    middle = slice(1000, -1000)  # a filter rings at the ends
    np.testing.assert_allclose(got[: len(want)][middle], want[: len(got)][middle], atol=2e-3)
    above = resampled(tone(0.5, 48_000, hertz=60_000.0), 48_000, RATE)  # no tone of the new rate's
    assert np.abs(above[middle]).max() < 1e-2


def test_integers_and_channels_become_mono_floats() -> None:
    left = np.array([0, 16384, -32768], dtype=np.int16)
    np.testing.assert_array_equal(resampled(left, RATE, RATE), np.array([0, 0.5, -1], dtype=np.float32))
    both = np.stack([left, np.zeros_like(left)], axis=1)
    np.testing.assert_array_equal(resampled(both, RATE, RATE), np.array([0, 0.25, -0.5], dtype=np.float32))
    assert speech_page.pcm16(np.array([0, 1, -1, 3])).tolist() == [0, 32767, -32767, 32767]


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (tone(0.01, RATE), RATE, "The recording has 0.01 s; at least 0.1 s are needed"),
        (tone(3, RATE), RATE, "The recording has 3.0 s; this model takes at most 2.0 s at once"),
        (np.zeros(8000, np.float32), RATE, "silent throughout. Is the microphone on"),
        (np.full(8000, np.nan, np.float32), RATE, "NaN or infinity"),
        (tone(20, 500), 500, "a sampling rate of 500 Hz; 1000 to 768000 can be used"),
    ],
)
def test_what_cannot_be_heard(samples: np.ndarray, rate: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(InputError, match=words):
        recording(path, RATE, longest=50.0 if rate == 500 else 2.0)


def test_what_is_no_sound(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound")
    for name in ("text.wav", "nothing.wav"):
        with pytest.raises(InputError, match=f"{name} cannot be read as sound: WAV, FLAC, OGG and MP3 can"):
            recording(tmp_path / name, RATE)


# --- voices --------------------------------------------------------------------------------------------------


def test_voices_have_the_names_they_are_given(voices: dict[str, Path]) -> None:
    found = speakers([f"Anne={voices['Anna']}", str(voices["Ben"])])
    assert list(found) == ["Anne", "Ben"]
    assert found["Ben"].shape == (16,) and found["Ben"].dtype == np.float32
    torch.testing.assert_close(speaker(voices["Ben"], 16), torch.from_numpy(found["Ben"])[None])
    assert torch.equal(speaker(None, 16), speaker(None, 16))
    with pytest.raises(InputError, match="has 16 numbers; this model takes x-vectors of 512"):
        speaker(voices["Ben"], 512)
    with pytest.raises(InputError, match="that name is given twice"):
        speakers([f"Anne={voices['Anna']}", f"Anne={voices['Ben']}"])


def test_what_is_no_voice(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.ones((2, 16)))
    np.save(tmp_path / "zero.npy", np.zeros(16))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=np.ones(16))
    (tmp_path / "empty.npy").touch()
    for name, words in (
        ("two.npy", r"one row of numbers is needed, not \(2, 16\)"), ("zero.npy", "nothing but zeros"),
        ("objects.npy", "is no .npy file"), ("many.npz", "one row of numbers is needed"),
        ("empty.npy", "is no .npy file"), ("nothing.npy", "There is no file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            speakers([str(tmp_path / name)])


# --- models --------------------------------------------------------------------------------------------------


def wanted(checkpoints: Checkpoints, wav: Path, voice: torch.Tensor, seed: int) -> dict[str, Any]:
    """What the originals say, called as their documentation does."""
    sound = recording(wav, RATE)
    vocoder = hf.SpeechT5HifiGan.from_pretrained(checkpoints.vocoder)
    found: dict[str, Any] = {}
    with torch.no_grad():
        processor = hf.SpeechT5Processor.from_pretrained(checkpoints.asr)
        model: Any = hf.SpeechT5ForSpeechToText.from_pretrained(checkpoints.asr)
        inputs = processor(audio=sound, sampling_rate=RATE, return_tensors="pt")
        ids = model.generate(**inputs, max_length=60)
        found["hear"] = processor.batch_decode(ids, skip_special_tokens=True)[0]
        model = hf.SpeechT5ForSpeechToSpeech.from_pretrained(checkpoints.vc)
        torch.manual_seed(seed)
        found["convert"] = model.generate_speech(inputs["input_values"], voice, vocoder=vocoder).numpy()
        model = hf.SpeechT5ForTextToSpeech.from_pretrained(checkpoints.tts)
        ids = processor(text=WORD, return_tensors="pt")["input_ids"]
        torch.manual_seed(seed)
        found["say"] = model.generate_speech(ids, voice, vocoder=vocoder).numpy()
    return found


def compare(speech: Speech, checkpoints: Checkpoints, wav: Path, seed: int, compared: int | None) -> None:
    """compared: how many samples, all of them for None."""
    name = speech.voices[-1]
    want = wanted(checkpoints, wav, torch.from_numpy(speech._vectors[name])[None], seed)
    assert speech.hear(str(wav), seed) == want["hear"] != ""
    rate, got = speech.convert(str(wav), name, seed)
    assert (rate, got.shape) == (RATE, want["convert"].shape)
    np.testing.assert_allclose(got[:compared], want["convert"][:compared], atol=1e-4)
    rate, got, unknown = speech.say(f" {WORD}\n", name, seed)
    assert (rate, unknown, got.shape) == (RATE, [], want["say"].shape)
    np.testing.assert_allclose(got[:compared], want["say"][:compared], atol=1e-4)
    other = speech.say(WORD, name, seed + 1)[1]
    assert other.shape != got.shape or not np.allclose(other, got, atol=1e-2)


def test_the_three_are_what_the_documentation_of_the_originals_says(
    originals: None, checkpoints: Checkpoints, voices: dict[str, Path], wav: Path
) -> None:
    named = speakers([f"{name}={path}" for name, path in voices.items()])
    compare(Speech(checkpoints, named, "torch"), checkpoints, wav, seed=3, compared=None)


@pytest.mark.slow
def test_the_three_on_an_engine(checkpoints: Checkpoints, voices: dict[str, Path], wav: Path) -> None:
    pytest.importorskip("openvino")
    named = speakers([f"{name}={path}" for name, path in voices.items()])
    # Every step hears the last one, and random weights multiply what is between two runs: with the input changed by
    # its millionth part, the original itself is off by 1e-5 after these 16 steps, by 1e-3 after 40, by 1 after 120.
    compare(Speech(checkpoints, named, "openvino"), checkpoints, wav, seed=3, compared=512)


@pytest.mark.slow
def test_mindspore_speaks_in_a_thread_as_the_page_has_it(checkpoints: Checkpoints) -> None:
    pytest.importorskip("mindspore")
    vector = speaker(None, 16)
    speech = Speech(checkpoints, {"Anna": vector[0].numpy()}, "mindspore")
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        got = thread.submit(speech.say, "a", "Anna", 3).result()[1]
    vocoder = hf.SpeechT5HifiGan.from_pretrained(checkpoints.vocoder)
    model: Any = hf.SpeechT5ForTextToSpeech.from_pretrained(checkpoints.tts)
    ids = hf.SpeechT5Processor.from_pretrained(checkpoints.tts)(text="a", return_tensors="pt")["input_ids"]
    torch.manual_seed(3)
    with torch.no_grad():
        want = model.generate_speech(ids, vector, vocoder=vocoder).numpy()
    assert got.shape == want.shape
    np.testing.assert_allclose(got[:512], want[:512], atol=1e-4)


def test_models_are_loaded_once_and_when_they_are_needed(originals: None, checkpoints: Checkpoints, wav: Path) -> None:
    speech, told = Speech(checkpoints), []
    assert speech.voices == [MADE_UP]
    for _ in range(2):
        speech.say(WORD, MADE_UP, told=told.append)
    speech.convert(str(wav), MADE_UP, told=told.append)
    assert told == [
        f"Loading {checkpoints.vocoder}", f"Loading {checkpoints.tts}", "Speaking", "Speaking",
        f"Loading {checkpoints.vc}", "Speaking",
    ]  # fmt: skip


def test_what_a_model_cannot_take(originals: None, checkpoints: Checkpoints, tmp_path: Path) -> None:
    speech = Speech(checkpoints, {"Anna": np.ones(16, np.float32), "long": np.ones(512, np.float32)})
    soundfile.write(tmp_path / "long.wav", tone(3, RATE), RATE)
    for call, words in (
        (lambda: speech.hear(None), "There is no recording: record one"),
        (lambda: speech.convert("", "Anna"), "There is no recording"),
        (lambda: speech.convert(str(tmp_path / "long.wav"), "Anna"), "has 3.0 s; this model takes at most 2.0 s"),
        (lambda: speech.say(" \n", "Anna"), "There is no text to say"),
        (lambda: speech.say(None, "Anna"), "There is no text to say"),
        (lambda: speech.say("day " * 40, "Anna"), r"The text has \d+ tokens; this model reads at most 60 at once"),
        (lambda: speech.say("day", "Bob"), "There is no voice 'Bob'. There are: Anna, long"),
        (lambda: speech.say("day", "long"), "The speaker long has 512 numbers"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            call()
    assert speech.say("the 2 days: 3", "Anna")[2] == ["2", "3", ":"]
    # 20 frames for each of 52 tokens are 520 steps; the decoder has 400 positions, and a step makes two frames of 16.
    assert len(speech.say("day " * 12 + "days", "Anna")[1]) == 400 * 2 * 16


def test_one_model_is_not_taken_for_another(checkpoints: Checkpoints, checkpoint: Path) -> None:
    wrong = Speech(Checkpoints(tts=checkpoints.vc, vocoder=checkpoints.vocoder))
    with pytest.raises(SourceError, match="is a SpeechT5ForSpeechToSpeech; a SpeechT5ForTextToSpeech is needed"):
        wrong.say(TEXT, MADE_UP)
    with pytest.raises(SourceError, match="tiny-bert cannot be loaded: "):
        app.Recogniser.load(str(checkpoint))
    with pytest.raises(SourceError, match="is a SpeechT5ForTextToSpeech; a SpeechT5ForSpeechToText is needed"):
        app.Recogniser.load(checkpoints.tts)
    with pytest.raises(SourceError, match="nobody/has-this cannot be loaded: "):
        app.Recogniser.load("nobody/has-this")


def test_whisper_hears_beyond_its_window(originals: None) -> None:
    seen: dict[str, Any] = {}

    class Pipe:
        feature_extractor = types.SimpleNamespace(sampling_rate=RATE)
        model = types.SimpleNamespace(config=types.SimpleNamespace(model_type="whisper"))
        type = "seq2seq_whisper"

        def __call__(self, sound: np.ndarray, **told: Any) -> dict[str, str]:
            seen.update(told)
            return {"text": f" {len(sound)} "}

    recogniser = app.Recogniser(Pipe())
    assert recogniser.text(tone(1, RATE)) == "16000"
    assert not seen
    recogniser.text(tone(31, RATE))
    assert seen == {"return_timestamps": True}


# --- the command ---------------------------------------------------------------------------------------------


def test_bad_input_is_one_message(checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        (["--speaker", f"Anna={tmp_path}/anna.npy"], "There is no file"),
        (["--tts", f"{tmp_path}/nothing"], "--tts: there is no directory"),
        (["--vocoder", str(tmp_path)], "has no config.json"),
        (["--engine", "abacus"], "There is no engine 'abacus'"),
    ):
        result = runner.invoke(commands, ["speech", *arguments])
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert result.stderr.startswith("error: ") and words in result.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = runner.invoke(commands, ["speech", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "choose another --port" in result.stderr
    monkeypatch.setitem(sys.modules, "gradio", None)  # what an import of it then raises is ImportError
    result = runner.invoke(commands, ["speech"])
    assert result.exit_code == 2
    assert "pip install 'paritas[page]'" in result.stderr


#: In a page: the seconds of all sound that was played to its end, wherever in the page its player is.
PLAYED = """
window.played = [];
const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () {
  this.addEventListener("ended", () => played.push(this.duration), {once: true});
  return play.call(this);
};
"""

#: `paritas ARGS`, which reports every address outside this machine that is looked up or connected to.
WATCHED = """
import sys
def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    if host not in ("127.0.0.1", "localhost", "::1", None, b"127.0.0.1"):
        print("OUTSIDE", host, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from paritas.cli import main
main()
"""


@contextlib.contextmanager
def served(directory: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen[str], Path]]:
    """`paritas speech` in a process of its own: its address, the process, and the file with what it prints."""
    port = free_port()
    log = directory / "log"
    command = [sys.executable, "-c", WATCHED, "speech", "--port", str(port), *map(str, arguments)]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, text=True) as process:
        try:
            address = f"http://127.0.0.1:{port}/"
            until = time.monotonic() + 120
            while address not in log.read_text():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield address, process, log
        finally:
            process.kill()


def test_it_serves_until_ctrl_c_and_asks_nobody_outside(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with served(tmp_path, "--engine", "openvino") as (address, process, log):
        with urllib.request.urlopen(address, timeout=60) as answer:
            text = answer.read().decode()
        assert "Paritas: speech" in text
        config = json.loads(urllib.request.urlopen(f"{address}config", timeout=60).read())
        assert config["enable_queue"] and not config["analytics_enabled"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()
    said = log.read_text()
    assert "Speech on openvino: http://127.0.0.1:" in said
    assert "OUTSIDE" not in said and "Traceback" not in said


# --- in a browser --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(microphone: Path, patience: float = 60) -> Iterator[tuple[Any, list[str]]]:
    """A page of Chromium's whose microphone hears a file, and what went wrong in it."""
    arguments = (
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={microphone}",
    )
    with browser(arguments=arguments, script=PLAYED, permissions=["microphone"], patience=patience) as found:
        yield found


def spoken(page: Any, tab: Any) -> float:
    """Plays the speech that a tab shows, to its end, and downloads it: its seconds."""
    from playwright.sync_api import expect

    # The player knows how long the sound is once it can play it; before, it swallows a click.
    expect(tab.locator(".speech").get_by_label(re.compile(r"Skip forward by [\d.]*[1-9]"))).to_be_visible()
    page.evaluate("played.length = 0")
    tab.locator(".speech").get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("played.length == 1")
    (played,) = page.evaluate("played")
    with page.expect_download() as download:
        tab.locator(".speech").get_by_role("button", name="Download", exact=True).click()
    samples, rate = soundfile.read(download.value.path())
    assert (rate, samples.ndim) == (RATE, 1)
    assert np.abs(samples).max() > 0.01
    assert played == pytest.approx(len(samples) / rate, abs=0.01)
    return played


def use(page: Any, address: str, wav: Path, broken: Path) -> tuple[str, float, float]:
    """What a user does, in all tabs: the text that was heard, and the seconds of what was converted and said."""
    from playwright.sync_api import expect

    page.goto(address)
    tab = page.locator("[role=tabpanel]:visible")

    def press(name: str) -> None:
        tab.get_by_role("button", name=name, exact=True).first.click()  # an error has a button "Clear" too

    def upload(path: Path) -> None:
        press("Upload file")
        tab.locator("input[type=file]").set_input_files(path)
        expect(tab.get_by_role("button", name="Clear", exact=True).first).to_be_visible()  # it was sent

    text = tab.get_by_role("textbox")
    press("Transcribe")
    expect(page.get_by_text("There is no recording: record one with the microphone")).to_be_visible()
    upload(wav)
    press("Transcribe")
    expect(text).not_to_have_value("")
    heard = text.input_value()

    page.get_by_role("tab", name="Convert").click()
    upload(broken)
    press("Convert")
    expect(page.get_by_text("cannot be read as sound: WAV, FLAC, OGG and MP3 can")).to_be_visible()
    press("Clear")
    upload(wav)
    tab.get_by_label("Voice", exact=True).click()
    page.get_by_role("option", name="Ben").click()
    press("Convert")
    converted = spoken(page, tab)

    page.get_by_role("tab", name="Speak").click()
    press("Speak")
    expect(page.get_by_text("There is no text to say.")).to_be_visible()
    tab.get_by_label("Text to say").fill(f"{TEXT} 3 <i>")
    press("Speak")
    expect(page.get_by_text("Left out, the model does not know them: 3 < >")).to_be_visible()
    said = spoken(page, tab)
    expect(page.get_by_label("Share")).to_have_count(0)
    return heard, converted, said


def record(page: Any, address: str, seconds: float) -> None:
    """Records with the microphone, and has that transcribed."""
    from playwright.sync_api import expect

    page.goto(address)
    tab = page.locator("[role=tabpanel]:visible")
    tab.get_by_role("button", name="Record", exact=True).click()
    expect(tab.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    page.wait_for_timeout(1000 * seconds)
    tab.get_by_role("button", name="Stop", exact=True).click()
    expect(tab.get_by_role("button", name="Clear", exact=True)).to_be_visible()
    tab.get_by_role("button", name="Transcribe", exact=True).click()
    expect(tab.get_by_role("textbox")).not_to_have_value("")


def test_a_user_in_a_browser(
    originals: None, checkpoints: Checkpoints, wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speech = Speech(checkpoints, {"Anna": np.ones(16, np.float32), "Ben": np.arange(16, dtype=np.float32)})
    recorded: list[np.ndarray] = []

    def keep(path: Any, *more: Any) -> np.ndarray:
        recorded.append(recording(path, *more))
        return recorded[-1]

    monkeypatch.setattr(app, "recording", keep)
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF, and no more")
    microphone = tmp_path / "microphone.wav"
    soundfile.write(microphone, tone(5, 48_000), 48_000)
    blocks = speech_page.page(speech)
    address = frame.serve(blocks, "127.0.0.1", free_port())
    try:
        with listening(microphone) as (page, wrong):
            heard, converted, said = use(page, address, wav, broken)
            record(page, address, seconds=1.0)
            assert not wrong
    finally:
        blocks.close(verbose=False)
    assert heard == speech.hear(str(wav))
    for seconds, (rate, samples, *_) in (
        (converted, speech.convert(str(wav), "Ben")), (said, speech.say(f"{TEXT} 3 <i>", "Anna")),
    ):  # fmt: skip
        assert seconds == pytest.approx(len(samples) / rate, abs=0.01)
    microphones = recorded[2]  # after a file to transcribe, and one to convert
    assert len(microphones) > 0.3 * RATE
    spectrum = np.abs(np.fft.rfft(microphones * np.hanning(len(microphones))))
    assert spectrum.argmax() * RATE / len(microphones) == pytest.approx(440, abs=5)


@pytest.mark.slow
def test_the_command_in_a_browser(checkpoints: Checkpoints, voices: dict[str, Path], wav: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF, and no more")
    given = [f"--{name}={path}" for name, path in dataclasses.asdict(checkpoints).items()]
    given += [f"--speaker={name}={path}" for name, path in voices.items()]
    with (
        served(tmp_path, *given, "--engine=openvino") as (address, _, log),
        listening(wav, patience=400) as (page, wrong),
    ):
        heard, converted, said = use(page, address, wav, broken)
        assert not wrong
        printed = log.read_text()
    assert "OUTSIDE" not in printed and "Traceback" not in printed
    assert f"Loading {checkpoints.asr}" in printed
    named = speakers([f"{name}={path}" for name, path in voices.items()])
    vector = torch.from_numpy(named["Ben"])[None]
    want = wanted(checkpoints, wav, vector, 0)
    assert heard == want["hear"]
    assert converted == pytest.approx(len(want["convert"]) / RATE, abs=0.01)
    assert said > 0.3
