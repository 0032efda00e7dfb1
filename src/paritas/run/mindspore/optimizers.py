# SPDX-License-Identifier: Apache-2.0
"""torch's optimizers as cells for MindSpore's loops: their arithmetic, their options, their state.

A rule is one group of parameters: scalars are computed in float64, as Python computes them for torch, and tensors in
float32. Constructs are compiled from their source, so that they have no annotations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paritas.errors import InputError
from paritas.run.mindspore.session import imported

if TYPE_CHECKING:
    import torch

ms: Any = imported()
nn: Any = ms.nn
ops: Any = ms.ops


class _Rule(nn.Cell):
    """One group: how many steps it has made, its rate, its weights, and what torch's state holds beside each."""

    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(auto_prefix=False)
        self.label = label
        self.weights = ms.ParameterTuple(weights)
        self.count = len(weights)
        self.steps = self.scalar("step", 0.0)
        self.rate = self.scalar("lr", 0.0 if group["lr"] is None else float(group["lr"]))
        self.decay = float(group["weight_decay"])
        self.sign = -1.0 if group.get("maximize") else 1.0
        self.kept: dict[str, Any] = {}

    def scalar(self, name: str, value: float) -> Any:
        return ms.Parameter(ms.Tensor(value, ms.float64), name=f"{self.label}.{name}", requires_grad=False)

    def keep(self, name: str, shape: Callable[[tuple[int, ...]], tuple[int, ...] | None]) -> Any:
        """What torch's state calls `name`: zeros for each weight, in a shape that is made of its own; None for none."""
        shapes = [shape(tuple(weight.shape)) for weight in self.weights]
        self.kept[name] = [wanted is not None for wanted in shapes]
        return ms.ParameterTuple(
            ms.Parameter(
                ms.Tensor(np.zeros(wanted or (), np.float32)), name=f"{weight.name}.{name}", requires_grad=False
            )
            for weight, wanted in zip(self.weights, shapes, strict=True)
        )

    def ratio(self, name: str, steps: float) -> float:
        """What a kept tensor is to be multiplied by to be torch's."""
        return 1.0

    def read(self, index: int) -> dict[str, np.ndarray]:
        """What is kept of a weight, as torch has it."""
        steps = float(self.steps.asnumpy())
        return {
            name: np.array(getattr(self, name)[index].asnumpy()) * np.float32(self.ratio(name, steps))
            for name, there in self.kept.items()
            if there[index]
        }

    def write(self, index: int, state: Mapping[str, np.ndarray]) -> None:
        steps = float(self.steps.asnumpy())
        for name, there in self.kept.items():
            if there[index] and name in state:
                value = np.asarray(state[name], np.float32) / np.float32(self.ratio(name, steps))
                _put(getattr(self, name)[index], value)


def _put(parameter: Any, value: Any) -> None:
    """In its place: a graph that MindSpore 2.10 has compiled keeps to the memory that it knows."""
    ops.assign(parameter, ms.Tensor(value, parameter.dtype))


