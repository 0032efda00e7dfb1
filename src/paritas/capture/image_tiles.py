# SPDX-License-Identifier: Apache-2.0
"""Images that a model's own code cuts, sorts and puts together around two networks: a tower that sees tiles, and what
makes tokens of what it sees.

All between the two is one graph. Before them and behind them `get_image_features` itself runs, in PyTorch and without a
weight: `around` calls it with somebody who answers for the two networks (`Unseen`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

#: An argument of `get_image_features` that says what of a tile is no padding, as [texts, tiles, height, width].
_SEEN = "pixel_attention_mask"

#: Arguments of `get_image_features` that say how large an image is, [height, width] of each.
_SIZES = "image_sizes"


@dataclasses.dataclass(frozen=True)
class Networks:
    """tower, connector: paths in the base model, of what sees tiles and of what makes tokens of it. given: with what
    `get_image_features` calls them. tensors: what the tower gets there, tiles first; fixed: its other arguments.
    sized: both are told how large each image is, and see one at a time."""

    tower: str
    connector: str
    given: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    fixed: Mapping[str, Any]
    sized: bool = False


def is_in_tiles(model: Any) -> bool:
    """Whether features are computed of more than pixels of images."""
    encode = getattr(model.base_model, "get_image_features", None)
    known = dict(inspect.signature(encode).parameters) if encode is not None else {}
    known.pop("pixel_values", None)
    plain = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return _SEEN in known or any(p.default is p.empty and p.kind not in plain for p in known.values())


def networks_of(model: Any, pixels: torch.Tensor) -> Networks | None:
    """The two of them, found by calling the model on pixels float [images, channels, height, width].

    None for a model that computes its features otherwise.
    """
    base = model.base_model
    known = inspect.signature(base.get_image_features).parameters
    more = {_SIZES: [list(pixels.shape[-2:])] * len(pixels)} if _SIZES in known else {}
    for given in ({"pixel_values": pixels}, {"pixel_values": pixels[None]}):
        found = _called(model, {**given, **more}, pixels.dim())
        if found is not None:
            return found
    return None


def _called(model: Any, given: dict[str, Any], dims: int) -> Networks | None:
    base = model.base_model
    calls: list[tuple[str, dict[str, Any]]] = []
    with _watched(base, _parts(model), calls), torch.no_grad(), contextlib.suppress(Exception):
        base.get_image_features(**given)
    names = [name for name, _ in calls]
    if len(names) != 2 or names[0] == names[1]:
        return None
    seen = {name: value for name, value in calls[0][1].items() if value is not None}
    tensors = {name: value for name, value in seen.items() if isinstance(value, torch.Tensor)}
    fixed = {name: value for name, value in seen.items() if name not in tensors}
    first = next(iter(tensors.values()), None)
    if first is None or first.dim() != dims:
        return None
    if sized := _SIZES in fixed:
        tensors = {name: value[:1] for name, value in tensors.items()}
    return Networks(names[0], names[1], given, tensors, fixed, sized)


def _parts(model: Any) -> list[str]:
    """The networks of the base model that are not its language model."""
    decoder = model.get_decoder()
    return [name for name, module in model.base_model.named_children() if module is not decoder]


@contextlib.contextmanager
def _watched(base: Any, names: list[str], calls: list[tuple[str, dict[str, Any]]]) -> Iterator[None]:
    def watch(name: str) -> Callable[..., None]:
        signature = inspect.signature(getattr(base, name).forward)

        def seen(module: Any, args: Any, kwargs: Any) -> None:
            calls.append((name, _by_name(signature, args, kwargs)))

        return seen

    handles = [getattr(base, name).register_forward_pre_hook(watch(name), with_kwargs=True) for name in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _by_name(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**signature.bind_partial(*args).arguments, **kwargs}


class TileFeatures(torch.nn.Module):
    """From what the tower is given to what makes tokens of it: of tiles float [tiles, channels, height, width], float
    [tiles, tokens, width]; of one image of any size, [tokens, width]."""

    def __init__(self, model: Any, networks: Networks) -> None:
        super().__init__()
        self.model = model
        signature = inspect.Signature(
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in networks.tensors]
        )

        def forward(*args: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
            tensors = _by_name(signature, args, kwargs)
            if not networks.sized:  # tiles are of one size, which nobody has to be asked for
                tensors = {n: value.reshape(-1, *networks.tensors[n].shape[1:]) for n, value in tensors.items()}
            base = model.base_model
            tower, connector = (getattr(base, name) for name in (networks.tower, networks.connector))
            sizes = {_SIZES: [next(iter(tensors.values())).shape[-2:]]} if networks.sized else {}

            def seen(*args: Any, **kwargs: Any) -> Any:
                return tower(**tensors, **{**networks.fixed, **sizes})

            def connected(*args: Any, **kwargs: Any) -> Any:
                raise _Connected(connector(**{**_by_name(inspect.signature(connector.forward), args, kwargs), **sizes}))

            with _instead(base, {networks.tower: seen, networks.connector: connected}):
                try:
                    base.get_image_features(**networks.given)
                except _Connected as found:
                    features: torch.Tensor = found.features
                    return features
            raise RuntimeError(f"{type(model).__name__} makes no tokens of its tiles.")

        forward.__signature__ = signature  # type: ignore[attr-defined]
        vars(self)["forward"] = forward


class _Connected(Exception):
    """What is behind the two networks need not run: nothing is returned that it computes."""

    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features


class _InPlace:
    """In the place of a network: called otherwise, with all else that it has."""

    def __init__(self, module: torch.nn.Module, call: Callable[..., Any]) -> None:
        self._module, self._call = module, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextlib.contextmanager
def _instead(base: Any, calls: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """In the base model's own attributes, which come before its modules: those stay as they are, and are traced so."""
    vars(base).update({name: _InPlace(getattr(base, name), call) for name, call in calls.items()})
    try:
        yield
    finally:
        for name in calls:
            vars(base).pop(name)


