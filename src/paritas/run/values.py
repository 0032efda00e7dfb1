# SPDX-License-Identifier: Apache-2.0
"""The border where tensors of frameworks become NumPy arrays and back, and where a call's inputs are checked.

No framework is imported to find out whose tensors these are: a caller who has one has imported it.
"""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from paritas import formulas
from paritas.errors import InputError, SizeError, did_you_mean
from paritas.formulas import NoFormula
from paritas.guards import broken, complaint
from paritas.program import Guard, TensorSpec
from paritas.pytree import Output, build_output, describe_output, leaf_names
from paritas.run.turns import turn
from paritas.size_names import size_names, with_names

__all__ = [
    "Output",
    "build_output",
    "check_feed",
    "describe_output",
    "dynamic_sizes",
    "framework_of",
    "from_numpy",
    "leaf_names",
    "to_numpy",
]

Array = np.ndarray[Any, np.dtype[Any]]


# --- frameworks --------------------------------------------------------------------------------


def framework_of(inputs: Mapping[str, Any]) -> str:
    """ "numpy", "torch" or "mindspore": whose tensors `inputs` are; "numpy" where there are none.

    Lists and numbers of Python belong to whatever comes with them. Raises `InputError` for a mixture.
    """
    kinds: dict[str, str] = {}
    for name, value in inputs.items():
        kind = framework_of_type(type(value))
        if kind:
            kinds[name] = kind
    found = set(kinds.values())
    if len(found) > 1:
        listed = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
        raise InputError(f"The inputs are of different frameworks: {listed}. Pass all of one; so is the output.")
    return found.pop() if found else "numpy"


#: Whose tensors a caller may have, by the package of their class.
FRAMEWORKS = ("torch", "mindspore", "numpy")

_of_type: dict[type, str] = {}


def framework_of_type(cls: type) -> str:
    """Of one type: "" for what is no tensor."""
    if cls not in _of_type:
        bases = [base for base in cls.__mro__ if base.__name__ in ("Tensor", "ndarray", "generic")]
        roots = [base.__module__.partition(".")[0] for base in bases]
        _of_type[cls] = next((root for root in roots if root in FRAMEWORKS), "")
    return _of_type[cls]


@functools.cache
def _name_of(dtype: np.dtype[Any]) -> str:
    """Its name, which NumPy makes anew each time."""
    return dtype.name


def to_numpy(name: str, value: Any) -> Array:
    """`value` as a contiguous NumPy array of the machine's byte order, without a copy where possible.

    bfloat16 becomes float32, which holds it exactly. Raises `InputError` naming `name` for what is no dense
    array of numbers.
    """
    framework = framework_of_type(type(value))
    if framework == "torch":
        return _from_torch(name, value)
    if framework == "mindspore":
        with turn(computes=False):
            return _plain(name, value.asnumpy())
    if not framework and not isinstance(value, list | tuple | int | float):
        _refuse(f"{name} is a {type(value).__module__}.{type(value).__qualname__}, not an array or tensor")
    if isinstance(value, np.ma.MaskedArray):
        _refuse(f"{name} is a masked array; fill its gaps first: {name}.filled(0)")
    try:
        return _plain(name, np.asarray(value))
    except (ValueError, TypeError, OverflowError) as error:
        # A list of torch tensors ends here too: NumPy cannot tell what it is.
        raise InputError(f"{name} cannot be made an array: {error}.") from None


def _plain(name: str, array: Array) -> Array:
    if array.dtype.kind not in "biufc" and array.dtype.name == "bfloat16":  # ml_dtypes, which MindSpore and JAX use
        array = array.astype(np.float32)
    if array.dtype.kind not in "biufc":
        _refuse(f"{name} holds {array.dtype.name}, not numbers")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.asarray(array, order="C")  # not ascontiguousarray, which makes 0-d 1-d


def _from_torch(name: str, value: Any) -> Array:
    try:
        return _plain(name, value.numpy())
    except (TypeError, RuntimeError):
        pass  # bfloat16, or requires a gradient, or is elsewhere: one by one below
    torch = sys.modules["torch"]
    if value.layout is not torch.strided or value.is_quantized:
        _refuse(f"{name} is a sparse or quantized torch tensor; make it dense first: {name}.to_dense()")
    if value.device.type == "meta":
        _refuse(f"{name} is a torch tensor on the meta device, which has no values")
    value = value.detach()
    if value.dtype is torch.bfloat16 or str(value.dtype).startswith("torch.float8"):
        value = value.float()
    if value.device.type != "cpu":
        value = value.cpu()
    return _plain(name, value.resolve_conj().resolve_neg().contiguous().numpy())


