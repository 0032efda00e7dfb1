# SPDX-License-Identifier: Apache-2.0
"""How good translations are, as sacrebleu measures it; and which beam search makes them best."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paritas.apps.translate.translate import Search, Told, Translator, lines_of
from paritas.errors import InputError


@dataclasses.dataclass(frozen=True)
class Score:
    """The BLEU of a search. signature: sacrebleu's, which says how it was measured. cut: inputs that were too long."""

    bleu: float
    search: Search
    signature: str
    sentences: int
    cut: int
    seconds: float

    def __str__(self) -> str:
        rate = self.sentences / self.seconds if self.seconds else 0.0
        lines = [
            f"BLEU {self.bleu:.2f}   {_words(self.search)}",
            f"{self.sentences} sentences in {self.seconds:.1f} s, {rate:.1f}/s; {self.signature}",
        ]
        if self.cut:
            lines.append(f"{self.cut} of them were longer than the model reads, and were cut")
        return "\n".join(lines)


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str = "") -> tuple[float, str]:
    """BLEU of translations into `language`, 0 to 100, and sacrebleu's signature of how it was measured."""
    sacrebleu = _sacrebleu()
    if len(hypotheses) != len(references):
        raise InputError(f"There are {len(hypotheses)} translations and {len(references)} references.")
    try:
        metric = sacrebleu.BLEU(trg_lang=language)  # which has a tokenizer of its own for Chinese, say
        found = metric.corpus_score(list(hypotheses), [list(references)])
    except (RuntimeError, ImportError) as error:
        raise InputError(f"sacrebleu cannot measure {language}: {str(error).strip()}") from error
    return float(found.score), str(metric.get_signature())


def evaluate(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[str],
    *,
    search: Search | None = None,
    batch_size: int = 16,
    told: Told = lambda done, total: None,
) -> Score:
    """The BLEU of `translator` on pairs of sentences. Raises `InputError` where they are none."""
    _check(sources, references)
    _sacrebleu()  # before minutes of translation
    wanted = (search or Search()).completed(translator.model)
    some = next((sentence for sentence in sources if sentence.strip()), "")
    translator.translate([some], search=wanted)  # which makes the ports, so that their time is not in the rate
    cut, began = translator.cut, time.perf_counter()
    found = translator.translate(sources, search=wanted, batch_size=batch_size, told=told)
    seconds = time.perf_counter() - began
    score, signature = bleu(found, references, translator.target_language)
    return Score(score, wanted, signature, len(sources), translator.cut - cut, seconds)


def grid(
    num_beams: Sequence[int | None], length_penalty: Sequence[float | None], early_stopping: Sequence[bool | None]
) -> list[Search]:
    """Every combination. With one beam the others change nothing, so that it is there once."""
    found: dict[Any, Search] = {}
    for beams, penalty, stopping in itertools.product(num_beams, length_penalty, early_stopping):
        key = (1,) if beams == 1 else (beams, penalty, stopping)
        found.setdefault(key, Search(beams, penalty, stopping))
    return list(found.values())


def search(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[str],
    searches: Sequence[Search],
    *,
    batch_size: int = 16,
    told: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> list[Score]:
    """A score for each of `searches`, the best first. told: sentences done, of how many, and which search."""
    found = []
    for index, one in enumerate(searches):
        before, total = index * len(sources), len(searches) * len(sources)
        words = _words(one.completed(translator.model))

        def tell(done: int, _: int, before: int = before, total: int = total, words: str = words) -> None:
            told(before + done, total, words)

        found.append(evaluate(translator, sources, references, search=one, batch_size=batch_size, told=tell))
    return sorted(found, key=lambda score: -score.bleu)


def table(scores: Sequence[Score]) -> str:
    """The scores as a table of Markdown."""
    lines = [
        "bleu  | num_beams | length_penalty | early_stopping",
        "----- | --------- | -------------- | --------------",
    ]
    for score in scores:
        one = score.search
        beams = (one.num_beams or 1) > 1
        penalty = _number(one.length_penalty) if beams else "-"
        stopping = str(int(bool(one.early_stopping))) if beams else "-"
        lines.append(f"{score.bleu:5.2f} | {one.num_beams:9} | {penalty:>14} | {stopping:>14}")
    return "\n".join(lines)


def _words(one: Search) -> str:
    if one.num_beams == 1:
        return "num_beams=1"
    return (
        f"num_beams={one.num_beams} length_penalty={_number(one.length_penalty)} "
        f"early_stopping={str(one.early_stopping).lower()}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else str(float(value))


# --- pairs of sentences --------------------------------------------------------------------------------------


def pairs(src: Path, ref: Path) -> tuple[list[str], list[str]]:
    """The lines of two files. Raises `InputError` for one that cannot be read, or where one has more lines."""
    found = []
    for path in (src, ref):
        try:
            found.append(lines_of(path.read_bytes(), str(path)))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    if len(found[0]) != len(found[1]):
        raise InputError(f"{src} has {len(found[0])} lines and {ref} has {len(found[1])}: they are no pairs.")
    _check(*found)
    return found[0], found[1]


def fetched(name: str, pair: str) -> tuple[list[str], list[str]]:
    """A test set of sacrebleu's, as wmt19 of en-de. It is fetched once. Raises `InputError`."""
    sacrebleu = _sacrebleu()
    if name not in sacrebleu.DATASETS:
        known = ", ".join(sorted(n for n in sacrebleu.DATASETS if n.startswith("wmt") and "/" not in n))
        raise InputError(f"sacrebleu has no test set {name!r}. Among those it has: {known}.")
    known = sacrebleu.get_langpairs_for_testset(name)
    if pair not in known:
        raise InputError(f"{name} has no {pair!r}. It has: {', '.join(sorted(known))}.")
    try:
        files = [Path(sacrebleu.get_source_file(name, pair)), Path(sacrebleu.get_reference_files(name, pair)[0])]
    except (OSError, EOFError, SystemExit) as error:  # it ends the process where a checksum is wrong
        raise InputError(
            f"The test set {name} {pair} cannot be fetched: {error}. Give its two files with --src and --ref."
        ) from error
    return pairs(*files)


def _check(sources: Sequence[str], references: Sequence[str]) -> None:
    if len(sources) != len(references):
        raise InputError(f"There are {len(sources)} sentences and {len(references)} references.")
    if not sources:
        raise InputError("There are no sentences to translate.")


def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise InputError("BLEU is measured by sacrebleu. Install it:   pip install 'paritas[translate]'") from error
    return sacrebleu
