# SPDX-License-Identifier: Apache-2.0
"""A process that judges samples: one JSON object a line in, one out. Engines may crash, so that it can be replaced."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

from tests.fuzz.sample import Sample


class Worker:
    """The other end: `ask` for a verdict; a worker that dies or hangs is started anew for the next."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.served = 0

    def ask(self, sample: Sample, engine: str, mode: str, limit: float = 120.0) -> dict[str, Any]:
        if self.process is None or self.served >= 400:  # engines keep what they have compiled
            self.close()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            self.served = 0
        process = self.process
        assert process.stdin and process.stdout
        self.served += 1
        process.stdin.write(json.dumps({"sample": sample.to_json(), "engine": engine, "mode": mode}) + "\n")
        process.stdin.flush()
        until = time.monotonic() + limit
        ready: list[Any] = []
        while not ready and time.monotonic() < until and process.poll() is None:
            ready = select.select([process.stdout], [], [], 1.0)[0]
        answer = process.stdout.readline() if ready else ""
        if not answer:
            why = (
                f"no answer within {limit:g} s" if process.poll() is None else f"the process died: {process.returncode}"
            )
            self.close()
            return {"outcome": "hung", "text": why, "feed": "", "special": "", "froze": False, "compared": 0}
        return json.loads(answer)

    def close(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.process.kill()
            self.process.wait()
            self.process = None


def main() -> None:
    """Answers until its input ends. What libraries print goes to the error stream."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ.setdefault("GLOG_v", "4")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["PARITAS_CACHE"] = ""
    import warnings

    import torch
    from tests.fuzz.judge import judge

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for line in sys.stdin:
        asked = json.loads(line)
        torch.manual_seed(0)
        verdict = judge(Sample.from_json(asked["sample"]), asked["engine"], asked["mode"])
        torch._dynamo.reset()
        answers.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
