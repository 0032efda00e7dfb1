# SPDX-License-Identifier: Apache-2.0
"""The values that travel between the stages.

``capture`` makes a :class:`Program`, ``lower`` turns it into an :class:`Artifact` (a directory and its
:class:`Manifest`), ``run`` loads an artifact, ``verify`` compares. Everything but `Program` is plain
data that needs neither torch nor an engine, so that a saved port loads without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from paritas.printable import printable

if TYPE_CHECKING:
    import torch

    from paritas.files import Theirs

#: Raised whenever a port written by an older Paritas could be misread by this one.
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Frame:
    """A line of a function that was running."""

    file: str  # absolute path of the source file
    line: int
    function: str
    text: str = ""  # the stripped source line

    @property
    def place(self) -> str:
        """ "modeling_bert.py:192" """
        return f"{Path(self.file).name}:{self.line}"


def place_of(calls: Sequence[Frame]) -> str:
    """The innermost line of some frames, and where it was called from if that is in another file.

    "sdpa_attention.py:193 (called at modeling_bert.py:192)  attn_output = scaled_dot_product_attention("
    """
    if not calls:
        return ""
    outer, inner = calls[0], calls[-1]
    called = f" (called at {outer.place})" if outer.file != inner.file else ""
    return printable(f"{inner.place}{called}  {inner.text}".rstrip())


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a node of the graph comes from: its module, and the lines that were running outside torch.

    calls: from the line of the module's own forward to the innermost one; empty if unknown.
    """

    module: str  # path in the original, "encoder.layer.0.attention.self"; "" is the model itself
    module_class: str  # "BertSelfAttention"
    calls: tuple[Frame, ...] = ()

    @property
    def file(self) -> str:
        """Of the innermost line: an absolute path, "" if unknown."""
        return self.calls[-1].file if self.calls else ""

    @property
    def line(self) -> int:
        return self.calls[-1].line if self.calls else 0

    @property
    def text(self) -> str:
        return self.calls[-1].text if self.calls else ""

    def __str__(self) -> str:
        return place_of(self.calls) or "unknown source"


#: How `TensorSpec.counts` begins where the input is an order.
EACH = "each "


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, its dtype as NumPy spells it, and its dimensions.

    A dimension is an int where it is fixed and a string ("s0", or an expression such as "s0*s1") where
    it is dynamic. Equal strings mean equal sizes.
    """

    name: str
    dtype: str  # "int64", "float32", "bool", "bfloat16"
    dims: tuple[int | str, ...]
    high: int | None = None  # integer inputs: the first value that is too large (the vocabulary's size)
    default: int | None = None  # inputs that may be left out: what the original then takes in every place
    # inputs that are the lengths of padded sequences: the padded size, with "sorted " in front where they fall; of
    # those that are an order, every number below a size once: that size, with "each " in front
    counts: str = ""
    value: Any = None  # inputs that have one value in this port, since sizes follow from it: nested lists
    low: int | None = None  # integer inputs: the smallest value that is not too small; 0 if None and `high` is known
    never: tuple[int, ...] = ()  # values with which the original would divide by zero
    # states that the original forgets unless this size, the number of tokens that follow, is 1: zeros for any other
    forgets: str = ""
    ignored: int | None = None  # targets of a loss: what may stand there beside, for none

    def __str__(self) -> str:
        return printable(f"{self.name}: {self.dtype}[{', '.join(map(str, self.dims))}]")

    @property
    def counted(self) -> str:
        """The size that `counts` says, without how; "" where it says none."""
        return self.counts.removeprefix("sorted ").removeprefix(EACH)

    @property
    def is_order(self) -> bool:
        """Whether it holds every number below that size once."""
        return self.counts.startswith(EACH)


@dataclasses.dataclass(frozen=True)
class Note:
    """Something the user must know about this port: a frozen dimension, a cast, a dropped output."""

    stage: str  # "capture" | "lower" | "run" | "verify"
    text: str

    def __str__(self) -> str:
        return printable(f"{self.stage}: {self.text}")


@dataclasses.dataclass(frozen=True)
class Guard:
    """What has to hold of a call's sizes, since the model's code asked for it while it was captured.

    holds: in the grammar of `paritas.guards`, over the names of the dynamic dimensions: "s1 % 2 == 0".
    where: "model.py:12  x = F.pad(x, (0, 1)) if x.shape[1] % 2 else x", or "" if no line of the model's asked.
    """

    holds: str
    where: str = ""


@dataclasses.dataclass(frozen=True)
class Source:
    """The original: what to load to have it again."""

    kind: str  # "hub" | "directory" | "module" (an object in memory, which cannot be loaded again)
    id: str = ""  # hub id or absolute directory
    revision: str = ""
    subfolder: str = ""
    model_class: str = ""  # "transformers.models.bert.modeling_bert.BertModel"
    task: str = ""  # what its components are for, by optimum's name: "text2text-generation-with-past"
    component: str = ""  # of several networks that it is taken apart into, the one that was ported: "encoder"

    @property
    def name(self) -> str:
        """As reports call it: the hub id, or a directory without the path to it; "" for what was in memory only."""
        return PurePath(self.id).name if self.kind == "directory" else self.id


@dataclasses.dataclass(frozen=True)
class ModuleCall:
    """One call of one module of the original, and the graph's nodes that hold what it returned."""

    path: str  # "encoder.layer.0"
    module_class: str
    call: int  # 0 for the first call of this module, 1 for the second, ...
    outputs: tuple[str, ...]  # names of the nodes that leave the module