def from_numpy(array: Array, framework: str, dtype: str) -> Any:
    """`array` as a tensor of `framework` and `dtype`, sharing its memory where that is possible.

    dtype: as a `TensorSpec` has it. NumPy has no bfloat16, so there it stays float32.
    """
    array = np.asarray(array, order="C")
    if dtype != "bfloat16" and _name_of(array.dtype) != dtype:
        array = array.astype(dtype)
    if framework == "numpy":
        return array
    if not array.flags.writeable:
        array = array.copy()  # both frameworks would write through
    if framework == "torch":
        import torch

        tensor = torch.from_numpy(array)
        return tensor.to(torch.bfloat16) if dtype == "bfloat16" else tensor
    if framework == "mindspore":
        with turn(computes=dtype == "bfloat16"):
            import mindspore

            value = mindspore.Tensor.from_numpy(array)
            return value.astype(mindspore.bfloat16) if dtype == "bfloat16" else value
    raise ValueError(f"no framework {framework!r}")


def _refuse(text: str) -> NoReturn:
    raise InputError(text + ".")


# --- the check at the door ---------------------------------------------------------------------


def check_feed(
    inputs: Mapping[str, Any],
    specs: Sequence[TensorSpec],
    constants: Mapping[str, Any] | None = None,
    limits: Mapping[str, int] | None = None,
    signature: Mapping[str, Any] | None = None,
    guards: Sequence[Guard] = (),
    growing: Collection[str] = (),
    known: Mapping[str, int] | None = None,
) -> dict[str, Array]:
    """One array per spec, in its order, of its dtype, or one `InputError` with all that is wrong.

    inputs: as the original's forward takes them; None is as good as absent. constants: forward's arguments
    that were fixed while capturing; the same value is accepted. limits: dynamic dimension -> largest size.
    signature: forward's parameters, as `Manifest.signature`; what is left out has forward's default, and what has
    forward's default may be said.
    guards: what has to hold of the sizes; a `SizeError` if nothing but guards is broken. growing: inputs that begin
    with a size of 0. known: dynamic dimensions that something else than the inputs says: how many tokens were seen.

    Whole numbers are cast where that loses nothing, and float16 or bfloat16 to float32; nothing else is.
    float32 is taken for bfloat16 from NumPy, which has none, and rounded to it. An absent input whose spec
    has a default is filled with it.
    """
    constants, signature = constants or {}, signature or {}
    wrong: list[str] = []
    named = {spec.name for spec in specs}
    _check_left_out(inputs, constants, signature, wrong)
    for name, value in inputs.items():
        if name not in named and name not in constants and _is_default(name, value, signature):
            continue
        if name not in named and value is not None:
            _check_argument(name, value, specs, constants, signature, wrong)
    feed: dict[str, Array] = {}
    # dynamic dimension -> its size and the input that says so
    sizes: dict[str, tuple[int, str]] = {name: (size, "what was seen") for name, size in (known or {}).items()}
    zero = {dim for spec in specs if spec.name in growing for dim in spec.dims[1:]}
    for spec in specs:
        value = inputs.get(spec.name)
        if value is None:
            if spec.default is None:
                wrong.append(f"{spec.name} is missing: {spec.dtype}{_dims(spec)} is expected")
            continue
        try:
            array = to_numpy(spec.name, value)
        except InputError as error:
            wrong.append(str(error).rstrip("."))
            continue
        if _check_shape(spec, array, sizes, limits or {}, wrong, zero, spec.name in growing):
            if _name_of(array.dtype) != spec.dtype:
                array = _cast(spec, array, value, wrong)
            if (spec.high, spec.low, spec.never) != (None, None, ()) and _name_of(array.dtype) == spec.dtype:
                _check_range(spec, array, wrong)
            if spec.value is not None and array.tolist() != spec.value:
                wrong.append(
                    f"{spec.name} is {array.tolist()}; this port was made for {spec.value}, from which sizes inside "
                    "the model follow. Make another port for other sizes"
                )
        feed[spec.name] = array
    if guards and not wrong:
        check_guards({name: size for name, (size, _) in sizes.items()}, specs, guards, known or ())
    if not wrong:
        _check_counts(specs, feed, sizes, wrong)
        _check_forgotten(specs, feed, sizes, wrong)
    if not wrong and len(feed) < len(specs):
        absent = {s.name: _fill(s, sizes, feed, wrong) for s in specs if s.name not in feed}
        feed = {spec.name: (feed if spec.name in feed else absent)[spec.name] for spec in specs}
    if wrong:
        names = size_names(specs)
        wrong = [with_names(one, names) for one in wrong]
        lines = [f"{len(wrong)} problems:", *wrong]
        raise InputError("\n  ".join(lines) if len(wrong) > 1 else f"{wrong[0]}.")
    return feed


