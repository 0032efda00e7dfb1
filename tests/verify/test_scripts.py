# SPDX-License-Identifier: Apache-2.0
"""What bisection finds on real engines, and scripts that show it where Paritas cannot be imported."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from small_programs import Mlp
from typer.testing import CliRunner

import paritas
from paritas.cli.app import app
from paritas.errors import InputError
from paritas.verify.bisect.of_port import write_scripts
from paritas.verify.bisect.report import BisectReport

_WITHOUT_PARITAS = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paritas", "transformers"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Blocked())
try:
    import paritas
except ImportError:
    runpy.run_path(sys.argv[1], run_name="__main__")
"""


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def run_script(file: str | Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own that cannot import Paritas."""
    return subprocess.run(
        [sys.executable, "-I", "-c", _WITHOUT_PARITAS, str(file)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def imports_of(file: str | Path) -> set[str]:
    tree = ast.parse(Path(file).read_text())
    return {
        (node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }


@pytest.fixture(scope="module")
def noisy_mlp() -> Mlp:
    torch.manual_seed(0)
    model = Mlp().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.rand_like(parameter)
    return model


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory, noisy_mlp: Mlp) -> Callable[[str], Path]:
    known: dict[str, Path] = {}

    def port(engine: str) -> Path:
        pytest.importorskip(engine)
        if engine not in known:
            known[engine] = tmp_path_factory.mktemp(engine) / "port"
            paritas.port(noisy_mlp, engine, {"x": torch.randn(3, 8)}).save(known[engine])
        return known[engine]

    return port


@pytest.fixture
def edited(ports: Callable[[str], Path], tmp_path: Path) -> Callable[..., Any]:
    """A port with a change in its files, loaded nevertheless."""

    def load(engine: str, change: Callable[[Path], None], mode: str = "") -> Any:
        directory = tmp_path / "port"
        shutil.copytree(ports(engine), directory)
        change(directory)
        return paritas.load(directory, mode=mode, allow_modified=True)

    return load


def ir(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """A change of each operator of an OpenVINO model."""

    def apply(directory: Path) -> None:
        import openvino

        model = openvino.Core().read_model(directory / "openvino_model.xml")
        for op in model.get_ordered_ops():
            change(op)
        openvino.save_model(model, str(directory / "new.xml"), compress_to_fp16=False)
        del model
        for suffix in ("xml", "bin"):
            (directory / f"new.{suffix}").replace(directory / f"openvino_model.{suffix}")

    return apply


def another_eps(op: Any) -> None:
    if op.get_type_name() == "MVN":
        op.set_attribute("eps", 1e-2)


def another_weight(op: Any) -> None:
    """The first linear layer's weight, half of it."""
    import openvino.opset16 as ops

    if op.get_type_name() == "MatMul" and 8 in op.input_value(1).get_shape():
        half = ops.constant(op.input_value(1).get_node().get_data() * np.float32(0.5))
        op.input(1).replace_source_output(half.output(0))


def weight(name: str, how: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        weights = load_file(directory / "model.safetensors")
        weights[name] = how(weights[name]).contiguous()
        save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})

    return apply


def source(pattern: str, replacement: str) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        (file,) = directory.glob("modeling_*.py")
        text, count = re.subn(pattern, replacement, file.read_text())
        assert count, file.read_text()
        file.write_text(text)

    return apply


@pytest.mark.parametrize(
    ("engine", "mode", "change", "target"),
    [
        ("openvino", "", ir(another_eps), "aten.layer_norm.default"),
        ("mindspore", "graph", weight("down.weight", lambda w: w * 1.001), "aten.linear.default"),
        slow("openvino", "", ir(another_weight), "aten.linear.default"),
        slow("mindspore", "pynative", weight("norm.bias", torch.zeros_like), "aten.layer_norm.default"),
    ],
    ids=["openvino: an eps", "mindspore: a weight", "openvino: a weight", "mindspore: a bias"],
)
def test_a_planted_fault_is_found_and_its_script_shows_it(
    engine: str, mode: str, change: Any, target: str, edited: Any, noisy_mlp: Mlp, tmp_path: Path
) -> None:
    report = edited(engine, change, mode).bisect(original=noisy_mlp, out=tmp_path / "out")
    assert report.verdict == "found", report
    assert [node.target for node in report.nodes] == [target] and report.minimal
    assert report.script is not None and not report.script.doubt, report.script
    done = run_script(report.script.file)
    assert done.returncode == 1 and "still diverges" in done.stdout, done.stderr
    assert "edited since" in str(report) and "edited since" in Path(report.script.file).read_text()
    assert imports_of(report.script.file) <= {"sys", "pathlib", "numpy", "torch", "safetensors", engine}
    assert json.loads(report.to_json())["verdict"] == "found"
    for text in (target, f'case "{report.case}"', "parts tried", "random walk", report.script.file):
        assert text in str(report)


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_a_clean_port_leaves_nothing_to_bisect(engine: str, ports: Any, noisy_mlp: Mlp, tmp_path: Path) -> None:
    report = paritas.load(ports(engine)).bisect(original=noisy_mlp, out=tmp_path / "out")
    assert report.verdict == "clean" and not (tmp_path / "out").exists()
    assert "nothing to bisect" in str(report)


