# SPDX-License-Identifier: Apache-2.0
"""How many requests does `paritas serve` answer in a second, how soon, and what does it do when it is asked too much?

    python benchmarks/serving.py [--seconds 10] [--clients 1 8 64] [--port DIR --image FILE] [--out serving.json]
    python benchmarks/serving.py --seconds 0.5 --clients 4       # proves that all of it runs

Without `--port` the model costs 5 ms a call and next to nothing a row, so that the server is what is measured: a
request is an image of 13 kB in base64. Servers and clients are processes of their own, in turns: `batched` computes
requests together, `alone` each by itself. `overload` has ten times as many clients as the server has places: told are
the slowest refusal and the slowest answer. `--peer NAME=COMMAND` starts another server, whose command listens on
{port}.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import random
import resource
import shlex
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

#: Contender -> rows at once, and places in the queue.
CONTENDERS = {"batched": (32, 256), "alone": (1, 256), "overload": (32, 64)}
COST = 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--port", type=Path, help="the directory of a port that takes an image")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--requests", type=int, default=0, help="so many more, at most clients, for the memory")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    image = given.image.read_bytes() if given.image else random.Random(0).randbytes(9750)
    body = json.dumps({"instances": [base64.b64encode(image).decode()]}).encode()
    peers = dict(one.split("=", 1) for one in given.peer)
    rows: list[dict[str, Any]] = []
    for turn in range(given.rounds):
        for name in [*CONTENDERS, *peers]:
            row = _measured(name, peers.get(name, ""), given, body, last=turn == given.rounds - 1)
            rows.append({"contender": name, "round": turn, **row})
            print(json.dumps(rows[-1]), flush=True)
    most = max(given.clients)
    rates = {
        name: statistics.median(row[f"at {most}"]["rps"] for row in rows if row["contender"] == name)
        for name in ("batched", "alone", *peers)
    }
    found = {"rates": rates, "batched / alone": rates["batched"] / rates["alone"], "rows": rows}
    print(json.dumps({name: found[name] for name in ("rates", "batched / alone")}))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))
    return 0


def _measured(name: str, peer: str, given: argparse.Namespace, body: bytes, *, last: bool) -> dict[str, Any]:
    port = _free()
    largest, queue = CONTENDERS.get(name, (0, 0))
    ours = [sys.executable, __file__, "--serve", str(port), str(largest), str(queue), str(given.port or "")]
    began = time.monotonic()
    with subprocess.Popen(shlex.split(peer.format(port=port)) if peer else ours) as server:
        try:
            _until_ready(port, server, peer=bool(peer))
            found: dict[str, Any] = {"ready": round(time.monotonic() - began, 2)}
            load = _Load(port, body)
            if name == "overload":
                found["overload"] = asyncio.run(load.run(queue * 10, given.seconds))
            else:
                for clients in given.clients:
                    found[f"at {clients}"] = asyncio.run(load.run(clients, given.seconds))
            found["MB"] = _memory(server.pid)
            if given.requests and last and name == "batched":
                asyncio.run(load.run(max(given.clients), 1e9, given.requests))
                found["MB later"] = _memory(server.pid)
            return found
        finally:
            server.terminate()
            server.wait(60)


def _free() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _until_ready(port: int, server: subprocess.Popen[bytes], *, peer: bool) -> None:
    import urllib.error
    import urllib.request

    path = "/v2/health/ready" if peer else "/readyz"
    for _ in range(3000):
        if server.poll() is not None:
            raise SystemExit("The server ended.")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.02)
    raise SystemExit("The server did not become ready.")


def _memory(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


class _Load:
    """Clients that ask again as soon as they are answered, each on a connection of its own."""

    def __init__(self, port: int, body: bytes) -> None:
        self._port = port
        self._request = (
            b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )

    async def run(self, clients: int, seconds: float, requests: int = 0) -> dict[str, Any]:
        took: dict[str, list[float]] = {}
        wrong: list[str] = []
        left = [requests or 1 << 60]
        begin = time.perf_counter()
        await asyncio.gather(*(self._client(begin + seconds, left, took, wrong) for _ in range(clients)))
        spent = time.perf_counter() - begin
        answered = sorted(took.get("200", []))
        found: dict[str, Any] = {"rps": round(len(answered) / spent, 1), "wrong": len(wrong)}
        if answered:
            found |= {"p50": _ms(answered, 0.5), "p99": _ms(answered, 0.99), "slowest": _ms(answered, 1.0)}
        if refused := sorted(took.get("503", [])):
            found["refused"] = {
                "rps": round(len(refused) / spent, 1),
                "p50": _ms(refused, 0.5),
                "slowest": _ms(refused, 1),
            }
        return found | ({"first wrong": wrong[0][:200]} if wrong else {})

    async def _client(self, until: float, left: list[int], took: dict[str, list[float]], wrong: list[str]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while time.perf_counter() < until and left[0] > 0:
                left[0] -= 1
                begin = time.perf_counter()
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0])
                answer = await reader.readexactly(length)
                status = head[9:12].decode()
                took.setdefault(status, []).append(time.perf_counter() - begin)
                if status == "503":
                    await asyncio.sleep(0.1)
                elif status != "200" or b'"predictions"' not in answer:
                    wrong.append(f"{status} {answer!r}")
        except (OSError, asyncio.IncompleteReadError) as error:
            wrong.append(repr(error))
        finally:
            writer.close()


def _ms(times: list[float], share: float) -> float:
    return round(1000 * times[min(len(times) - 1, int(share * len(times)))], 2)


# --- the server's process ----------------------------------------------------------------------


class FixedCost:
    """A servable that costs the same for any number of rows."""

    answer = None
    labels = ()

    def __init__(self, directory: Path, name: str, version: int) -> None:
        from paritas.program import TensorSpec
        from paritas.serve.model import Signature, TensorInfo

        self.name, self.version, self.directory = name, version, directory
        self.reader = self
        self.inputs, self.outputs = (TensorSpec("x", "float32", ("s0",)),), (TensorSpec("y", "float32", ("s0",)),)
        self.port: Any = self
        image, label = TensorInfo("image", "bytes", (None,), "image"), TensorInfo("y", "float32", (None,))
        self.signatures = {"serving_default": Signature("serving_default", {"image": image}, {"y": label})}

    def signature(self, name: str = "") -> Any:
        return self.signatures[name or "serving_default"]

    def prepare(self, signature: Any, inputs: Any) -> Any:
        import numpy as np

        from paritas.serve.images import content_of

        return {"x": np.array([len(content_of(one)) for one in inputs["image"].tolist()], np.float32)}

    def compute(self, feed: Any) -> Any:
        time.sleep(COST)
        return {"y": feed["x"]}

    def finish(self, signature: Any, outputs: Any) -> Any:
        return outputs

    def close(self) -> None:
        pass


def serve_one(port: int, largest: int, queue: int, directory: str) -> None:
    """A server until SIGTERM."""
    from paritas.serve.metrics import Metrics
    from paritas.serve.registry import ModelConfig, Registry
    from paritas.serve.server import serve
    from paritas.serve.settings import Batching, Engine, Settings

    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    settings = Settings(
        rest_port=port, grpc_port=-1, access_log=False, poll=0, batching=Batching(largest=largest, queue=queue),
        engine=Engine(warm=bool(directory)),
    )  # fmt: skip
    place = Path(directory) if directory else Path(_empty())

    def registry_of(settings: Any, say: Any) -> Registry:
        how: dict[str, Any] = {} if directory else {"opened": FixedCost}
        return Registry([ModelConfig("m", place)], settings, metrics=Metrics(on=True), say=say, **how)

    serve(registry_of, settings, lambda line: None)


def _empty() -> str:
    import tempfile

    folder = tempfile.mkdtemp()
    Path(folder, "port.json").write_text("{}")
    return folder


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve_one(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        sys.exit(main())