def check_guards(
    sizes: Mapping[str, int], specs: Sequence[TensorSpec], guards: Sequence[Guard], seen: Collection[str] = ()
) -> None:
    """Raise a `SizeError` that names the first guards that are broken, and counts the others.

    seen: sizes of no input, which are how many tokens were seen.
    """
    found = broken(guards, sizes)
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        told = "; ".join(complaint(guard, specs, sizes) for guard in found[:3])
        raise SizeError(with_names(told, dict.fromkeys(seen, "seen")) + more + ".")


def _check_argument(
    name: str,
    value: Any,
    specs: Sequence[TensorSpec],
    constants: Mapping[str, Any],
    signature: Mapping[str, Any],
    wrong: list[str],
) -> None:
    if name in constants:
        if not _same(value, constants[name]):
            fixed = constants[name]
            wrong.append(f"{name}={value!r} is not possible: this port was made with {name}={fixed!r}")
        return
    if "default" in signature.get(name, {}):
        fixed = signature[name]["default"]
        made = "without it" if fixed is None else f"with forward's default, {name}={fixed!r}"
        wrong.append(f"{name} is not possible: this port was made {made}. Make one with it among its inputs")
        return
    names = [spec.name for spec in specs]
    close = difflib.get_close_matches(name, (*names, *constants), 1)
    wrong.append(f"{name} is not an input.{did_you_mean(close)} The inputs are: {', '.join(names)}")


def _check_left_out(
    inputs: Mapping[str, Any], constants: Mapping[str, Any], signature: Mapping[str, Any], wrong: list[str]
) -> None:
    """A call that leaves out what was fixed means forward's default, which may be another value."""
    for name, fixed in constants.items():
        if name in inputs or name not in signature or _is_default(name, fixed, signature):
            continue
        default = signature[name].get("default", ...)
        means = f"leaving it out means {default!r}" if default is not ... else "it has no default"
        wrong.append(f"{name} is missing: this port was made with {name}={fixed!r}, and {means}")


def _is_default(name: str, value: Any, signature: Mapping[str, Any]) -> bool:
    about = signature.get(name, {})
    return "default" in about and _same(value, about["default"])


def _same(value: Any, fixed: Any) -> bool:
    # transformers takes sizes of images as a tensor and works with them as numbers: both say the same.
    value, fixed = _as_lists(value), _as_lists(fixed)
    same_type = type(value) is type(fixed) or {type(value), type(fixed)} <= {int, float}
    return same_type and bool(value == fixed)


