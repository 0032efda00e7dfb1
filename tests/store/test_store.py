# SPDX-License-Identifier: Apache-2.0
"""A port on disk is written whole or not at all, and nothing that was changed is opened."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paritas import contents as contents_of
from paritas import store
from paritas.errors import PortError, TamperedPort
from paritas.program import Artifact, Manifest, ModuleCall, Note, Source, TensorSpec
from paritas.store.manifest import manifest_from_json, manifest_to_json
from work import memory_of

MANIFEST = Manifest(
    engine="mindspore",
    dtype="float32",
    inputs=(TensorSpec("input_ids", "int64", ("s0", "s1"), high=30522), TensorSpec("x", "bool", ())),
    outputs=(TensorSpec("last_hidden_state", "float32", ("s0", "2*s1", 384)),),
    structure={"kind": "tuple", "items": [{"kind": "tensor", "index": 0}]},
    source=Source("hub", "org/näme", "abc", "", "transformers.models.bert.modeling_bert.BertModel"),
    entry="modeling_bert.py",
    mode="graph",
    constants={
        "use_cache": False,
        "size": (224, [1, (2,)]),
        "scale": float("inf"),
        "eps": 1e-12,
        "none": None,
    },
    modules=(ModuleCall("encoder.layer.0", "BertLayer", 0, ("add_3",)), ModuleCall("", "BertModel", 0, ())),
    notes=(Note("lower", "bfloat16 runs as float32"),),
    versions={"paritas": "0.1.0"},
    settings={"threads": 2},
)
FILES = {
    "modeling_bert.py": "import mindspore\n",
    "model.safetensors": "w" * 5000,
    "1_Pooling/config.json": "{}",
}


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return make(tmp_path / "work")


def make(directory: Path, text: str = "") -> Artifact:
    for name, content in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + text)
    return Artifact(directory, MANIFEST)


@pytest.fixture
def port(artifact: Artifact, tmp_path: Path) -> Path:
    return store.write(artifact, tmp_path / "out" / "port").directory


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def edit(port: Path, **changes: object) -> None:
    path = port / "port.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# --- the manifest ------------------------------------------------------------------------------


def test_manifest_round_trip_is_exact_and_stable() -> None:
    text = manifest_to_json(MANIFEST)
    again = manifest_from_json(text)
    assert again == MANIFEST and manifest_to_json(again) == text
    assert type(again.constants["size"]) is tuple and type(again.inputs[0].dims) is tuple
    assert text.endswith("}\n") and text.startswith('{\n  "format_version": 1,\n  "engine": "mindspore"')


@pytest.mark.parametrize(
    "value",
    [object(), {1: 2}, b"x", {"$tuple": [1]}],
    ids=["an object", "a number as a key", "bytes", "a reserved key"],
)
def test_manifest_refuses_what_json_cannot_say(value: object) -> None:
    with pytest.raises(PortError, match=r"constants\.a"):
        manifest_to_json(dataclasses.replace(MANIFEST, constants={"a": value}))


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(manifest_to_json(MANIFEST)), **fields})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (changed(format_version=99), "pip install -U paritas"),
        (changed(format_version=0), "Make the port again"),
        (changed(format_version="1"), "no format_version"),
        (changed(surprise=1), "unknown fields: surprise"),
        (changed(inputs=[{"name": "x", "dtype": "int64"}]), r"inputs\[0\] lacks: dims"),
        (changed(inputs=[{"name": "x", "dtype": "int64", "dims": [1.5]}]), r"dims\[0\] is float"),
        (changed(source="here"), "source is not an object"),
        (changed(files={"a": {"sha256": "zz", "bytes": 1}}), "no valid sha256"),
        (changed(entry=None), "entry is NoneType"),
        (manifest_to_json(MANIFEST)[:200], "not whole JSON"),
        ("[]", "not a JSON object"),
        ("", "not whole JSON"),
        ("[" * 100_000, "damaged"),
        ('{"format_version": 1, "format_version": 1}', "same key twice"),
        ('{"format_version": NaN}', "NaN"),
        ('{"format_version": 1}', "lacks: dtype, engine, entry"),
    ],
)
def test_manifest_is_read_strictly(text: str, says: str) -> None:
    with pytest.raises(PortError, match=says):
        manifest_from_json(text)


# --- write -------------------------------------------------------------------------------------


def test_what_is_written_is_read(artifact: Artifact, tmp_path: Path) -> None:
    written = store.write(artifact, tmp_path / "a" / "b")
    again = store.read(tmp_path / "a" / "b")
    assert again == written and again.entry.read_text() == FILES["modeling_bert.py"]
    assert list(again.manifest.files) == sorted(FILES)
    assert dataclasses.replace(again.manifest, files={}) == MANIFEST
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"]
    assert contents(artifact.directory).keys() == FILES.keys()  # it was copied


def test_an_existing_port_or_an_empty_directory_is_replaced(artifact: Artifact, port: Path) -> None:
    store.write(make(artifact.directory, "new"), port)
    assert store.read(port).entry.read_text().endswith("new")
    assert os.listdir(port.parent) == ["port"]
    (port.parent / "empty").mkdir()
    store.write(artifact, port.parent / "empty")
    store.read(port.parent / "empty")


def test_a_port_can_be_written_over_itself_and_through_a_link(port: Path) -> None:
    before = contents(port)
    store.write(store.read(port), port)
    (port.parent / "link").symlink_to(port)
    store.write(store.read(port), port.parent / "link")
    assert contents(port) == before and (port.parent / "link").is_symlink()


def test_anything_else_is_not_replaced(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(PortError, match=r"(?s)mine is not empty and not a port.*thesis\.txt"):
        store.write(artifact, tmp_path / "mine", force=True)
    with pytest.raises(PortError, match="is a file"):
        store.write(artifact, tmp_path / "mine" / "thesis.txt")
    with pytest.raises(PortError, match="a part of that path is a file"):
        store.write(artifact, tmp_path / "mine" / "thesis.txt" / "below")
    assert contents(tmp_path / "mine") == {"thesis.txt": b"years of work"}


def test_work_inside_a_port_is_not_lost(artifact: Artifact, port: Path) -> None:
    (port / "modeling_bert.py").write_text("my edit")
    (port / "notes.md").write_text("mine")
    with pytest.raises(PortError, match=r"(?s)lose work.*notes\.md was added.*modeling_bert\.py was edited"):
        store.write(artifact, port)
    assert (port / "modeling_bert.py").read_text() == "my edit"
    store.write(artifact, port, force=True)
    assert store.read(port).entry.read_text() == FILES["modeling_bert.py"]


def test_an_artifact_without_its_main_file_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    artifact.entry.unlink()
    with pytest.raises(PortError, match=r"lacks its main file 'modeling_bert\.py'"):
        store.write(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


FAILURES = [
    (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
    (PermissionError(errno.EACCES, "Permission denied"), "no permission to write in"),
    (OSError(errno.EROFS, "Read-only file system"), "no permission to write in"),
    (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    (KeyboardInterrupt(), None),
]


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("nth", range(12))
@pytest.mark.parametrize(("failure", "says"), FAILURES, ids=["space", "permission", "read-only", "disk", "ctrl-c"])
def test_a_failure_at_any_step_leaves_what_was_there(
    failure: BaseException,
    says: str,
    nth: int,
    existing: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "out" / "deep" / "port"
    if existing:
        store.write(make(tmp_path / "work"), target)
    before = contents(tmp_path / "out") if existing else {}
    new = make(tmp_path / "work", "new")
    steps = fail_at(nth, failure, monkeypatch)
    try:
        store.write(new, target)
    except (PortError, KeyboardInterrupt) as error:
        assert says is None or says in str(error)  # noqa: PT017
        in_place = target.exists() and store.read(target).entry.read_text().endswith("new")
        if in_place:  # the failure came after the last rename
            assert failure.args == ()
        elif existing:
            assert contents(tmp_path / "out") == before
        else:
            assert not (tmp_path / "out").exists()
    else:
        assert steps["done"] <= nth, "the failure was swallowed"
    monkeypatch.undo()
    assert not list(tmp_path.rglob(".*")), "temporary directories were left"


def fail_at(nth: int, failure: BaseException, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Make the nth system call of a write fail; for Ctrl-C, after it has had its effect."""
    steps = {"done": 0}

    def wrap(module: object, name: str) -> None:
        real = getattr(module, name)

        def call(*args: object, **kwargs: object) -> object:
            if name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode):  # type: ignore[arg-type]
                return real(*args, **kwargs)  # a file system may refuse this
            steps["done"] += 1
            if steps["done"] != nth + 1:
                return real(*args, **kwargs)
            if isinstance(failure, KeyboardInterrupt):
                with contextlib.suppress(OSError):
                    real(*args, **kwargs)
            raise failure

        monkeypatch.setattr(module, name, call)

    wrap(os, "rename")
    wrap(os, "fsync")
    wrap(Path, "mkdir")
    return steps


