# SPDX-License-Identifier: Apache-2.0
"""A tiny translator learns a language of syllables; on an engine it translates as in PyTorch, and BLEU tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from toy_translator import model, sentences, train, translated, write
from typer.testing import CliRunner

from paritas.apps.translate import bleu, fairseq
from paritas.apps.translate.translate import Search, Translator, lines_of
from paritas.cli import app
from paritas.errors import InputError, SourceError

SOURCES = sentences(24, seed=9)
REFERENCES = [translated(line) for line in SOURCES]
SEARCHES = [Search(1), Search(2), Search(3, 0.6, True), Search(4, 1.5, False)]

runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ports are made once for all of these tests, and by the commands too."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("cache")
        patch.setenv("PARITAS_CACHE", str(directory))
        yield directory


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("untrained")
    return fairseq.convert(write(place / "fairseq", model()), place / "fsmt").directory


@pytest.fixture(scope="module")
def directory(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A translator that was trained, saved as fairseq does, and converted."""
    place = tmp_path_factory.mktemp("trained")
    learned = train(model(), hf.AutoTokenizer.from_pretrained(untrained))
    return fairseq.convert(write(place / "fairseq", learned), place / "fsmt").directory


@pytest.fixture(scope="module")
def port(directory: Path) -> Translator:
    return Translator.load(directory, "openvino")


def plain(directory: Path) -> Translator:
    loaded = hf.FSMTForConditionalGeneration.from_pretrained(directory).eval()
    return Translator(loaded, hf.AutoTokenizer.from_pretrained(directory))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("files")
    for name, lines in (("src", SOURCES), ("ref", REFERENCES)):
        (place / name).write_text("".join(f"{line}\n" for line in lines))
    return place / "src", place / "ref"


# --- translation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_the_tokens_are_pytorchs(search: Search, port: Translator, directory: Path) -> None:
    original = plain(directory)
    batch = original.tokenizer(SOURCES[:5], return_tensors="pt", padding=True)
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    want = original.model.generate(**given, **search.arguments(original.model))
    got = port.model.generate(**given, **search.arguments(port.model))
    assert torch.equal(got, want)
    assert port.model.engine == "openvino" and port.model.ports
    assert port.translate(SOURCES, search=search, batch_size=7) == original.translate(SOURCES, search=search)


def test_lines_stay_in_their_places(port: Translator) -> None:
    told: list[tuple[int, int]] = []
    texts = [SOURCES[0], "", SOURCES[1], "   "]
    found = port.translate(texts, batch_size=1, told=lambda done, total: told.append((done, total)))
    assert found == [*port.translate([SOURCES[0]]), "", *port.translate([SOURCES[1]]), ""]
    assert told == [(2, 4), (3, 4), (4, 4)]
    assert port.translate([]) == []


def test_what_is_too_long_is_cut_and_counted(directory: Path) -> None:
    translator = plain(directory)
    translator.translate([" ".join(["ba"] * 100), "ba"])
    assert translator.cut == 1


def test_the_model_says_how_to_search(port: Translator) -> None:
    assert Search(None, 0.5).completed(port.model) == Search(5, 0.5, False)
    assert Search(1, 0.5).arguments(port.model)["length_penalty"] is None
    with pytest.raises(InputError, match="num_beams is 0"):
        Search(0)
    with pytest.raises(InputError, match="batch_size is 0"):
        port.translate(["ba"], batch_size=0)


def test_lines_end_with_newlines_only() -> None:
    assert lines_of("a\u2028b\r\n\nc\x85d\n".encode(), "x") == ["a\u2028b", "", "c\x85d"]
    assert lines_of(b"", "x") == []
    with pytest.raises(InputError, match="x, line 2: not text in UTF-8"):
        lines_of(b"a\n\xff\n", "x")


