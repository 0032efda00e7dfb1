# SPDX-License-Identifier: Apache-2.0
"""What an environment shows and takes, as arrays: spaces of gymnasium, which are saved beside a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from paritas.errors import InputError
from paritas.rl.distributions import Distribution, distribution_of


@dataclasses.dataclass(frozen=True)
class Spaces:
    """Spaces of an environment.

    Attributes:
        shape: of one observation as networks see it; dtype: uint8 for pictures, else float32.
        places: of a Discrete observation, how many there are: networks see which one it is, as a 1 among zeros.
        first_place: the number of the first of them.
        action: "Discrete", "MultiDiscrete" or "Box".
        counts: how many actions to choose from, of each choice.
        first: the number of the first action of each choice.
        action_shape: of a Box; low and high: its bounds, flat.
    """

    shape: tuple[int, ...]
    dtype: str
    action: str
    places: int = 0
    first_place: int = 0
    counts: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    action_shape: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @classmethod
    def of(cls, observation: Any, action: Any) -> Spaces:
        """Those of an environment. Raises `InputError` for kinds that no policy here reads or answers with."""
        distribution_of(action)
        kind = type(action).__name__
        taken: dict[str, Any] = {"action": kind}
        if kind == "Discrete":
            taken |= {"counts": (int(action.n),), "first": (int(action.start),)}
        elif kind == "MultiDiscrete":
            taken |= {"counts": tuple(map(int, action.nvec)), "first": tuple(map(int, action.start))}
        else:
            taken |= {
                "action_shape": tuple(action.shape),
                "low": tuple(map(float, action.low.ravel())),
                "high": tuple(map(float, action.high.ravel())),
            }
        seen = type(observation).__name__
        if seen == "Discrete":
            count = int(observation.n)
            shown: dict[str, Any] = {
                "shape": (count,),
                "dtype": "float32",
                "places": count,
                "first_place": int(observation.start),
            }
            return cls(**shown, **taken)
        if seen == "Box":
            picture = observation.dtype == np.uint8 and len(observation.shape) == 3
            return cls(shape=tuple(observation.shape), dtype="uint8" if picture else "float32", **taken)
        raise InputError(
            f"Observations of {observation} are read by no policy here: they have to be a Box or Discrete. "
            "gymnasium.wrappers.FlattenObservation makes a Box of a Dict, a Tuple or a MultiDiscrete."
        )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Spaces:
        """What `to_json` gave. Raises `InputError` for anything else."""
        names = {field.name for field in dataclasses.fields(cls)}
        try:
            taken: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n in names}
            made = cls(**taken)
            made.distribution()
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(f"These are no spaces of an environment: {given}") from error
        return made

    def to_json(self) -> dict[str, Any]:
        return {n: list(v) if isinstance(v, tuple) else v for n, v in dataclasses.asdict(self).items()}

    def distribution(self) -> Distribution:
        """Of what a policy answers."""
        from paritas.rl.distributions import Categorical, Gaussian, MultiCategorical

        if self.action == "Discrete":
            return Categorical(self.counts[0])
        return MultiCategorical(self.counts) if self.action == "MultiDiscrete" else Gaussian(len(self.low))

    def read(self, observation: Any, row: np.ndarray, where: str) -> None:
        """Write an observation into its row. Raises `InputError` for one that is not of this space."""
        if self.places:
            place = int(observation) - self.first_place
            if not 0 <= place < self.places:
                raise InputError(f"{where} showed {observation}, and its space has {self.places} places.")
            row[:] = 0
            row[place] = 1
            return
        shown = observation if type(observation) is np.ndarray else np.asarray(observation)
        if shown.shape != self.shape:
            raise InputError(
                f"{where} showed an observation of shape {shown.shape}, and its space says {self.shape}: they have to "
                "be the same. Mend its observation_space, or what reset() and step() return."
            )
        row[:] = shown

    def batch(self, observations: Any) -> np.ndarray:
        """Observations of several environments, [n, ...], as networks see them."""
        raw = np.asarray(observations)
        rows = np.empty((len(raw), *self.shape), self.dtype)
        for row, observation in zip(rows, raw, strict=True):
            self.read(observation, row, "The environment")
        return rows

    def outward(self, actions: np.ndarray) -> Any:
        """Actions [n, ...] as environments take them: numbers, or arrays inside the bounds."""
        if self.action == "Discrete":
            return (actions + self.first[0]).tolist() if self.first[0] else actions.tolist()
        if self.action == "MultiDiscrete":
            return actions + np.asarray(self.first)
        bounded = np.clip(actions, np.asarray(self.low, np.float32), np.asarray(self.high, np.float32))
        return bounded.reshape(len(actions), *self.action_shape)

    def must_be(self, other: Spaces, what: str, theirs: str) -> None:
        """Raise `InputError` unless these are the same. what: has these, theirs: the others, in words."""
        mine, others = self.to_json(), other.to_json()
        different = [name for name in mine if mine[name] != others[name]]
        if different:
            told = ", ".join(f"{name} {mine[name]} and {others[name]}" for name in different)
            raise InputError(f"{what} does not fit {theirs}: {told}.")
