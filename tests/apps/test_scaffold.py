# SPDX-License-Identifier: Apache-2.0
"""What `paritas scaffold op` writes: sound files, a case that fails until the body is right, and nothing twice."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from paritas.apps.scaffold.operator import OPS, scaffold
from paritas.errors import InputError
from paritas.lower.mindspore import scaffold as mindspore

NAMES = Path(mindspore.NAMES)

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The parts of the tree that a scaffold reads and writes, and those that its test needs."""
    for part in ("src", "tests/ops"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def _texts(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in root.rglob("*.py")}


#: An operator, the file of its family, a line of its function, what its case must have; "" where another engine's
#: lowering has brought cases of it.
OPERATORS = [
    (
        "aten.special_airy_ai.default",
        "",
        "def special_airy_ai(emit: Emitter, x: Value) -> Value:",
        "tensor(20).with_(nan, inf, -inf)",
    ),
    ("aten.nonzero_numpy.default", "", "    # nonzero_numpy(Tensor self) -> Tensor[]", ""),
    (
        "aten.multi_margin_loss.default",
        "",
        "    p: Scalar = 1,\n    margin: Scalar = 1,\n    weight: Value | None = None,\n    reduction: int = 1,\n",
        "",
    ),
    (
        "aten.trapezoid.x",
        "reduce.py",
        "def trapezoid(emit: Emitter, y: Value, x: Value, *, dim: int = -1) -> Value:",
        "tensor(",
    ),
]


def test_scaffolds_are_sound_and_nothing_is_added_twice(checkout: Path) -> None:
    for target, file, line, argument in OPERATORS:
        made = scaffold(target, file=file, root=checkout)
        function, cases = made.edits[0], made.edits[-1]
        assert line in function.added, function.added
        assert argument in cases.added, cases.added
        assert bool(argument) == (len(made.edits) > 1)
        assert f'@lowers("{target}")' in function.added
        assert "raise emit.refuse" in function.added
        if file:
            assert function.path == OPS["mindspore"] / file
        made.write(checkout)
        for edit in made.edits:
            ast.parse((checkout / edit.path).read_text())
            assert (checkout / edit.path).read_text().count(edit.added) == 1
    assert not list(checkout.rglob(".*.py.*"))
    ruff = Path(sys.executable).with_name("ruff")
    if ruff.is_file():
        done = subprocess.run([ruff, "check", "src", "tests"], cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_a_rule_of_openvino_goes_to_its_own_family(checkout: Path) -> None:
    made = scaffold("aten.special_airy_ai.default", engine="openvino", calls="ops.erf", root=checkout)
    function, cases = made.edits
    assert function.path.parent == OPS["openvino"]
    assert '@lowers("aten.special_airy_ai.default")' in function.added
    assert "    return ops.erf(x)" in function.added
    assert "special_airy_ai" in cases.added
    ast.parse(function.text)
    with pytest.raises(InputError, match=r"add.Tensor is lowered to openvino already, by add at"):
        scaffold("aten.add.Tensor", engine="openvino", root=ROOT)


@pytest.mark.slow
def test_its_cases_fail_until_the_body_is_right(checkout: Path) -> None:
    pytest.importorskip("mindspore")
    made = scaffold("aten.special_round.default", root=checkout)
    made.write(checkout)
    home = checkout / made.edits[0].path
    refusal = '    raise emit.refuse("its lowering is a scaffold that waits for its body")\n'
    for body, code, words in (
        (refusal, 1, "its lowering is a scaffold that waits for its body"),
        ("    return self\n", 1, "x tolerance"),
        ('    return emit.call("ops.round", self)\n', 0, "passed"),
    ):
        home.write_text(home.read_text().replace(refusal, body))
        done = _ops_test(checkout, "special_round")
        assert done.returncode == code, done.stdout + done.stderr
        assert words in done.stdout
        home.write_text(home.read_text().replace(body, refusal))


def _ops_test(checkout: Path, words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "tests/ops/test_ops.py",
        "-k",
        words,
    ]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def test_a_function_of_mindspore_becomes_the_body_and_is_allowed(checkout: Path) -> None:
    made = scaffold("aten.special_bessel_j0.default", calls="ops.bessel_j0", root=checkout)
    assert '    return emit.call("ops.bessel_j0", self)' in made.edits[0].added
    assert [edit.path for edit in made.edits][1] == NAMES
    made.write(checkout)
    assert (checkout / NAMES).read_text().count("ops.bessel_j0") == 1
    known = scaffold("aten.special_bessel_j1.default", calls="ops.erf", root=checkout)
    assert NAMES not in [edit.path for edit in known.edits]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (
            "aten.gelu.default",
            r"aten.gelu.default is lowered to mindspore already, by gelu at .*activation.py:\d+",
        ),
        (
            "aten.special_airy.default",
            r"There is no operator 'aten.special_airy.default' in ATen. Is it .*airy_ai",
        ),
        ("aten.trapezoid.default", "is no overload: aten.trapezoid has aten.trapezoid.x, aten.trapezoid.dx"),
        ("aten.gcd.out", "aten.gcd.out is in no captured graph: it writes into an argument"),
        ("aten.gcd.int", "aten.gcd.int is in no captured graph: it computes no tensor"),
        ("gcd", "There is no operator 'gcd' in ATen"),
    ],
)
def test_what_cannot_be_scaffolded_is_said(target: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        scaffold(target, root=ROOT)


def test_an_unknown_family_names_those_that_are_there() -> None:
    with pytest.raises(InputError, match=r"There is no src/paritas/lower/mindspore/ops/none.py. The families: act"):
        scaffold("aten.special_bessel_j1.default", file="none.py", root=ROOT)


def test_an_installed_paritas_is_no_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import paritas

    monkeypatch.setattr(paritas, "__file__", str(tmp_path / "lib" / "paritas" / "__init__.py"))
    with pytest.raises(InputError, match="writes into a source checkout, and this Paritas is installed in"):
        scaffold("aten.gcd.default")
