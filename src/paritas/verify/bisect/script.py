# SPDX-License-Identifier: Apache-2.0
"""A part that an engine computes wrongly, as a script that runs without Paritas: for the engine's bug tracker."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paritas import leftovers, store
from paritas.errors import LoweringError, PortError
from paritas.run.script import RESERVED, Side
from paritas.run.torch.part import Part, tensors_of
from paritas.verify.bisect.script_torch import Identifiers, one_line, torch_lines
from paritas.verify.bisect.trial import Laboratory, Outcome
from paritas.verify.compare import typical
from paritas.verify.tolerance import AS_ACCURATE, EPSILON

if TYPE_CHECKING:
    import torch

#: How long a script may take to be believed.
_CHECK_SECONDS = 600

DIVERGES = "It still diverges."


@dataclasses.dataclass(frozen=True)
class Script:
    """A script that was written: where, and what running it in a process of its own said ("" if it reproduces)."""

    file: Path
    tensors: Path
    doubt: str = ""

    @property
    def reproduces(self) -> bool:
        return not self.doubt


_HELPERS = '''
def cast(value, dtype):
    """Floats in `dtype`; integers and booleans as they are."""
    return value.to(dtype) if value.is_floating_point() else value


def distance(exact, want, got, typical):
    """max |got - exact| / (typical |exact| + |exact|); inf for another shape, other NaN, other infinities.

    Integers and booleans: how many differ, where float64 agrees with PyTorch.
    """
    if got.shape != want.shape:
        return float("inf")
    if got.dtype.kind in "biu":
        return float(np.count_nonzero((got != want) & (exact == want)))
    if np.iscomplexobj(want):
        exact, want, got = (np.stack([v.real, v.imag], -1) for v in (exact, want, got))
    exact, want, got = (np.asarray(v, np.float64) for v in (exact, want, got))
    keep = np.isfinite(want) & np.isfinite(got)
    if not np.array_equal(want[~keep], got[~keep], equal_nan=True):
        return float("inf")
    off = np.abs(got - exact)[keep] / np.maximum(typical + np.abs(exact)[keep], 1e-300)
    return float(off.max(initial=0.0))


def plain(value):
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
'''

_MAIN = """
def main():
    with torch.no_grad():
        exact, own = in_torch(torch.float64), in_torch(OWN)
    torch.set_default_dtype(torch.float32)
    model = build()
    {run}
    diverges = False
    for name in own:
        value, want, best = found[name], plain(own[name]), plain(exact[name])
        theirs = distance(best, want, want, TYPICAL[name])
        ours = distance(best, want, np.asarray(value), TYPICAL[name])
        allowed = max({as_accurate:g} * theirs, ROUNDINGS)
        wrong = not ours <= allowed
        diverges |= wrong
        print(f"{{name}}: {engine} is {{ours:.3g}} from float64, PyTorch {{theirs:.3g}}; allowed {{allowed:.3g}}"
              + ("  WRONG" if wrong else ""))
        if wrong and np.asarray(value).dtype.kind == "f":
            print(f"  NaN: {{int(np.isnan(value).sum())}} of {{value.size}} elements, "
                  f"PyTorch {{int(np.isnan(want).sum())}}")
    print({says!r} if diverges else "It does not diverge here.")
    return 1 if diverges else 0


if __name__ == "__main__":
    sys.exit(main())
"""

_CRASH = """try:
        found = run(model)
    except Exception as error:
        print(f"{engine} fails where PyTorch does not: {{type(error).__name__}}: {{error}}")
        print({says!r})
        return 1"""


def write_script(
    directory: Path,
    lab: Laboratory,
    nodes: Sequence[str],
    outcome: Outcome,
    side: Callable[[Part, Identifiers, str], Side],
    *,
    versions: str,
    remark: str = "",
    reserved: frozenset[str] = RESERVED,
) -> Script:
    """Write NODE.repro.py and NODE.safetensors into `directory`, run the script once, and say what that showed.

    NODE is the worst output of the part. remark: what else its reader must know. reserved: what no variable may be
    called. Raises `LoweringError` for what a script cannot express, `PortError` for a directory that cannot be written.
    """
    part = lab.part(nodes)
    worst = outcome.worst.node if outcome.worst is not None else part.outputs[-1]
    names = Identifiers(reserved)
    stem = Identifiers(frozenset()).of(worst)
    lines = torch_lines(lab.program, part, lab.recorded, names)
    own = own_tensors(lab, part, names)
    engine = side(part, names, stem)
    about = [f"{engine.engine}: {engine.about}. {versions}", *([remark] if remark else [])]
    text = _text(stem, lab, part, outcome, lines, list(own), names, engine, about)
    tensors = {**{name: _array(value) for name, value in engine.tensors.items()}, **own}
    file, data = directory / f"{stem}.repro.py", directory / f"{stem}.safetensors"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _save(tensors, data)
        for name, save in engine.files.items():
            save(str(directory / name))
        store.replace(file, text.encode("utf-8"))
    except OSError as error:
        raise PortError(f"{directory} cannot be written: {error.strerror or error}.") from None
    return Script(file, data, _checked(file))


def own_tensors(lab: Laboratory, part: Part, names: Identifiers) -> dict[str, torch.Tensor]:
    """What PyTorch's side reads: the values at the border and the weights, by variable."""
    found = {names.of(name): _array(lab.recorded.tensors[name]) for name in part.inputs}
    return found | {names.of(name): value.detach() for name, value in tensors_of(lab.program, part)}


