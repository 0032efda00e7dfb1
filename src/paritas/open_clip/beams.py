# SPDX-License-Identifier: Apache-2.0
"""What CoCa's `generate` takes from transformers, where the installed one no longer has it.

open_clip imports its samplers and `BeamSearchScorer` in one go, so that with a transformers of 5, which has no scorer
of beams, CoCa refuses to write at all. The samplers are there still; the scorer is that of transformers 4, as far as
open_clip calls it: compared with it token by token, on 60 searches.
"""

from __future__ import annotations

import logging
from typing import Any

import open_clip.coca_model as coca
import torch
import transformers

_logger = logging.getLogger("paritas.open_clip")

_NAMES = (
    "LogitsProcessorList", "TopPLogitsWarper", "TopKLogitsWarper", "RepetitionPenaltyLogitsProcessor",
    "MinLengthLogitsProcessor", "MaxLengthCriteria", "StopStringCriteria", "EosTokenCriteria", "StoppingCriteriaList",
)  # fmt: skip


def supply() -> bool:
    """Give open_clip what it did not find; whether anything was missing."""
    if coca._has_transformers or not all(hasattr(transformers, name) for name in _NAMES):
        return False
    space: Any = vars(coca)
    space.update({name: getattr(transformers, name) for name in _NAMES}, BeamSearchScorer=BeamSearchScorer)
    coca.GENERATION_TYPES.update(top_k=transformers.TopKLogitsWarper, top_p=transformers.TopPLogitsWarper)
    coca._has_transformers = True
    _logger.info("CoCa writes with a scorer of beams that transformers %s no longer has", transformers.__version__)
    return True


class _Hypotheses:
    """The best texts that have ended, of one group of beams."""

    def __init__(self, most: int) -> None:
        self.most, self.beams = most, list[tuple[float, torch.Tensor]]()
        self.worst = 1e9

    def add(self, text: torch.Tensor, log_probability: float, length: int) -> None:
        score = log_probability / length
        if len(self.beams) < self.most or score > self.worst:
            self.beams.append((score, text))
            if len(self.beams) > self.most:
                ordered = sorted((one, place) for place, (one, _) in enumerate(self.beams))
                del self.beams[ordered[0][1]]
                self.worst = ordered[1][0]
            else:
                self.worst = min(score, self.worst)

    def is_done(self, best: float, length: int) -> bool:
        """Whether no open beam can become better than the worst of these."""
        return len(self.beams) >= self.most and self.worst >= best / length


class BeamSearchScorer:
    """Which beams go on and which texts have ended, in groups of beams."""

    def __init__(self, batch_size: int, num_beams: int, device: Any, num_beam_groups: int = 1) -> None:
        self.num_beams, self.num_beam_groups = num_beams, num_beam_groups
        self.group_size = num_beams // num_beam_groups
        if num_beams < 2 or num_beams % num_beam_groups:
            raise ValueError(f"num_beams={num_beams} has to be 2 or more, and a multiple of {num_beam_groups} groups.")
        self._beam_hyps = [_Hypotheses(self.group_size) for _ in range(batch_size * num_beam_groups)]
        self._done = torch.zeros(batch_size * num_beam_groups, dtype=torch.bool, device=device)

    @property
    def is_done(self) -> bool:
        return bool(self._done.all())

    def process(
        self,
        input_ids: torch.Tensor,
        next_scores: torch.Tensor,
        next_tokens: torch.Tensor,
        next_indices: torch.Tensor,
        pad_token_id: Any = None,
        eos_token_id: Any = None,
        beam_indices: Any = None,
        group_index: int = 0,
    ) -> dict[str, torch.Tensor]:
        """Of the candidates of one group, best first, those that go on: scores, tokens and beams, [texts * beams]."""
        ends, length = _listed(eos_token_id), input_ids.shape[-1] + 1
        scores, tokens, indices = (
            torch.zeros(len(one), self.group_size, dtype=one.dtype, device=one.device)
            for one in (next_scores, next_tokens, next_indices)
        )
        for text in range(len(next_scores)):
            place = text * self.num_beam_groups + group_index
            if self._done[place]:
                tokens[text] = _listed(pad_token_id)[0]
                continue
            going = 0
            for rank, token in enumerate(next_tokens[text].tolist()):
                beam = text * self.group_size + int(next_indices[text, rank])
                if token in ends:
                    if rank < self.group_size:
                        self._beam_hyps[place].add(input_ids[beam].clone(), float(next_scores[text, rank]), length)
                    continue
                scores[text, going], tokens[text, going] = next_scores[text, rank], token
                indices[text, going] = beam
                going += 1
                if going == self.group_size:
                    break
            best = float(next_scores[text].max())
            self._done[place] |= self._beam_hyps[place].is_done(best, length)
        return {
            "next_beam_scores": scores.view(-1),
            "next_beam_tokens": tokens.view(-1),
            "next_beam_indices": indices.view(-1),
        }

    def finalize(
        self,
        input_ids: torch.Tensor,
        final_beam_scores: torch.Tensor,
        final_beam_tokens: torch.Tensor,
        final_beam_indices: torch.Tensor,
        max_length: int,
        pad_token_id: Any = None,
        eos_token_id: Any = None,
        beam_indices: Any = None,
    ) -> dict[str, torch.Tensor]:
        """The best text of each, padded: {"sequences": [texts, length]}."""
        for place, found in enumerate(self._beam_hyps):
            if not self._done[place]:
                for beam in range(place * self.group_size, (place + 1) * self.group_size):
                    found.add(input_ids[beam], float(final_beam_scores[beam]), input_ids.shape[-1])
        best = []
        for first in range(0, len(self._beam_hyps), self.num_beam_groups):
            beams = [one for found in self._beam_hyps[first : first + self.num_beam_groups] for one in found.beams]
            best.append(sorted(beams, key=lambda one: one[0])[-1][1])
        longest = max(map(len, best)) + 1
        length = longest if max_length is None else min(longest, max_length)
        sequences = input_ids.new_full((len(best), length), _listed(pad_token_id)[0])
        for row, text in zip(sequences, best, strict=True):
            row[: len(text)] = text
            if len(text) < length:
                row[len(text)] = _listed(eos_token_id)[0]
        return {"sequences": sequences}


def _listed(tokens: Any) -> list[int]:
    if isinstance(tokens, torch.Tensor):
        return [int(one) for one in tokens.reshape(-1)]
    return [int(one) for one in tokens] if isinstance(tokens, (list, tuple)) else [int(tokens or 0)]
