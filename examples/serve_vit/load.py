# SPDX-License-Identifier: Apache-2.0
"""A server under more and more users: Locust's report for each number of them, a table, and curves.

    python load.py http://localhost:8501 picture.jpg --users 1,2,4,8,16,32,64 --seconds 20 --out load

Needs `pip install locust`, in any environment: --locust names its python. The curves are drawn by matplotlib.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def measured(host: str, picture: Path, users: int, seconds: int, out: Path, python: str) -> dict[str, float]:
    """What so many users met: requests per second, latencies in milliseconds, failures."""
    prefix = out / f"users-{users}"
    command = [python, "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "-H", host]
    command += ["-u", str(users), "-r", str(users), "-t", f"{seconds}s", "--csv", str(prefix), "--only-summary"]
    command += ["--html", f"{prefix}.html", "--exit-code-on-error", "0"]
    done = subprocess.run(
        command, env={**os.environ, "PICTURE": str(picture.resolve())}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"locust has ended with {done.returncode}:\n{done.stderr[-2000:]}")
    with open(f"{prefix}_stats.csv", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["Name"] == "Aggregated")
    return {
        "users": users,
        "requests": float(row["Request Count"]),
        "failures": float(row["Failure Count"]),
        "per second": float(row["Requests/s"]),
        **{f"p{n}": float(row[f"{n}%"]) for n in (50, 95, 99)},
    }


def drawn(rows: list[dict[str, float]], place: Path) -> None:
    """Latency and rate against the number of users, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    users = [row["users"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name in ("p50", "p95", "p99"):
        left.plot(users, [row[name] for row in rows], marker="o", label=name)
    left.set(xlabel="users at a time", ylabel="milliseconds", title="latency", ylim=(0, None))
    left.legend()
    right.plot(users, [row["per second"] for row in rows], marker="o", color="tab:green")
    right.set(xlabel="users at a time", ylabel="requests per second", title="throughput", ylim=(0, None))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(users, [f"{user:g}" for user in users])
        axes.grid(alpha=0.3)
    figure.savefig(place, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", help="as http://localhost:8501")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--users", default="1,2,4,8,16,32,64")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("load"))
    parser.add_argument("--locust", default=sys.executable, help="the python of the environment that has locust")
    given: Any = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    print("users  requests  failures  per second   p50   p95   p99 ms")
    for users in map(int, given.users.split(",")):
        row = measured(given.host, given.picture, users, given.seconds, given.out, given.locust)
        rows.append(row)
        print(
            f"{users:5}  {row['requests']:8.0f}  {row['failures']:8.0f}  {row['per second']:10.1f}"
            f"  {row['p50']:4.0f}  {row['p95']:4.0f}  {row['p99']:4.0f}",
            flush=True,
        )
    with (given.out / "load.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    drawn(rows, given.out / "load.png")
    if any(row["failures"] for row in rows):
        sys.exit("some requests have failed: see the reports")


if __name__ == "__main__":
    main()