@dataclasses.dataclass(frozen=True)
class Program:
    """A captured model. `exported.graph` is in normal form: see ARCHITECTURE.md, "The graph"."""

    exported: torch.export.ExportedProgram
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Mapping[str, Any]  # how the flat outputs make the original's: see `run.values.build_output`
    origins: Mapping[str, Origin]  # node name -> origin
    modules: tuple[ModuleCall, ...]  # in the order in which they return
    #: Arguments of forward that were fixed while capturing ({"use_cache": False}).
    constants: Mapping[str, Any]
    source: Source
    notes: tuple[Note, ...] = ()
    #: What it was captured with.
    examples: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    #: Dynamic dimension -> its largest size.
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    #: As the checkpoint has them.
    weights: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    #: Of `exported.state_dict`, what the checkpoint's files have where a stand-in is: see `capture.stored`.
    stored: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)
    trainable: frozenset[str] = frozenset()  # those that are parameters which require gradients
    module_classes: Mapping[str, str] = dataclasses.field(default_factory=dict)  # path -> qualified class
    #: See `capture.forward_names`.
    arguments: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    results: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)  # likewise
    nesting: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # argument -> how inputs make it
    prepared: tuple[str, ...] = ()  # inputs that can be computed from the others: see `capture.prepared`
    written: tuple[str, ...] = ()  # inputs that the model writes into, and a port does not
    behind: tuple[Any, ...] = ()  # what a user's own code leaves for somebody to read in each call, and a port does not
    signature: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see `Manifest.signature`
    guards: tuple[Guard, ...] = ()  # what the graph takes for granted of the inputs' sizes
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # dynamic dimension -> the example's
    train: bool = False  # captured in training mode: see `capture.training`
    autocast: str = ""  # the dtype of `torch.autocast` around it: see `capture.autocast`

    @property
    def graph(self) -> torch.fx.Graph:
        return self.exported.graph

    def origin(self, node: str) -> Origin:
        return self.origins.get(node, Origin("", ""))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """`port.json`: everything there is to know about a port without loading its engine."""

    engine: str
    dtype: str  # of the weights and of the arithmetic: "float32", "float16", "bfloat16"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    structure: Mapping[str, Any]
    source: Source
    entry: str  # the engine's file: "openvino_model.xml", "modeling_bert.py"
    mode: str = ""  # MindSpore: "graph" | "pynative"
    target: str = "cpu"
    constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: Dynamic dimension -> its largest size.
    limits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    modules: tuple[ModuleCall, ...] = ()
    notes: tuple[Note, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Name -> {sha256, bytes}.
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    #: The engine's own, JSON values only.
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    nesting: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see `paritas.arguments`
    prepared: tuple[str, ...] = ()  # inputs that can be computed from the others
    # forward's parameters in their order -> {"default": what leaving it out means, "by": "position" | "name" | "rest"}
    signature: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    guards: tuple[Guard, ...] = ()  # what has to hold of the inputs' sizes: see `paritas.guards`
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # dynamic dimension -> the example's


@dataclasses.dataclass(frozen=True)
class ComponentsManifest:
    """`port.json` of a directory that holds several components, each a port of one graph.

    components: name -> its manifest, which lists no files. Its entry lies beside those of the others
    ("openvino_encoder_model.xml"), or in a folder of its name ("unet/openvino_model.xml").
    """

    components: Mapping[str, Manifest]
    task: str = ""
    #: Name -> {sha256, bytes}.
    files: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION


def entries(manifest: Manifest | ComponentsManifest) -> tuple[str, ...]:
    """The files that engines open."""
    if isinstance(manifest, Manifest):
        return (manifest.entry,)
    return tuple(one.entry for one in manifest.components.values())


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A directory that holds a port, and its manifest."""

    directory: Path
    manifest: Manifest
    modified: bool = False  # it differs from what was written, and the user said that this is all right
    held: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    """What was read when the files were checked, for the engine, which need not look again: see `contents.take`."""
    folder: str = ""  # of a component that has one: the last part of `directory`, with `port.json` above it

    own: bool = False  # this process has just written it, into a directory of its own

    theirs: Mapping[str, Theirs] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    """Files that are the checkpoint's own, by their names here."""

    @property
    def entry(self) -> Path:
        return self.directory / self.manifest.entry

    @property
    def root(self) -> Path:
        """Where its `port.json` is."""
        return self.directory.parent if self.folder else self.directory


@dataclasses.dataclass(frozen=True)
class ComponentArtifacts:
    """A directory that holds several components, and what all of them are."""

    directory: Path
    manifest: ComponentsManifest
    modified: bool = False
    held: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)
    own: bool = False  # see `Artifact.own`

    def each(self) -> dict[str, Artifact]:
        """The components by name: those in a folder have its files, the others all that lie beside each other."""
        return {name: self._one(name) for name in self.manifest.components}

    def _one(self, name: str) -> Artifact:
        manifest = self.manifest.components[name]
        front, inside, entry = manifest.entry.rpartition("/")
        if not inside:
            whole = dataclasses.replace(manifest, files=self.manifest.files)
            return Artifact(self.directory, whole, self.modified, self.held)

        def below(found: Mapping[str, Any]) -> dict[str, Any]:
            return {key.removeprefix(f"{front}/"): value for key, value in found.items() if key.startswith(f"{front}/")}

        own = dataclasses.replace(manifest, entry=entry, files=below(self.manifest.files))
        return Artifact(self.directory / front, own, self.modified, below(self.held), front)
