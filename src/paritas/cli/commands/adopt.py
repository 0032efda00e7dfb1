# SPDX-License-Identifier: Apache-2.0
"""`paritas adopt`: is a model that another converter made still the original?"""

from __future__ import annotations

from paritas.cli.commands.port import examples_of, show, verified
from paritas.cli.options import (
    AdoptedFile,
    AdoptedOriginal,
    Debug,
    Device,
    Examples,
    Force,
    Json,
    Level,
    LevelName,
    ModelClass,
    Out,
    OvConfig,
    Precision,
    Quiet,
    Revision,
    Subfolder,
)  # fmt: skip
from paritas.cli.outcome import DIVERGES, OK
from paritas.cli.progress import Stages
from paritas.cli.properties import properties_of


def adopt(
    model: AdoptedFile,
    original: AdoptedOriginal,
    out: Out,
    dtype: Precision = None,
    device: Device = "",
    ov_config: OvConfig = None,
    revision: Revision = None,
    subfolder: Subfolder = "",
    model_class: ModelClass = None,
    inputs: Examples = None,
    level: Level = LevelName.modules,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Take an OpenVINO model that another converter wrote for a port, and verify it against its original.

    It runs in the precision that OpenVINO chooses by itself on this machine, unless --dtype says another. Nodes are
    named where the converter kept their names, as OpenVINO's own does with a graph of torch.export.

    **Examples**

      paritas adopt openvino_model.xml --original openai-community/gpt2 --level nodes --out gpt2-theirs

      paritas adopt their.xml --original ./bert --input input_ids=2x16:int64 --dtype fp32 --out theirs
    """
    from paritas import store

    store.check_target(out, force=force)
    properties = properties_of(ov_config)
    given = examples_of(inputs) if inputs else None
    with Stages(f"{model}", quiet=quiet) as stages:
        stages("load")
        from paritas.adoption import adopt as adopted
        from paritas.cli.models import named

        made = adopted(
            model,
            named(original),
            given,
            dtype.value if dtype else None,
            device=device,
            ov_config=properties,
            revision=revision,
            subfolder=subfolder,
            model_class=model_class,
            progress=lambda stage: None if stage == "load" else stages(stage),
        )
        stages("verify")
        report = verified(made, level.value, original, stages)
        stages("save")
        made.save(out, force=force)
    show(made, out, report, stages.seconds, as_json)
    return OK if report.verdict == "agrees" else DIVERGES
