# SPDX-License-Identifier: Apache-2.0
"""Text from one language into another, with a model of transformers whose networks run on an engine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch

import paritas.transformers as ported
from paritas.capture.source import quiet
from paritas.errors import InputError, SourceError

Told = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Search:
    """How to look for the best translation; None is what the model's generation_config.json says."""

    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None

    def __post_init__(self) -> None:
        if self.num_beams is not None and self.num_beams < 1:
            raise InputError(f"num_beams is {self.num_beams}; it has to be 1 or more.")

    def completed(self, model: Any) -> Search:
        """With the model's own values in place of None."""
        own = model.generation_config
        penalty = 1.0 if own.length_penalty is None else own.length_penalty
        return Search(
            self.num_beams or own.num_beams or 1,
            penalty if self.length_penalty is None else self.length_penalty,
            bool(own.early_stopping) if self.early_stopping is None else self.early_stopping,
        )

    def arguments(self, model: Any) -> dict[str, Any]:
        """Arguments of `generate`. Without beams, the rest has no meaning, and transformers would warn of it."""
        found = dataclasses.asdict(self.completed(model))
        alone = {"num_beams": 1, "length_penalty": None, "early_stopping": None}
        return {**(found if found["num_beams"] > 1 else alone), "do_sample": False}


class Translator:
    """A model and its tokenizer. `model` may be of transformers itself, or of `paritas.transformers`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        #: Sentences that were longer than the model reads, and were cut.
        self.cut = 0

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        engine: str | None = None,
        *,
        device: str = "",
        ov_config: Mapping[str, Any] | None = None,
    ) -> Translator:
        """source: a hub id, or a directory, as `paritas convert fairseq` writes it.

        device, ov_config: as in `paritas.port`. Raises `SourceError`, and `DeviceMissing` or `InputError` for these.
        """
        import transformers

        name = os.fspath(source)
        local = os.path.isdir(name)
        if local and not os.path.exists(os.path.join(name, "config.json")):
            raise SourceError(
                f"{name} has no config.json. If it is a checkpoint of fairseq's:   paritas convert fairseq {name} OUT"
            )
        try:
            with quiet():
                tokenizer = transformers.AutoTokenizer.from_pretrained(name)
                model = ported.AutoModelForSeq2SeqLM.from_pretrained(
                    name,
                    engine=cast("Any", engine),
                    engine_device=device,
                    ov_config=dict(ov_config or {}),
                    dtype=torch.float32,
                )
        except ImportError as error:
            if "sacremoses" not in str(error):
                raise
            raise SourceError(
                f"The tokenizer of {name} needs sacremoses. Install it:   pip install 'paritas[translate]'"
            ) from error
        except (OSError, ValueError) as error:
            what = "is no translator that can be loaded" if local else "is no directory, and cannot be fetched"
            raise SourceError(f"{name} {what}: {str(error).strip().partition(chr(10))[0]}") from error
        return cls(model, tokenizer)

    @property
    def target_language(self) -> str:
        """The language translated into, "" where the model does not say."""
        languages = list(getattr(self.model.config, "langs", None) or [])
        return str(languages[1]) if len(languages) == 2 else ""

    def translate(
        self,
        texts: Sequence[str],
        *,
        search: Search | None = None,
        batch_size: int = 16,
        told: Told = lambda done, total: None,
    ) -> list[str]:
        """The translation of every text, in their order; of an empty one, an empty one.

        Texts of similar length are translated together, which pads least. told: called with how many are done, and
        of how many.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it has to be 1 or more.")
        arguments = (search or Search()).arguments(self.model)
        tokens = {place: self._tokens(text) for place, text in enumerate(texts) if text.strip()}
        order = sorted(tokens, key=lambda place: len(tokens[place]), reverse=True)  # the largest first: memory
        found = [""] * len(texts)
        told(len(texts) - len(order), len(texts))
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = self.tokenizer.pad({"input_ids": [tokens[place] for place in places]}, return_tensors="pt")
            with torch.no_grad():
                out = self.model.generate(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **arguments
                )
            for place, text in zip(places, self._texts(out), strict=True):
                found[place] = text
            told(len(texts) - len(order) + start + len(places), len(texts))
        return found

    def _tokens(self, text: str) -> list[int]:
        with quiet():  # it warns of what is counted here
            whole = self.tokenizer(text)["input_ids"]
            longest = min(
                self.tokenizer.model_max_length,
                getattr(self.model.config, "max_position_embeddings", None) or len(whole),
            )
            if len(whole) <= longest:
                return whole
            self.cut += 1
            return self.tokenizer(text, truncation=True, max_length=longest)["input_ids"]

    def _texts(self, out: torch.Tensor) -> list[str]:
        return [
            self.tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for row in out.tolist()
        ]


def lines_of(data: bytes, where: str) -> list[str]:
    """Its lines. A line ends with a newline and nothing else: sentences hold other separators of Unicode's."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{where}, line {number}: not text in UTF-8.") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