def _as_lists(value: Any) -> Any:
    if framework_of_type(type(value)):
        return to_numpy("an argument", value).tolist()
    return [_as_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _check_counts(
    specs: Sequence[TensorSpec], feed: Mapping[str, Array], sizes: Mapping[str, tuple[int, str]], wrong: list[str]
) -> None:
    """Lengths of padded sequences: at least 1 and at most the padded size, which is the longest. Orders are whole."""
    for spec in specs:
        array = feed.get(spec.name)
        if not spec.counts or array is None or not array.size:
            continue
        size = formulas.value(spec.counted, {n: s for n, (s, _) in sizes.items()})
        low, high = int(array.min()), int(array.max())
        if spec.is_order:
            if array.size != size or not np.array_equal(np.sort(array, axis=None), np.arange(size)):
                wrong.append(f"{spec.name} must be an order: every number from 0 to {int(size or 0) - 1} once")
        elif low < 1 or high != size:
            wrong.append(
                f"{spec.name} holds lengths from {low} to {high}; they must be at least 1, and the longest {size}, "
                "to which the sequences are padded. Cut the padding off that no sequence needs"
            )
        elif spec.counts.startswith("sorted ") and (np.diff(array) > 0).any():
            wrong.append(f"{spec.name} must fall: the longest sequence first, as enforce_sorted=True demands")


def _check_forgotten(
    specs: Sequence[TensorSpec], feed: Mapping[str, Array], sizes: Mapping[str, tuple[int, str]], wrong: list[str]
) -> None:
    """A state that the original would not take up is none."""
    for spec in specs:
        if spec.forgets and sizes.get(spec.forgets, (1, ""))[0] != 1 and feed[spec.name].any():
            wrong.append(
                f"{sizes[spec.forgets][0]} tokens follow on {spec.name}, which the original forgets unless it is one: "
                "hand them on one by one, or all tokens in one call"
            )
            return


def dynamic_sizes(specs: Sequence[TensorSpec], feed: Mapping[str, Array]) -> dict[str, int]:
    """Dynamic dimension -> its size, for a feed that was checked."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in specs:
        _check_shape(spec, feed[spec.name], sizes, {}, [])
    return {dim: size for dim, (size, _) in sizes.items()}


def _dims(spec: TensorSpec) -> str:
    return f"[{', '.join(map(str, spec.dims))}]"


def _check_shape(
    spec: TensorSpec,
    array: Array,
    sizes: dict[str, tuple[int, str]],
    limits: Mapping[str, int],
    wrong: list[str],
    zero: Collection[int | str] = (),
    may_be_empty: bool = False,
) -> bool:
    """Whether the shape is the spec's; notes the sizes of dynamic dimensions, and what is wrong. zero: those that may
    be 0, as in an input that `may_be_empty`."""
    name, dims, shape = spec.name, spec.dims, array.shape
    if len(shape) != len(dims):
        wrong.append(f"{name} has {len(shape)} dimensions {list(shape)}; {len(dims)} are expected: {_dims(spec)}")
        return False
    before = len(wrong)
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if isinstance(dim, int):
            if size != dim:
                wrong.append(f"{name} has size {size} in dimension {axis}; {dim} is expected: {_dims(spec)}")
        elif size == 0 and not (may_be_empty and axis):
            wrong.append(f"{name} is empty: its shape is {list(shape)}")
            break
        elif dim in limits and size > limits[dim]:
            wrong.append(f"{name} has size {size} in dimension {axis}; the model takes at most {limits[dim]}")
        else:
            other, by = sizes.setdefault(dim, (size, name))
            if other != size:
                wrong.append(
                    f"{name} has size {size} in dimension {axis}, but {by} has {other} there: "
                    f"both are {dim} in {_dims(spec)}"
                )
            elif not dim.isidentifier():
                _check_expression(spec, axis, size, sizes, wrong, zero)
    return len(wrong) == before


def _check_expression(
    spec: TensorSpec,
    axis: int,
    size: int,
    sizes: dict[str, tuple[int, str]],
    wrong: list[str],
    zero: Collection[int | str],
) -> None:
    """A dimension such as "2*s0": right if s0 is known and fits, or unknown and some s0 fits."""
    dim = str(spec.dims[axis])
    names = _names(dim)
    unknown = [name for name in names if name not in sizes]
    known = {name: sizes[name][0] for name in names if name in sizes}
    if not names:
        return
    if not unknown:
        if (want := formulas.whole(dim, known)) is not None and want != size:
            wrong.append(
                f"{spec.name} has size {size} in dimension {axis}; {want} is expected, as it is {dim} with "
                + ", ".join(f"{name}={known[name]}" for name in names)
            )
    elif len(unknown) == 1 and _GROWS.fullmatch(dim):
        symbol = unknown[0]
        if (fits := _solve(dim, symbol, tuple(known.items()), size, int(symbol not in zero))) is None:
            wrong.append(f"{spec.name} has size {size} in dimension {axis}; it must be {dim} for some {symbol}")
        else:
            sizes[symbol] = (fits, spec.name)


#: A dimension that is another for each size of its symbols: no division of whole numbers, no functions.
_GROWS = re.compile(r"(?:(?!//)[\w +*()-](?<!\w\())+")


@functools.lru_cache(maxsize=4096)
def _solve(text: str, symbol: str, known: tuple[tuple[str, int], ...], size: int, least: int) -> int | None:
    """The size of `symbol`, at least `least`, that makes the expression `size`."""
    sizes = dict(known)
    return next((k for k in range(least, size + 64) if formulas.whole(text, {**sizes, symbol: k}) == size), None)


@functools.lru_cache(maxsize=4096)
def _names(text: str) -> tuple[str, ...]:
    """The sizes that a dimension's expression is made of; none where nothing can be computed of it."""
    try:
        names, _ = formulas.parsed(text)
    except NoFormula:
        return ()
    return names if formulas.whole(text, dict.fromkeys(names, 7)) is not None else ()


def size_of(dim: str, sizes: Mapping[str, int]) -> int | None:
    """A dimension's size where the symbols have these sizes; None where they do not say."""
    return formulas.whole(dim, sizes) if _names(dim) else None


def _cast(spec: TensorSpec, array: Array, given: Any, wrong: list[str]) -> Array:
    """`array` in the spec's dtype where that loses nothing; else what is wrong is noted."""
    have, want = array.dtype.name, spec.dtype
    came = _dtype_name(given) or have
    untyped = not framework_of_type(type(given))  # a list or number of Python, whose floats are only nominally float64
    if want == "bfloat16":
        if came == "bfloat16":
            return array
        no_bfloat16 = isinstance(given, np.ndarray | np.generic) and have == "float32"
        if array.dtype.kind == "f" and (untyped or have == "float16" or no_bfloat16):
            return _round_to_bfloat16(array.astype(np.float32))
        wrong.append(f"{spec.name} is {came}; {want} is expected")
        return array
    target = np.dtype(want)
    if array.dtype.kind in "biu" and target.kind in "biu":
        cast = array.astype(target)
        if np.can_cast(array.dtype, target) or np.array_equal(cast, array):
            return cast
        lost = array[cast != array].flat[0]
        wrong.append(f"{spec.name} is {came} and holds {lost}, which {want} cannot hold")
        return array
    if target.kind == "f" and array.dtype.kind == "f" and (untyped or np.can_cast(array.dtype, target)):
        return array.astype(target)
    if target.kind == "c" and array.dtype.kind == "c" and np.can_cast(array.dtype, target):
        return array.astype(target)
    advice = (
        f"{spec.name}.to(torch.{want})"
        if framework_of_type(type(given)) == "torch"
        else f"{spec.name}.astype({want!r})"
    )
    wrong.append(f"{spec.name} is {came}; {want} is expected. If that is meant: {advice}")
    return array


def _dtype_name(value: Any) -> str:
    """The dtype as its own framework spells it: "bfloat16" also where it became float32 on the way."""
    return str(getattr(value, "dtype", "")).rpartition(".")[2].lower()


def _round_to_bfloat16(array: Array) -> Array:
    """Each float32 rounded to the nearest bfloat16, ties to even, as float32."""
    bits = array.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    # A NaN whose payload is all ones would round to infinity's neighbour: keep it as it is.
    return np.where(np.isnan(array), array, rounded.astype(np.uint32).view(np.float32))


def _check_range(spec: TensorSpec, array: Array, wrong: list[str]) -> None:
    if array.dtype.kind not in "iu" or not array.size:
        return
    low, high = spec.low, spec.high
    low = 0 if low is None and high is not None else low
    if low == 0 and high is not None and array.dtype == np.int64:
        # One comparison for both ends: a negative number is a large one without its sign.
        if array.view(np.uint64).max() < high and not spec.never:
            return
    elif (low is None or array.min() >= low) and (high is None or array.max() < high) and not spec.never:
        return
    outside = np.zeros(array.shape, bool)
    if low is not None:
        outside |= array < low
    if high is not None:
        outside |= array >= high
    known = f"the model knows {'' if low is None else low} to {'' if high is None else high - 1}"
    if spec.ignored is not None:
        outside &= array != spec.ignored
        known += f", and {spec.ignored} for what is left out of the loss"
    for value in spec.never:
        if not outside.any() and (array == value).any():
            outside, known = array == value, "with which the model divides by zero"
    places = np.argwhere(outside)
    if not len(places):
        return
    place = tuple(int(index) for index in places[0])
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    wrong.append(f"{spec.name} holds {array[place]} at {list(place)}{more}; {known}")


def _fill(spec: TensorSpec, sizes: Mapping[str, tuple[int, str]], feed: Mapping[str, Array], wrong: list[str]) -> Array:
    """An absent input: its default in every place, as large as the others say.

    A dimension that no other input shares is as large as that of the first input of the same rank: a mask
    that broadcasts over the batch has a batch dimension of its own.
    """
    known = {name: size for name, (size, _) in sizes.items()}
    like = next((array.shape for array in feed.values() if array.ndim == len(spec.dims)), None)
    shape = []
    for axis, dim in enumerate(spec.dims):
        size: int | None = dim if isinstance(dim, int) else known.get(dim)
        if size is None and not isinstance(dim, int):
            size = size_of(dim, known)
            if size is None and like is not None and dim.isidentifier():
                size = like[axis]
        if size is None:
            wrong.append(f"{spec.name} is missing, and no other input says how large {dim} in {_dims(spec)} is")
            return np.empty(0)
        shape.append(size)
    return np.full(shape, spec.default, "float32" if spec.dtype == "bfloat16" else spec.dtype)