def test_what_is_no_translator(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="paritas convert fairseq"):
        Translator.load(tmp_path)
    with pytest.raises(SourceError, match="is no directory, and cannot be fetched"):
        Translator.load("nobody/has-this-model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SourceError, match="is no translator that can be loaded"):
        Translator.load(tmp_path)


# --- BLEU ----------------------------------------------------------------------------------------------------


def test_bleu_tells_a_translator_from_none(port: Translator, untrained: Path) -> None:
    search = Search(2)
    trained = bleu.evaluate(port, SOURCES, REFERENCES, search=search)
    assert trained.bleu > 50
    assert trained.sentences == len(SOURCES) and "tok:13a" in trained.signature
    assert f"BLEU {trained.bleu:.2f}   num_beams=2 length_penalty=1.0" in str(trained)
    before = bleu.evaluate(plain(untrained), SOURCES[:8], REFERENCES[:8], search=search)
    assert before.bleu < 20
    assert bleu.bleu(REFERENCES, REFERENCES)[0] == pytest.approx(100)


def test_the_search_is_the_articles_table(port: Translator) -> None:
    searches = bleu.grid([1, 3], [0.6, 1.1], [True, False])
    assert len(searches) == 5
    told: list[tuple[int, int, str]] = []
    scores = bleu.search(port, SOURCES[:6], REFERENCES[:6], searches, told=lambda *what: told.append(what))
    assert [score.bleu for score in scores] == sorted((score.bleu for score in scores), reverse=True)
    lines = bleu.table(scores).splitlines()
    assert lines[:2] == [
        "bleu  | num_beams | length_penalty | early_stopping",
        "----- | --------- | -------------- | --------------",
    ]
    assert len(lines) == 7 and {len(line) for line in lines} == {len(lines[0])}
    assert any(line.endswith("|         1 |              - |              -") for line in lines)
    assert told[-1] == (30, 30, "num_beams=3 length_penalty=1.1 early_stopping=false")


def test_pairs_that_are_none(files: tuple[Path, Path], tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("one\n")
    with pytest.raises(InputError, match=r"src has 24 lines and .*short has 1: they are no pairs"):
        bleu.pairs(files[0], short)
    with pytest.raises(InputError, match=r"nothing cannot be read: No such file"):
        bleu.pairs(files[0], tmp_path / "nothing")
    short.write_text("")
    with pytest.raises(InputError, match="no sentences"):
        bleu.pairs(short, short)


def test_published_test_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sacrebleu

    with pytest.raises(InputError, match=r"no test set 'wmt99'\. Among those it has: .*wmt19"):
        bleu.fetched("wmt99", "en-de")
    with pytest.raises(InputError, match=r"wmt19 has no 'en-xx'\. It has: .*en-de"):
        bleu.fetched("wmt19", "en-xx")

    def unreachable(*_: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr(sacrebleu, "get_source_file", unreachable)
    with pytest.raises(InputError, match=r"wmt19 en-de cannot be fetched: no network\. Give its two files"):
        bleu.fetched("wmt19", "en-de")
    (tmp_path / "one").write_text("eins\nzwei\n")
    monkeypatch.setattr(sacrebleu, "get_source_file", lambda *_: str(tmp_path / "one"))
    monkeypatch.setattr(sacrebleu, "get_reference_files", lambda *_: [str(tmp_path / "one")])
    assert bleu.fetched("wmt19", "en-de") == (["eins", "zwei"], ["eins", "zwei"])


# --- the commands --------------------------------------------------------------------------------------------


def test_translate(directory: Path, port: Translator, tmp_path: Path) -> None:
    want = port.translate(SOURCES[:3], search=Search(2))
    command = ["translate", str(directory), "--num-beams", "2", "-q"]
    run = runner.invoke(app, [*command, *SOURCES[:3]])
    assert (run.exit_code, run.stdout.splitlines()) == (0, want), run.output
    lines = "\n".join(SOURCES[:3]) + "\n"
    run = runner.invoke(app, [*command, "--output", str(tmp_path / "out"), "--batch-size", "2"], input=lines)
    assert run.exit_code == 0 and run.stdout == "" and (tmp_path / "out").read_text().splitlines() == want
    assert runner.invoke(app, command, input="").exit_code == 2
    run = runner.invoke(app, [*command, "--output", str(tmp_path / "no" / "out"), "ba"])
    assert run.exit_code == 2 and "There is no directory" in run.stderr


def test_there_and_back(directory: Path, port: Translator) -> None:
    there = port.translate(SOURCES[:2])
    want = port.translate(there)
    run = runner.invoke(app, ["translate", str(directory), "--back", str(directory), "--json", *SOURCES[:2]])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert told["source"] == SOURCES[:2] and [step["texts"] for step in told["steps"]] == [there, want]
    assert told["steps"][0]["search"] == {"num_beams": 5, "length_penalty": 1.0, "early_stopping": False}
    assert "2 of 2 lines" in run.stderr


def test_eval(directory: Path, files: tuple[Path, Path], port: Translator, tmp_path: Path) -> None:
    data = ["--src", str(files[0]), "--ref", str(files[1]), "--limit", "6"]
    run = runner.invoke(app, ["eval", "bleu", str(directory), *data, "--num-beams", "2", "--json"])
    assert run.exit_code == 0, run.output
    want = bleu.evaluate(port, SOURCES[:6], REFERENCES[:6], search=Search(2)).bleu
    assert json.loads(run.stdout)["bleu"] == pytest.approx(want)
    options = ["--num-beams", "1,2", "--early-stopping", "true,false", "--output", str(tmp_path / "table.md")]
    run = runner.invoke(app, ["eval", "search", str(directory), *data, *options])
    assert run.exit_code == 0 and "18 of 18 sentences" in run.stderr, run.output
    assert (tmp_path / "table.md").read_text().count("|") == 15
    run = runner.invoke(app, ["eval", "search", str(directory), *data, "--num-beams", "2,x"])
    assert run.exit_code == 2 and "--num-beams is '2,x'; it has to be numbers above 0" in run.stderr
    run = runner.invoke(app, ["eval", "bleu", str(directory), "--src", str(files[0])])
    assert run.exit_code == 2 and "Give --src and --ref, or --testset and --pair" in run.stderr
