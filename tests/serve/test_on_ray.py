# SPDX-License-Identifier: Apache-2.0
"""The same answers from a Ray cluster of several nodes on this machine, one of which is killed.

What is asked of a replica that is killed in the middle the proxy asks another one: the client hears nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve import small

import paritas

pytestmark = pytest.mark.slow

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[serve]'")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
requests = pytest.importorskip("requests")
on_ray = pytest.importorskip("paritas.serve.on_ray")
batch = pytest.importorskip("paritas.serve.batch")

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
WORDS = small.WORDS[5:]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ray")
    paritas.port(small.bert(place / "original")).save(place / "port")
    return place / "port"


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # Of the proxy, which is slow to start where other tests run.
    patience = dict.fromkeys(("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"), "60")
    os.environ.update({on_ray.PROXY: "1", **on_ray.RETRY, **patience})
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    made.add_node(**NODE)
    made.add_node(**NODE)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            from ray import serve

            serve.shutdown()
        ray.shutdown()
        made.shutdown()


def _answers(out: Path) -> list[tuple[int, str]]:
    return [
        (row["row"], row["label"])
        for part in sorted(out.glob("part-*"))
        for row in parquet.read_table(part).to_pylist()
    ]


def test_a_table_is_answered_though_a_node_is_lost(bert: Path, cluster: Any, tmp_path: Path) -> None:
    texts = [f"{WORDS[n % 9]} {WORDS[n // 9 % 9]} {WORDS[n // 81 % 9]}" for n in range(1000)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "data.parquet")
    plan = batch.planned(bert, [tmp_path / "data.parquet"], part=40)
    batch.run(plan, tmp_path / "alone")
    lost: list[Any] = []

    def heard(done: int, of: int) -> None:
        if done >= of // 4 and not lost:
            lost.append(cluster.list_all_nodes()[-1])
            threading.Thread(target=cluster.remove_node, args=(lost[0], False)).start()

    outcome = on_ray.run_batch(plan, tmp_path / "out", cluster.address, heard, workers=3)
    assert lost and (outcome.rows, outcome.failed, outcome.parts) == (1000, 0, 25)
    assert _answers(tmp_path / "out") == _answers(tmp_path / "alone")
    (tmp_path / "out" / "part-000007.parquet").unlink()
    assert on_ray.run_batch(plan, tmp_path / "out", cluster.address).passed == 24
    assert _answers(tmp_path / "out") == _answers(tmp_path / "alone")


def _said(place: Path) -> str:
    with contextlib.suppress(OSError):
        return place.read_text()
    return ""


def test_a_server_goes_on_though_a_replica_is_killed(bert: Path, cluster: Any) -> None:
    from paritas.serve.registry import ModelConfig
    from paritas.serve.settings import Settings

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(rest_port=port, access_log=False)
    models, scale = [ModelConfig("bert", bert)], on_ray.Scale(2, 3, cores=0.5)
    on_ray.serve_on(models, settings, cluster.address, scale, proxies="HeadOnly")  # one machine has the port once
    url = f"http://127.0.0.1:{port}/v1/models/bert:predict"
    want = requests.post(url, json={"instances": ["good film"]}, timeout=60).json()
    assert set(want["predictions"][0]) == {"label", "confidence"}
    stop, wrong, again, right = threading.Event(), list[Any](), [0], [0]

    def ask() -> None:
        while not stop.is_set():
            for _ in range(20):
                try:
                    found = requests.post(url, json={"instances": ["good film"]}, timeout=60)
                except requests.ConnectionError:
                    again[0] += 1
                    continue
                if found.status_code >= 500:
                    again[0] += 1
                    time.sleep(0.05)
                    continue
                if found.json() == pytest.approx(want):
                    right[0] += 1
                else:
                    wrong.append(found.text)
                break
            else:
                wrong.append("no answer in 20 times")

    crowd = [threading.Thread(target=ask) for _ in range(8)]
    for thread in crowd:
        thread.start()
    time.sleep(3)
    before = right[0]
    processes = Path("/proc").glob("[0-9]*/cmdline")
    replicas = [int(place.parent.name) for place in processes if "ServeReplica:paritas" in _said(place)]
    assert len(replicas) >= 2
    os.kill(replicas[0], signal.SIGKILL)
    time.sleep(8)
    stop.set()
    for thread in crowd:
        thread.join()
    print(f"{right[0]} answers, {before} before the kill; {again[0]} asked again")
    assert not wrong and right[0] > before > 0