class Unseen:
    """In the place of what the tower has seen: whatever is taken out of it or made of it is as little known."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Unseen()

    def __getitem__(self, key: Any) -> Any:
        return Unseen()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Unseen()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return cls()


def around(
    model: Any, arguments: Mapping[str, Any], weights: Mapping[str, torch.Tensor], features: Callable[..., torch.Tensor]
) -> Any:
    """What the original's `get_image_features` returns, of a model without weights.

    arguments: its own. weights: those that it reads itself, by their names in the base model. features: computes what
    `TileFeatures` does, of the same tensors.
    """
    base = model.base_model
    given: list[Mapping[str, Any]] = []

    def answers(module: Any) -> Callable[..., Any]:
        signature = inspect.signature(type(module).forward)

        def answer(*args: Any, **kwargs: Any) -> Any:
            if not given:
                bound = _by_name(signature, (module, *args), kwargs)
                given.append({name: value for name, value in bound.items() if isinstance(value, torch.Tensor)})
                return Unseen()
            return _of_each(given[0], features) if _SIZES in given[0] else features(**given[0])

        return answer

    with _instead(base, {name: answers(getattr(base, name)) for name in _parts(model)}), _held(base, weights):
        return type(base).get_image_features(base, **arguments)


def _of_each(tensors: Mapping[str, torch.Tensor], features: Callable[..., torch.Tensor]) -> torch.Tensor:
    """float [tokens of all images, width]: an image is as large as it is said to be, what is beside it is padding."""
    (name, images), *_ = ((name, value) for name, value in tensors.items() if name != _SIZES)
    sizes = tensors[_SIZES].tolist()
    each = [images[i : i + 1, :, :height, :width].contiguous() for i, (height, width) in enumerate(sizes)]
    return torch.cat([features(**{name: image}) for image in each])


@contextlib.contextmanager
def _held(base: Any, weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    before = {name: base._parameters.pop(name) for name in weights}
    vars(base).update(weights)
    try:
        yield
    finally:
        for name in weights:
            vars(base).pop(name)
        base._parameters.update(before)


def own_weights(model: Any) -> dict[str, torch.nn.Parameter]:
    """Parameters that the base model's own code reads, by name: they are of no network inside it."""
    return dict(model.base_model.named_parameters(recurse=False))
