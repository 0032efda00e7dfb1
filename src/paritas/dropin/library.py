# SPDX-License-Identifier: Apache-2.0
"""What the core has to know of a library whose classes are ported. A namespace registers its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator, Set
from typing import Any


@dataclasses.dataclass(frozen=True)
class Library:
    """A library of torch modules.

    name: its package. models: prefixes of the modules in which its models are: their code is part of what a model is,
    what their methods write while they run is no change of a caller's, and they may be called with tensors of any
    framework. bases: prefixes of those in which the classes are that all models derive from. bookkeeping: attributes of
    modules and configurations on which no result depends. random: classes, by name, that draw random numbers in
    inference too. No port can draw torch's, so these are never inside one: their own code runs, with torch's generator,
    and so does that of what contains them; their layers are ports. watching: prefixes of modules whose hooks look at
    what is inside a network, as a user's do: all others of the library are its own. registry: the attribute of a module
    that holds hooks by which the library puts something in the place of its forward, by `hooks`: what they do depends
    on earlier calls, so that they are never inside a port. What each of them stands around is in its `fn_ref`.
    only_weights: whether such a hook changes nothing but where and in which dtype weights lie between calls, so that
    what is computed is the module below it. cast_by: the dtype to which it casts them for a call. aside: attributes of
    one of its modules that its forward does not look at, as the tokenizer of a module that also prepares its input;
    unlike bookkeeping, of that module alone.
    """

    name: str
    models: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    bookkeeping: frozenset[str] = frozenset()
    random: frozenset[str] = frozenset()
    watching: tuple[str, ...] = ()
    registry: str = ""
    only_weights: Callable[[Any], bool] | None = None
    cast_by: Callable[[Any], Any] | None = None
    aside: Callable[[Any], Set[str]] | None = None


#: Attributes of a module on which no result depends: bookkeeping of torch and of ours, and of the libraries.
IGNORED = {
    "_paritas", "_backward_hooks", "_backward_pre_hooks", "_non_persistent_buffers_set", "_is_full_backward_hook",
    "_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
    "_compiled_call", "_compiled_call_impl",
}  # fmt: skip

_libraries: dict[str, Library] = {}


def register(library: Library) -> None:
    """From now on the library's classes are known as such. Doing it again changes nothing.

    What two namespaces say of one library holds together, whichever was first. Raises `ValueError` where they name
    different attributes for its hooks.
    """
    known = _libraries.get(library.name, library)
    if known.registry and library.registry and known.registry != library.registry:
        raise ValueError(f"hooks of {library.name} are in {known.registry} already, and not in {library.registry}")
    _libraries[library.name] = Library(
        library.name,
        models=tuple(dict.fromkeys((*known.models, *library.models))),
        bases=tuple(dict.fromkeys((*known.bases, *library.bases))),
        bookkeeping=known.bookkeeping | library.bookkeeping,
        random=known.random | library.random,
        watching=tuple(dict.fromkeys((*known.watching, *library.watching))),
        registry=known.registry or library.registry,
        only_weights=known.only_weights or library.only_weights,
        cast_by=known.cast_by or library.cast_by,
        aside=known.aside or library.aside,
    )
    IGNORED.update(library.bookkeeping, filter(None, (library.registry,)))


def register_loaded() -> None:
    """Register the libraries whose packages were imported: for models that come through no namespace of ours.

    What is said of a library is in the file `library` of the namespace of its name.
    """
    package, _, _ = __name__.partition(".")
    for space in pkgutil.iter_modules(sys.modules[package].__path__):
        place = f"{package}.{space.name}.{__name__.rpartition('.')[2]}"
        if space.ispkg and space.name in sys.modules and importlib.util.find_spec(place) is not None:
            importlib.import_module(place)


def is_of_library(module: str) -> bool:
    """Whether that module is some library's, as `value.__module__` names it."""
    return module.startswith(tuple(f"{name}." for name in _libraries))


def is_watching(module: str) -> bool:
    """Whether hooks that are defined in that module look into networks from outside."""
    return any(module.startswith(one.watching) for one in _libraries.values() if one.watching)


def registries(module: object) -> dict[str, object]:
    """What libraries have in a module for hooks that they put in the place of its forward, by attribute."""
    space = vars(module)
    return {one.registry: space[one.registry] for one in _libraries.values() if space.get(one.registry) is not None}


def is_hooked(module: object) -> bool:
    """Whether some library has put hooks in the place of a module's forward that do more than move its weights."""
    return any(not (one.only_weights and one.only_weights(hook)) for one, hook in _hooks(module))


def has_hooks(module: object) -> bool:
    """Whether some library has put hooks of any kind in the place of a module's forward."""
    return next(_hooks(module), None) is not None


def cast_to(module: object) -> Any:
    """The dtype to which such a hook casts a module's weights for each call; None where there is none."""
    return next(filter(None, (one.cast_by(hook) for one, hook in _hooks(module) if one.cast_by)), None)


def _hooks(module: object) -> Iterator[tuple[Library, Any]]:
    space = vars(module)
    for one in _libraries.values():
        if one.registry and (registry := space.get(one.registry)) is not None:
            yield from ((one, hook) for hook in getattr(registry, "hooks", {}).values())


def aside(module: object) -> frozenset[str]:
    """Attributes of a module that its forward does not look at, as its library says."""
    return frozenset().union(*(one.aside(module) for one in _libraries.values() if one.aside))


def is_of_models(module: str) -> bool:
    """Whether models are in that module."""
    return any(module.startswith(one.models) for one in _libraries.values())


def is_of_bases(module: str) -> bool:
    """Whether that module holds what all models of a library derive from."""
    return any(module.startswith(one.bases) for one in _libraries.values())


def is_random(cls: type) -> bool:
    """Whether modules of that class draw random numbers in inference too."""
    return any(cls.__name__ in one.random for one in _libraries.values())


def packages() -> tuple[str, ...]:
    """The libraries, whose versions a port that is kept depends on."""
    return tuple(_libraries)
