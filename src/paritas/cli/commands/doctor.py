# SPDX-License-Identifier: Apache-2.0
"""`paritas doctor`: which engines work here, and the command that installs what is missing."""

from __future__ import annotations

import json

from paritas.cli.options import Debug, Json, Quiet
from paritas.cli.outcome import DIVERGES, OK, print_json, say
from paritas.cli.progress import Stages


def doctor(quiet: Quiet = False, as_json: Json = False, debug: Debug = False) -> int:
    """Try every engine, each in a process of its own, and say what is missing and how to get it.

    Also the CPU features that decide whether OpenVINO computes in bf16, and what of Paritas is not installed. The exit
    code is 1 if the default engine does not work, or PyTorch where it is installed.

    **Examples**

      paritas doctor

      paritas doctor --json | jq .features
    """
    from paritas.apps.doctor import diagnose

    with Stages(quiet=quiet) as stages:
        stages("try every engine")
        found = diagnose(progress=stages.detail)
    if as_json:
        print_json(json.loads(found.to_json()))
    else:
        say(str(found))
    return OK if found.healthy else DIVERGES