def test_ctrl_c_while_the_old_port_is_removed(port: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = shutil.rmtree, []

    def rmtree(path: Path, **kwargs: object) -> None:
        calls.append(path)
        if len(calls) == 1:
            raise KeyboardInterrupt
        real(path, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(KeyboardInterrupt):
        store.write(artifact, port)
    store.read(port)
    assert os.listdir(port.parent) == ["port"]


def test_no_space_is_said_before_anything_is_copied(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10))
    with pytest.raises(PortError, match=r"no space left.*0\.0 MB are needed"):
        store.write(artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class _Usage:
    def __init__(self, free: int):
        self.free = free


def _write_often(work: str, target: str) -> None:
    for _ in range(15):
        store.write(make(Path(work), work), target)


def test_two_writers_at_once_leave_one_whole_port(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    target = tmp_path / "port"
    writers = [context.Process(target=_write_often, args=(str(tmp_path / name), str(target))) for name in "ab"]
    store.write(make(tmp_path / "first"), target)
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        try:
            store.read(target)
            seen += 1
        except PortError as error:  # between two renames
            assert "There is no directory" in str(error) or "no port.json" in str(error), error  # noqa: PT017
    assert [writer.exitcode for writer in writers] == [0, 0] and seen
    store.read(target)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "first", "port"]


# --- read --------------------------------------------------------------------------------------


def test_changed_missing_and_longer_files_are_all_named(port: Path) -> None:
    (port / "model.safetensors").write_text("v" * 5000)
    (port / "modeling_bert.py").unlink()
    (port / "1_Pooling" / "config.json").write_text("{ }")
    with pytest.raises(TamperedPort) as caught:
        store.read(port)
    text = str(caught.value)
    assert "1_Pooling/config.json: 2 bytes expected, 3 found" in text
    assert "modeling_bert.py: missing" in text
    assert "model.safetensors: sha256" in text and "expected" in text
    assert "allow_modified=True" in text and "--allow-modified" in text
    assert store.read(port, allow_modified=True).manifest.engine == "mindspore"


def test_skipping_checksums_still_checks_sizes(port: Path) -> None:
    (port / "model.safetensors").write_text("v" * 5000)
    store.read(port, verify_checksums=False)
    (port / "model.safetensors").write_text("v")
    with pytest.raises(TamperedPort, match="5000 bytes expected, 1 found"):
        store.read(port, verify_checksums=False)


@pytest.mark.parametrize("name", ["evil.py", "sub/evil.so", "a.pkl", "b.pt", "pytorch_model.bin", "C.PY"])
def test_added_code_is_refused(port: Path, name: str) -> None:
    (port / name).parent.mkdir(exist_ok=True)
    (port / name).write_text("raise SystemExit('executed')")
    with pytest.raises(TamperedPort, match=f"{name}: not listed"):
        store.read(port)
    store.read(port, allow_modified=True)


def test_notes_and_bytecode_of_an_import_are_no_tampering(port: Path) -> None:
    (port / "__pycache__").mkdir()
    (port / "__pycache__" / "modeling_bert.cpython-311.pyc").write_bytes(b"x")
    (port / "notes.txt").write_text("mine")
    store.read(port)


OUTSIDE = ["/etc/passwd", "../secret", "a/../../secret", "", ".", "C:\\x", "a\\b"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("allow", [False, True])
def test_paths_that_lead_outside_are_refused_always(port: Path, name: str, allow: bool) -> None:
    files = json.loads((port / "port.json").read_text())["files"]
    edit(port, files={**files, name: {"sha256": "0" * 64, "bytes": 1}})
    with pytest.raises(TamperedPort, match="outside the port"):
        store.read(port, allow_modified=allow)
    edit(port, files=files, entry=name)
    with pytest.raises(TamperedPort, match="outside the port"):
        store.read(port, allow_modified=allow)


def test_links_and_pipes(port: Path, tmp_path: Path) -> None:
    moved = (port / "model.safetensors").rename(tmp_path / "moved")
    (port / "model.safetensors").symlink_to(moved)
    with pytest.raises(TamperedPort, match="is a link to"):
        store.read(port, allow_modified=True)
    (port / "model.safetensors").unlink()
    os.mkfifo(port / "model.safetensors")
    with pytest.raises(TamperedPort, match="no regular file"):
        store.read(port)
    (port / "model.safetensors").unlink()
    shutil.copy(moved, port / "weights")
    (port / "model.safetensors").symlink_to("weights")
    with pytest.raises(TamperedPort, match="is a link to weights"):  # Paritas writes none
        store.read(port)


def test_an_entry_without_checksum_is_refused(port: Path) -> None:
    files = json.loads((port / "port.json").read_text())["files"]
    del files["modeling_bert.py"]
    edit(port, files=files)
    with pytest.raises(TamperedPort, match=r"modeling_bert\.py: not listed(?s:.*)the main file, but not listed"):
        store.read(port)


def test_what_is_no_port_is_described(tmp_path: Path, port: Path) -> None:
    def says(directory: Path) -> str:
        with pytest.raises(PortError) as caught:
            store.read(directory)
        return str(caught.value)

    assert says(tmp_path / "nowhere") == f"There is no directory {tmp_path / 'nowhere'}."
    (tmp_path / "empty").mkdir()
    assert "is empty" in says(tmp_path / "empty")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert "transformers checkpoint" in says(tmp_path / "model")
    assert f"paritas port {tmp_path / 'model'} --engine" in says(tmp_path / "model")
    (tmp_path / "model" / "model_index.json").write_text("{}")
    assert "diffusers pipeline" in says(tmp_path / "model")
    assert "Give one of them: port" in says(port.parent)
    (tmp_path / "port.zip").write_text("")
    assert "archive" in says(tmp_path / "port.zip")
    assert "is a directory: give the one" in says(port / "port.json")
    (port / "port.json").write_bytes(b"\xff\xfe")
    assert "is not text" in says(port)
    port.rename(port.parent / ".port.old-1-ab")
    assert "the port is in" in says(port).replace("its port", "the port")


def test_a_large_port_is_read_in_pieces(tmp_path: Path) -> None:
    artifact = make(tmp_path / "work")
    (tmp_path / "work" / "model.safetensors").write_bytes(os.urandom(1 << 20) * 90)
    store.write(artifact, tmp_path / "port")
    assert memory_of(store.read, tmp_path / "port") < 16 << 20


# --- attach ------------------------------------------------------------------------------------


def test_reports_are_attached_and_replaced(port: Path) -> None:
    store.attach(port, "PARITY.md", "# agrees ✓\n")
    store.attach(port, "PARITY.md", "# diverges\n")
    written = store.attach(port, "parity.json", "{}")
    assert store.read(port) == written
    assert (port / "PARITY.md").read_text() == "# diverges\n"
    (port / "PARITY.md").write_text("# agrees\n")
    with pytest.raises(TamperedPort, match=r"PARITY\.md"):
        store.read(port)
    with pytest.raises(PortError, match=r"only parity\.json, PARITY\.md and PARITY\.html"):
        store.attach(port, "modeling_bert.py", "evil")
    with pytest.raises(PortError, match="There is no directory"):
        store.attach(port.parent / "none", "PARITY.md", "")


@pytest.mark.parametrize("nth", range(8))
def test_an_interrupted_attach_leaves_a_readable_port(port: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store.attach(port, "PARITY.md", "# one\n")
    steps = {"done": 0}
    for name in ("replace", "fsync"):
        real = getattr(os, name)

        def call(*args: object, real: object = real) -> object:
            steps["done"] += 1
            if steps["done"] == nth + 1:
                raise KeyboardInterrupt
            return real(*args)  # type: ignore[operator]

        monkeypatch.setattr(os, name, call)
    with contextlib.suppress(KeyboardInterrupt):
        store.attach(port, "PARITY.md", "# two\n")
    monkeypatch.undo()
    store.read(port)
    assert (port / "PARITY.md").read_text() in ("# one\n", "# two\n")
    assert not list(port.glob(".*"))


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, paritas.store.directory; print({'torch', 'transformers', 'mindspore'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_a_terminal_would_obey_is_shown_by_inspect(port: Path) -> None:
    from typer.testing import CliRunner

    from paritas.cli import app

    edit(port, notes=[{"stage": "run", "text": "\x1b]0;owned\x07"}])
    for options in ([], ["--json"]):
        said = CliRunner().invoke(app, ["inspect", str(port), *options])
        assert said.exit_code == 0
        assert "owned" in said.output
        assert "\x1b" not in said.output


@pytest.mark.parametrize("change", ["added", "edited"])
def test_a_port_that_was_changed_since_it_was_loaded_is_not_written_on(port: Path, change: str, tmp_path: Path) -> None:
    loaded = store.read(port)
    (port / ("modeling_bert.py" if change == "edited" else "other.py")).write_text("import os\n")
    with pytest.raises(TamperedPort, match="changed since the port was loaded"):
        store.write(loaded, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_inputs_that_are_kept_before_a_port_is_saved_do_not_seal_it(artifact: Artifact, tmp_path: Path) -> None:
    kept = store.keep(artifact, "regression/search-1.safetensors", b"x")
    assert bytes(contents_of.take(kept, "modeling_bert.py")) == FILES["modeling_bert.py"].encode()
    written = store.write(kept, tmp_path / "port")
    assert store.read(tmp_path / "port") == written
    assert "regression/search-1.safetensors" in written.manifest.files