def _as_it_is(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape


class _Adam(_Rule):
    """Adam and AdamW. The engine's operator has float32 betas, and 1 - 0.999 is off by 1e-5 there: powers are those
    of the rounded betas, so that averages are averages, and what is kept becomes torch's by a factor."""

    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(label, weights, group)
        self.decoupled = bool(group["decoupled_weight_decay"])
        self.betas = [float(beta) for beta in group["betas"]]
        self.beta1, self.beta2 = (float(np.float32(beta)) for beta in self.betas)
        self.eps = float(group["eps"])
        self.added = 0.0 if self.decoupled else self.decay
        self.exp_avg, self.exp_avg_sq = self.keep("exp_avg", _as_it_is), self.keep("exp_avg_sq", _as_it_is)
        self.step = ops.AdamWeightDecay()

    def ratio(self, name: str, steps: float) -> float:
        given, rounded = (self.betas[0], self.beta1) if name == "exp_avg" else (self.betas[1], self.beta2)
        return (1 - given**steps) / (1 - rounded**steps) if steps else 1.0

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        steps = self.steps + 1
        ops.assign(self.steps, steps)
        first = 1 - ops.pow(ms.Tensor(self.beta1, ms.float64), steps)
        second = ops.sqrt(1 - ops.pow(ms.Tensor(self.beta2, ms.float64), steps))
        rate = ops.cast(self.rate * second / first, ms.float32)
        eps = ops.cast(self.eps * second, ms.float32)
        decay = ops.cast((self.decay if self.decoupled else 0.0) * first / second, ms.float32)
        for index in range(self.count):
            weight, gradient = self.weights[index], self.sign * gradients[index]
            if self.added != 0:
                gradient = gradient + self.added * weight
            self.step(
                weight, self.exp_avg[index], self.exp_avg_sq[index], rate, self.beta1, self.beta2, eps, decay, gradient
            )
        return True


class _Sgd(_Rule):
    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(label, weights, group)
        self.momentum, self.damping = float(group["momentum"]), 1 - float(group["dampening"])
        self.nesterov = bool(group["nesterov"])
        if self.momentum:
            self.momentum_buffer = self.keep("momentum_buffer", _as_it_is)

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        first = self.steps == 0
        ops.assign(self.steps, self.steps + 1)
        rate = ops.cast(self.rate, ms.float32)
        damping = ops.cast(ops.where(first, 1.0, self.damping), ms.float32)
        for index in range(self.count):
            weight, gradient = self.weights[index], self.sign * gradients[index]
            if self.decay != 0:
                gradient = gradient + self.decay * weight
            if self.momentum != 0:
                buffer = self.momentum * self.momentum_buffer[index] + damping * gradient
                ops.assign(self.momentum_buffer[index], buffer)
                gradient = gradient + self.momentum * buffer if self.nesterov else buffer
            ops.assign(weight, weight - rate * gradient)
        return True


class _Lion(_Rule):
    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(label, weights, group)
        self.beta1, self.beta2 = (float(beta) for beta in group["betas"])
        self.exp_avg = self.keep("exp_avg", _as_it_is)

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        ops.assign(self.steps, self.steps + 1)
        rate, left = ops.cast(self.rate, ms.float32), ops.cast(1 - self.rate * self.decay, ms.float32)
        for index in range(self.count):
            weight, gradient, average = self.weights[index], self.sign * gradients[index], self.exp_avg[index]
            update = ops.sign(self.beta1 * average + (1 - self.beta1) * gradient)
            ops.assign(weight, left * weight - rate * update)
            ops.assign(average, self.beta2 * average + (1 - self.beta2) * gradient)
        return True


def _rows(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return shape[:-1] if len(shape) > 1 else None


def _columns(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return (*shape[:-2], shape[-1]) if len(shape) > 1 else None


def _of_vector(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    return shape if len(shape) < 2 else None


def _mean_square(x):  # type: ignore[no-untyped-def]
    """In float64 but for rows: MindSpore 2.10 adds one number after the other, in float32 if that is what they are."""
    total = x * x
    if x.ndim > 1:
        total = ops.sum(total, -1)
    return ops.mean(ops.cast(total, ms.float64)) / (x.shape[-1] if x.ndim > 1 else 1)


class _Adafactor(_Rule):
    """torch's own."""

    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(label, weights, group)
        first, second = group["eps"]
        self.eps1 = float(np.finfo(np.float32).eps) if first is None else float(first)
        self.eps2, self.clipped, self.power = float(second), float(group["d"]), float(group["beta2_decay"])
        self.factored = tuple(weight.ndim > 1 for weight in weights)
        self.row_var = self.keep("row_var", lambda s: (*s[:-1], 1) if len(s) > 1 else None)
        self.col_var = self.keep("col_var", lambda s: (*s[:-2], 1, s[-1]) if len(s) > 1 else None)
        self.variance = self.keep("variance", _of_vector)

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        steps = self.steps + 1
        ops.assign(self.steps, steps)
        share = ops.cast(ops.pow(steps, ms.Tensor(self.power, ms.float64)), ms.float32)
        rate = ops.minimum(self.rate, 1 / ops.sqrt(steps))
        left = ops.cast(1 - self.rate * self.decay, ms.float32)
        for index in range(self.count):
            weight, gradient = self.weights[index], self.sign * gradients[index]
            size = ops.maximum(ops.sqrt(_mean_square(weight)), ms.Tensor(self.eps2, ms.float64)) * rate
            if self.factored[index]:
                square = gradient * gradient
                row, column = self.row_var[index], self.col_var[index]
                row = row + share * (square.mean(-1, keep_dims=True) - row)
                column = column + share * (square.mean(-2, keep_dims=True) - column)
                ops.assign(self.row_var[index], row)
                ops.assign(self.col_var[index], column)
                estimate = row * column / ops.maximum(row.mean(-2, keep_dims=True), self.eps1)
            else:
                estimate = self.variance[index]
                estimate = estimate + share * (gradient * gradient - estimate)
                ops.assign(self.variance[index], estimate)
            update = gradient / ops.sqrt(ops.maximum(estimate, self.eps1 * self.eps1))
            over = ops.maximum(ops.sqrt(_mean_square(update)) / self.clipped, ms.Tensor(1.0, ms.float64))
            ops.assign(weight, left * weight - ops.cast(size / over, ms.float32) * update)
        return True


class _FairseqAdafactor(_Rule):
    """transformers', which is fairseq's."""

    def __init__(self, label: str, weights: Sequence[Any], group: Mapping[str, Any]) -> None:
        super().__init__(label, weights, group)
        self.eps1, self.eps2 = (float(value) for value in group["eps"])
        self.clipped, self.power = float(group["clip_threshold"]), float(group["decay_rate"])
        self.relative, self.warmup = bool(group["relative_step"]), bool(group["warmup_init"])
        self.scaled = bool(group["scale_parameter"])
        self.beta1 = 0.0 if group["beta1"] is None else float(group["beta1"])
        self.averaged = group["beta1"] is not None
        self.factored = tuple(weight.ndim > 1 for weight in weights)
        self.exp_avg_sq_row, self.exp_avg_sq_col = (
            self.keep("exp_avg_sq_row", _rows),
            self.keep("exp_avg_sq_col", _columns),
        )
        self.exp_avg_sq = self.keep("exp_avg_sq", _of_vector)
        if self.averaged:
            self.exp_avg = self.keep("exp_avg", _as_it_is)

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        steps = self.steps + 1
        ops.assign(self.steps, steps)
        share = ops.cast(ops.pow(steps, ms.Tensor(self.power, ms.float64)), ms.float32)
        rate = self.rate
        if self.relative:
            least = 1e-6 * steps if self.warmup else 0.01 + 0.0 * steps
            rate = ops.minimum(least, 1 / ops.sqrt(steps))
        for index in range(self.count):
            weight, gradient = self.weights[index], self.sign * gradients[index]
            size = rate
            if self.scaled:
                size = ops.maximum(ops.sqrt(_mean_square(weight)), ms.Tensor(self.eps2, ms.float64)) * rate
            square = gradient * gradient + self.eps1
            if self.factored[index]:
                row, column = self.exp_avg_sq_row[index], self.exp_avg_sq_col[index]
                row = (1 - share) * row + share * square.mean(-1)
                column = (1 - share) * column + share * square.mean(-2)
                ops.assign(self.exp_avg_sq_row[index], row)
                ops.assign(self.exp_avg_sq_col[index], column)
                of_rows = ops.sqrt(row / row.mean(-1, keep_dims=True))
                update = gradient / ops.expand_dims(of_rows, -1) / ops.expand_dims(ops.sqrt(column), -2)
            else:
                estimate = (1 - share) * self.exp_avg_sq[index] + share * square
                ops.assign(self.exp_avg_sq[index], estimate)
                update = gradient / ops.sqrt(estimate)
            over = ops.maximum(ops.sqrt(_mean_square(update)) / self.clipped, ms.Tensor(1.0, ms.float64))
            update = ops.cast(size / over, ms.float32) * update
            if self.averaged:
                update = self.beta1 * self.exp_avg[index] + (1 - self.beta1) * update
                ops.assign(self.exp_avg[index], update)
            left = ops.cast(1 - size * self.decay, ms.float32)
            ops.assign(weight, left * weight - update)
        return True


@dataclasses.dataclass(frozen=True)
class _Form:
    """rule: the cell. options: those that it reads; all others have to be switched off."""

    rule: type[_Rule]
    options: tuple[str, ...]


_ADAM = ("betas", "eps", "weight_decay", "maximize", "decoupled_weight_decay")

#: A class of torch's, and of others by their name alone, as each library has a Lion of its own -> what it is here.
FORMS = {
    "torch.optim.AdamW": _Form(_Adam, _ADAM),
    "torch.optim.Adam": _Form(_Adam, _ADAM),
    "torch.optim.SGD": _Form(_Sgd, ("momentum", "dampening", "weight_decay", "nesterov", "maximize")),
    "torch.optim.Adafactor": _Form(_Adafactor, ("beta2_decay", "eps", "d", "weight_decay", "maximize")),
    "transformers.Adafactor": _Form(
        _FairseqAdafactor,
        (
            "eps", "clip_threshold", "decay_rate", "beta1", "weight_decay", "scale_parameter", "relative_step",
            "warmup_init",
        ),
    ),
    "Lion": _Form(_Lion, ("betas", "weight_decay", "maximize")),
}  # fmt: skip

#: What a group has beside, which changes nothing of what is computed.
_OTHERS = {"params", "param_names", "lr", "initial_lr", "max_lr", "foreach", "fused", "capturable"}


class Optimizer(nn.Cell):
    """An optimizer of torch's, in MindSpore: a cell that is called with gradients, as MindSpore's own are."""

    def __init__(self, given: torch.optim.Optimizer, rules: Sequence[_Rule], places: Sequence[Sequence[Any]]) -> None:
        super().__init__(auto_prefix=False)
        self.rules = nn.CellList(rules, auto_prefix=False)
        self.parameters = ms.ParameterTuple(weight for rule in rules for weight in rule.weights)
        self.ends = tuple(int(end) for end in np.cumsum([rule.count for rule in rules]))
        self.given, self._places = given, [list(tensors) for tensors in places]

    def construct(self, gradients):  # type: ignore[no-untyped-def]
        start = 0
        for index in range(len(self.ends)):
            self.rules[index](gradients[start : self.ends[index]])
            start = self.ends[index]
        return True

    def update_rates(self) -> None:
        """Go on with the rates that torch's optimizer has by now: after a step of a scheduler, for example."""
        for rule, group in zip(self.rules, self.given.param_groups, strict=True):
            if group["lr"] is not None:
                _put(rule.rate, np.float64(group["lr"]))

    def state_dict(self) -> dict[str, Any]:
        """What torch's optimizer would give: it goes on with it in PyTorch, `load_state_dict`."""
        import torch

        for rule, tensors in zip(self.rules, self._places, strict=True):
            steps = float(rule.steps.asnumpy())
            for index, tensor in enumerate(tensors):
                if steps:
                    state = {name: torch.from_numpy(np.array(value)) for name, value in rule.read(index).items()}
                    self.given.state[tensor].update({**state, **_steps_of(rule, steps)})
        return self.given.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what an optimizer of torch's has given, of the same class and parameters.

        Raises `InputError` where parameters of one group have made different numbers of steps.
        """
        self.given.load_state_dict(dict(state))
        self.read()

    def read(self) -> None:
        """Take over the state and the rates of torch's optimizer."""
        for rule, tensors in zip(self.rules, self._places, strict=True):
            states = [self.given.state.get(tensor, {}) for tensor in tensors]
            steps = {float(state.get("step", 1.0 if state else 0.0)) for state in states}
            if len(steps) > 1:
                raise InputError(
                    f"Parameters of one group have made {', '.join(f'{n:g}' for n in sorted(steps))} steps: a group "
                    "goes on together here. Give parameters that began later a group of their own."
                )
            _put(rule.steps, np.float64(steps.pop() if steps else 0.0))
            for index, state in enumerate(states):
                rule.write(index, {n: v.numpy() for n, v in state.items() if hasattr(v, "numpy") and n != "step"})
        self.update_rates()


def _steps_of(rule: _Rule, steps: float) -> dict[str, Any]:
    """How torch's class counts."""
    import torch

    if isinstance(rule, (_Sgd, _Lion)):
        return {}
    if isinstance(rule, _FairseqAdafactor):
        return {"step": int(steps), "RMS": 0}
    return {"step": torch.tensor(steps)}


def optimizer(given: torch.optim.Optimizer, model: torch.nn.Module, net: Any) -> Optimizer:
    """An optimizer of torch's as a cell for MindSpore's loops, with its groups, options and state.

    Args:
        given: of the model's parameters: `torch.optim.AdamW`, `Adam`, `SGD` or `Adafactor`, transformers' `Adafactor`,
            or a `Lion`, whose state may be that of a training.
        model: the original, which tells the parameters' names.
        net: its port's cell, `port.cell`.

    Returns:
        A cell: `optimizer(gradients)`, for gradients in the order of `optimizer.parameters`. Its `state_dict()` is that
        of torch's, its `load_state_dict()` takes one. After a step of a scheduler of torch's: `update_rates()`.

    Raises:
        InputError: it has no form here, or not with these options, or its parameters are not the cell's; each is named.
    """
    form = _form_of(given)
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    known = {parameter.name: parameter for parameter in net.trainable_params()}
    rules, places = [], []
    for number, group in enumerate(given.param_groups):
        _check(given, form, group)
        pairs = []
        for tensor in group["params"]:
            if not tensor.requires_grad:
                continue
            found = [name for name in names.get(id(tensor), ()) if name in known]
            if not found:
                called = names.get(id(tensor), [f"of shape {tuple(tensor.shape)}"])[0]
                raise InputError(
                    f"The optimizer's parameter {called} is none that the cell trains. Make the optimizer of the "
                    "parameters of the model that was ported: paritas.optimizer(optimizer, model, port.cell)"
                )
            pairs.append((tensor, known[found[0]]))
        rules.append(form.rule(f"paritas_optimizer.{number}", [weight for _, weight in pairs], group))
        places.append([tensor for tensor, _ in pairs])
    made = Optimizer(given, rules, places)
    made.read()
    return made


def _form_of(given: Any) -> _Form:
    for cls in type(given).__mro__:
        for known, form in FORMS.items():
            library, _, name = known.rpartition(".")
            if cls.__name__ == name and (cls.__module__.partition(".")[0] == library.partition(".")[0] or not library):
                if cls is not type(given) and type(given).step is not getattr(cls, "step", None):
                    break  # a subclass that steps in its own way
                return form
    raise InputError(
        f"{type(given).__module__.partition('.')[0]}'s {type(given).__name__} has no form for MindSpore's loops; "
        f"{', '.join(FORMS)} have. In torch's loops any optimizer trains: paritas.trainable(model), paritas.Trainer."
    )


def _check(given: Any, form: _Form, group: Mapping[str, Any]) -> None:
    odd = [
        f"{name}={value!r}"
        for name, value in group.items()
        if name not in _OTHERS and name not in form.options and value
    ]
    if odd:
        raise InputError(f"{type(given).__name__} has no form for MindSpore's loops with {', '.join(odd)}.")
