# SPDX-License-Identifier: Apache-2.0
"""What a classifier's scores are called: labels from the port's configuration, probabilities as its pipeline has
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from paritas.ports import Port
from paritas.serve.beside import said


@dataclasses.dataclass(frozen=True)
class Answer:
    """How `logits` [batch, classes] are worded. method: "classify" or "regress". scores: "softmax", "sigmoid",
    "none".
    """

    labels: tuple[str, ...]
    method: str
    scores: str

    @property
    def outputs(self) -> tuple[tuple[str, str, str], ...]:
        """Name, dtype and content of what `best` answers."""
        if self.method == "regress":
            return (("value", "float32", "score"),)
        return (("label", "bytes", "label"), ("confidence", "float32", "score"))

    def best(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each row its best class and how sure it is; of a regression, its value."""
        scores = self._scored(outputs["logits"])
        if self.method == "regress":
            return {"value": scores[:, 0]}
        which = scores.argmax(axis=1)
        labels = np.array([self.labels[number] for number in which], dtype=object)
        return {"label": labels, "confidence": scores[np.arange(len(scores)), which]}

    def every(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """For each row all classes, the best one first."""
        scores = self._scored(outputs["logits"])
        order = np.argsort(-scores, axis=1, kind="stable")
        classes = np.array(self.labels, dtype=object)[order]
        return {"classes": classes, "scores": np.take_along_axis(scores, order, axis=1)}

    def _scored(self, logits: np.ndarray) -> np.ndarray:
        logits = logits.astype(np.float32, copy=False)
        if self.scores == "softmax":
            shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
            return shifted / shifted.sum(axis=-1, keepdims=True)
        if self.scores == "sigmoid":
            return np.float32(1) / (np.float32(1) + np.exp(-logits))
        return logits


def answer_for(directory: Path, port: Port) -> Answer | None:
    """How a port's scores are worded; None for what is no classifier of whole inputs."""
    config = said(directory, "config.json")
    model_class = port.manifest.source.model_class.rpartition(".")[2]
    logits = next((spec for spec in port.outputs if spec.name == "logits"), None)
    if logits is None or len(logits.dims) != 2 or not model_class.endswith("Classification"):
        return None
    number = logits.dims[1]
    if not isinstance(number, int):
        return None
    named = config.get("id2label") or {}
    labels = tuple(str(named.get(str(one), f"LABEL_{one}")) for one in range(number))
    kind = config.get("problem_type")
    if kind == "regression":
        return Answer(labels, "regress", "none")
    if kind == "multi_label_classification" or number == 1:
        return Answer(labels, "classify", "sigmoid")
    return Answer(labels, "classify", "softmax")