def _array(value: np.ndarray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.array(value))


def _save(tensors: dict[str, torch.Tensor], file: Path) -> None:
    from safetensors.torch import save

    store.replace(file, save({name: value.clone().contiguous() for name, value in tensors.items()}))


def _text(
    stem: str,
    lab: Laboratory,
    part: Part,
    outcome: Outcome,
    lines: Sequence[str],
    own: Sequence[str],
    names: Identifiers,
    side: Side,
    about: Sequence[str],
) -> str:
    outputs = [names.of(name) for name in part.outputs]
    scale = {names.of(name): float(typical(lab.recorded.tensors[name])) for name in part.outputs}
    crash = outcome.kind == "crashes"
    run = _CRASH.format(engine=side.engine, says=DIVERGES) if crash else "found = run(model)"
    loads = [f'{name} = cast(TENSORS["{name}"], dtype)' for name in own]
    returned = ", ".join(f'"{name}": {name}' for name in outputs)
    body = [
        *_header(stem, lab, part, outcome, side, about),
        "import sys",
        "from pathlib import Path",
        "",
        *side.imports,
        "import numpy as np",
        "import torch",
        "from safetensors.torch import load_file",
        "",
        "HERE = Path(__file__).resolve().parent",
        f'TENSORS = load_file(HERE / "{stem}.safetensors")',
        f"OWN = torch.{lab.precision}  # the precision of the engine, and of PyTorch beside it",
        f"TYPICAL = {scale!r}  # magnitude of each output",
        f"ROUNDINGS = {lab.roundings(part) * EPSILON[lab.precision]:.6g}  # {lab.roundings(part):.3g} roundings of it",
        "",
        *_HELPERS.splitlines(),
        "",
        "",
        "def in_torch(dtype):",
        "    torch.set_default_dtype(dtype)",
        *("    " + line for line in (*loads, *lines)),
        f"    return {{{returned}}}",
        *side.body,
        "",
        *_MAIN.format(run=run, as_accurate=AS_ACCURATE, engine=side.engine, says=DIVERGES).splitlines(),
    ]
    return "\n".join(body).rstrip() + "\n"


def _header(stem: str, lab: Laboratory, part: Part, outcome: Outcome, side: Side, about: Sequence[str]) -> list[str]:
    # Nothing of the model in the first two lines: there Python looks for the encoding.
    found = [
        f"{side.engine} computes this part of a model differently from PyTorch.",
        f"    python {stem}.repro.py      (needs numpy, torch, safetensors and {side.engine.lower()})",
        "Exit status: 1 if it still diverges, 0 if it does not.",
        "",
        *(one_line(line, 300) for line in about),
        "",
        f"The part has {len(part.members)} operators:" if len(part.members) > 1 else "The part is one operator:",
    ]
    for name in part.members[:20]:
        info = lab.infos.get(name)
        if info is not None:
            at = info.origin
            where = f"in {at.module or 'the model'} ({at.module_class})" if at.module_class else ""
            found.append(f"  {one_line(name)} = {one_line(info.target)} {one_line(where)}")
            found += [f"      {one_line(str(at))}"] if at.file else []
    if len(part.members) > 20:
        found.append(f"  and {len(part.members) - 20} more")
    found.append("")
    if outcome.kind == "crashes":
        found.append(f"It raises: {one_line(outcome.reason, 300)}")
    for row in outcome.rows:
        if not row.agrees:
            what = row.fault or f"{row.port_error:.3g} from float64, {row.excess:.3g} times what is allowed"
            own = "" if row.torch_error != row.torch_error else f"; PyTorch's own error is {row.torch_error:.3g}"
            found.append(f"{one_line(row.node)}, {row.dtype}{list(row.shape)}: {one_line(what, 200)}{own}")
    return [f"# {line}".rstrip() for line in found]


def _checked(file: Path) -> str:
    """Run the script by itself, far from Paritas. "" if it reproduces what was found, else what it did instead."""
    with leftovers.temporary() as place:
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(file.resolve())],
                cwd=place, capture_output=True, text=True, timeout=_CHECK_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"it was still running after {_CHECK_SECONDS} s"
    said = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode == 1 and said and said[-1] == DIVERGES:
        return ""
    if done.returncode == 0:
        return "by itself it agrees with PyTorch"
    errors = [line for line in done.stderr.splitlines() if line.strip()]
    return f"it ended with status {done.returncode}: {one_line((errors or ['no word'])[-1], 200)}"


def versions_of(*packages: str) -> str:
    """ "openvino 2026.4.1, torch 2.13.0"."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


__all__ = ["DIVERGES", "LoweringError", "Script", "versions_of", "write_script"]