@pytest.mark.slow
def test_an_edit_of_the_file_is_found_in_the_file_and_said_to_be_no_fault_of_the_engine(
    edited: Any, noisy_mlp: Mlp, tmp_path: Path
) -> None:
    change = source(r"self\.norm\(gelu\(", "self.norm(ops.GeLU()(")
    report = edited("mindspore", change, "graph").bisect(original=noisy_mlp, out=tmp_path / "out")
    assert [node.target for node in report.nodes] == ["aten.gelu.default"], report
    assert "PyNative" in report.method and report.notes
    assert report.script is not None and "edited" in report.script.doubt


@pytest.mark.slow
def test_what_is_wrong_in_graph_mode_only_and_only_together_is_found(
    ports: Any, noisy_mlp: Mlp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mindspore")
    from paritas.run.mindspore.session import MindSporeSession

    right = MindSporeSession.run

    def run(self: MindSporeSession, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        found = right(self, feed)
        text = self._source
        fused = self.mode == "graph" and "layer_norm" in text.lower() and "gelu" in text.lower()
        return [v * np.float32(1.01) if fused and v.dtype.kind == "f" else v for v in found]

    monkeypatch.setattr(MindSporeSession, "run", run)
    port = paritas.load(ports("mindspore"), mode="graph")
    report = port.bisect(original=noisy_mlp, out=tmp_path / "out")
    assert {n.target for n in report.nodes} == {"aten.gelu.default", "aten.layer_norm.default"}, report
    assert "graph mode" in report.method
    assert report.script is not None and "by itself it agrees" in report.script.doubt
    assert paritas.load(ports("mindspore"), mode="pynative").bisect(original=noisy_mlp).verdict == "clean"


class Folded(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.up(x)).reshape(-1, 4) * 2.0


def test_a_crash_is_bisected_and_its_script_crashes(tmp_path: Path) -> None:
    pytest.importorskip("openvino")

    def sevens(op: Any) -> None:
        import openvino.opset16 as ops

        if op.get_type_name() == "Reshape":
            op.input(1).replace_source_output(ops.constant(np.array([-1, 7], np.int64)).output(0))

    model = Folded().eval()
    directory = tmp_path / "port"
    paritas.port(model, "openvino", {"x": torch.randn(3, 8)}).save(directory)
    ir(sevens)(directory)
    report = paritas.load(directory, allow_modified=True).bisect(original=model, out=tmp_path / "out")
    assert (report.verdict, report.kind) == ("found", "crashes")
    assert [node.target for node in report.nodes] == ["aten.reshape.default"]
    assert report.script is not None and not report.script.doubt
    done = run_script(report.script.file)
    assert done.returncode == 1 and "OpenVINO fails where PyTorch does not" in done.stdout


# --- a fault of OpenVINO 2026.4 ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny GPT-2, and its port with OpenVINO's own attention: NaN where a row of the mask is False throughout."""
    pytest.importorskip("openvino")
    from paritas.lower.openvino.ops import attention

    place = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = hf.GPT2Config(
        vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=40, bos_token_id=1, eos_token_id=2
    )
    hf.GPT2Model(config).save_pretrained(place / "gpt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "prepared", lambda emit, mask: (mask, None))
        paritas.port(place / "gpt2", "openvino").save(place / "raw")
    return place / "gpt2", place / "raw"


def left_padded() -> dict[str, np.ndarray]:
    mask = np.ones((2, 6), np.int64)
    mask[0, :2] = 0
    return {"input_ids": np.random.default_rng(0).integers(5, 90, (2, 6)), "attention_mask": mask}


def test_openvinos_attention_of_a_masked_row_is_found_in_a_model(gpt2: tuple[Path, Path], tmp_path: Path) -> None:
    report = paritas.load(gpt2[1]).bisect(left_padded(), tmp_path)
    assert [node.target for node in report.nodes] == ["aten.scaled_dot_product_attention.default"], report
    assert "NaN" in report.outputs[0].fault
    assert report.nodes[0].module == "h.0.attn" and "modeling_gpt2.py" in report.nodes[0].source
    assert report.script is not None and not report.script.doubt
    file = Path(report.script.file)
    text = file.read_text()
    assert "opset13.ScaledDotProductAttention" in text and "torch.ops.aten.scaled_dot_product" in text
    assert run_script(file).returncode == 1
    assert any("there is more to find" in note for note in report.notes)  # the second layer's
    tensors = load_file(report.script.tensors)
    masks = [name for name, value in tensors.items() if value.dtype == torch.bool]
    assert masks
    save_file({n: torch.ones_like(v) if n in masks else v for n, v in tensors.items()}, report.script.tensors)
    done = run_script(file)
    assert done.returncode == 0 and "does not diverge" in done.stdout, done.stdout + done.stderr


def test_the_nodes_that_lockstep_names_get_a_script_each(gpt2: tuple[Path, Path], tmp_path: Path) -> None:
    port = paritas.load(gpt2[1])
    feed = left_padded()
    found = port.verify(feed, "nodes")
    rows = write_scripts(port, found, feed, tmp_path / "out")
    assert [row.node for row in rows] == [row.node for row in found.guilty] and len(rows) == 2
    assert all(row.file and not row.doubt for row in rows)
    assert len({row.file for row in rows}) == 2
    with pytest.raises(InputError, match="is a port"):
        write_scripts(port, found, feed, gpt2[1])


@pytest.mark.slow
def test_more_guilty_nodes_than_scripts_are_said(
    gpt2: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paritas.verify.bisect.of_port.SCRIPTS", 1)
    port = paritas.load(gpt2[1])
    feed = left_padded()
    rows = write_scripts(port, port.verify(feed, "nodes"), feed, tmp_path / "out")
    assert [bool(row.file) for row in rows] == [True, False]
    assert "only the first 1 get one" in str(rows[-1])


@pytest.mark.slow
def test_what_no_call_expresses_lies_beside_the_script_as_a_small_model(
    gpt2: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paritas.errors import LoweringError

    def refused(*arguments: Any) -> Any:
        raise LoweringError("a graph inside")

    monkeypatch.setattr("paritas.run.openvino.source.source_of", refused)
    report = paritas.load(gpt2[1]).bisect(left_padded(), tmp_path)
    assert report.script is not None and not report.script.doubt
    assert {file.suffix for file in tmp_path.iterdir()} == {".py", ".safetensors", ".xml", ".bin"}
    assert run_script(report.script.file).returncode == 1


def test_a_search_without_time_says_so(gpt2: tuple[Path, Path]) -> None:
    report: BisectReport = paritas.load(gpt2[1]).bisect(left_padded(), seconds=0)
    assert report.verdict == "found" and not report.minimal and report.script is None
    assert "the time was up" in str(report)


@pytest.mark.slow
def test_the_commands_end_as_they_should(gpt2: tuple[Path, Path], tmp_path: Path) -> None:
    feed, clean = tmp_path / "feed.npz", tmp_path / "clean"
    np.savez(feed, **left_padded())
    paritas.port(gpt2[0], "openvino").save(clean)

    def command(*arguments: object) -> Any:
        return CliRunner().invoke(app, [*map(str, arguments), "--inputs", str(feed), "--quiet"])

    found = command("bisect", gpt2[1], "--out", tmp_path / "out", "--json")
    assert found.exit_code == 1, found.output
    answer = json.loads(found.stdout)
    assert answer["verdict"] == "found" and Path(answer["script"]["file"]).is_file()
    none = command("bisect", clean, "--out", tmp_path / "none")
    assert none.exit_code == 0 and "nothing to bisect" in none.output, none.output
    assert command("bisect", clean, "--out", gpt2[1]).exit_code == 2
    nodes = command("verify", gpt2[1], "--level", "nodes", "--repro", tmp_path / "nodes")
    assert nodes.exit_code == 1 and nodes.output.count(".repro.py") == 2, nodes.output


def test_names_in_an_openvino_file_do_not_become_code() -> None:
    openvino = pytest.importorskip("openvino")
    import openvino.opset16 as ops

    from paritas.errors import LoweringError
    from paritas.run.openvino.source import source_of
    from paritas.verify.bisect.script_torch import Identifiers

    evil = "x'); raise SystemExit(9)\n#"
    x = ops.parameter([-1, 4], openvino.Type.f32, name=evil)
    x.output(0).get_tensor().set_names({evil})
    y = ops.multiply(x, ops.constant(np.arange(4, dtype=np.float32)), name=evil)
    z = ops.softmax(ops.add(y, ops.constant(np.arange(40, dtype=np.float32).reshape(10, 4))), 1, name=evil)
    source = source_of(openvino.Model([z], [x], "m"), Identifiers(frozenset({"ops", "make"})).new)
    tree = ast.parse("\n".join(source.lines))
    assert all(isinstance(statement, ast.Assign) for statement in tree.body) and len(tree.body) == 7
    assert [value.size for value in source.constants.values()] == [40]
    assert not any(isinstance(node, ast.Raise) for node in ast.walk(tree))
    brain = ops.result(ops.parameter([1], openvino.Type.bf16))
    with pytest.raises(LoweringError, match="bf16"):
        source_of(openvino.Model([brain], [brain.input_value(0).get_node()], "m"), Identifiers(frozenset()).new)
