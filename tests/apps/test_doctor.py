# SPDX-License-Identifier: Apache-2.0
"""The doctor, on this machine and on machines that are worse off."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from paritas.apps import doctor
from paritas.cli import app
from paritas.run.engine import engines

runner = CliRunner()


def test_every_engine_that_is_installed_really_computes():
    result = runner.invoke(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0, result.output
    assert found["healthy"]
    installed = {info.name for info in engines().values() if info.available}
    assert {trial["engine"] for trial in found["trials"] if trial["works"]} == installed
    for trial in found["trials"]:
        assert not trial["works"] or trial["precisions"]["float32"] == ""
    assert set(found["features"]) == set(doctor.FEATURES)
    assert found["machine"]["cores"] >= 1


@pytest.fixture
def scripts(monkeypatch):
    """Engines whose trials are these scripts: nothing heavy is started."""

    def use(**given: str) -> None:
        fine = 'print(\'{"precisions": {"float32": ""}}\')'
        monkeypatch.setattr(doctor, "script", lambda name: given.get(name, fine))

    return use


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("import a_module_that_is_not_there", "No module named 'a_module_that_is_not_there' (exit code 1)"),
        ("import os; os.kill(os.getpid(), 11)", "killed by signal 11"),
        ("assert 2 + 2 == 5, 'got 4'", "AssertionError: got 4"),
        ("pass", "it said nothing"),
    ],
)
def test_a_broken_default_engine_is_exit_code_1_with_reason_and_repair(scripts, script, problem):
    scripts(openvino=script)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "BROKEN" in result.stdout
    assert problem in result.stdout
    assert "pip install --force-reinstall openvino==" in result.stdout
    assert "NOT healthy: openvino must work." in result.stdout


def test_an_engine_that_hangs_is_given_up(scripts, monkeypatch):
    scripts(openvino="import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "TIMEOUT", 1.0)
    found = doctor.diagnose(["openvino"])
    assert not found.healthy
    assert "no answer in 1 s" in str(found)


def test_an_engine_that_is_not_installed_is_no_failure_unless_it_is_the_default(scripts, monkeypatch):
    import dataclasses

    known = engines()
    scripts()
    absent = {**known, "mindspore": dataclasses.replace(known["mindspore"], version="")}
    monkeypatch.setattr(doctor, "engines", lambda: absent)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "not installed" in result.stdout
    assert "pip install 'paritas[mindspore]'" in result.stdout
    monkeypatch.setattr(
        doctor, "engines", lambda: absent | {"openvino": dataclasses.replace(known["openvino"], version="")}
    )
    assert runner.invoke(app, ["doctor"]).exit_code == 1


def test_a_folder_named_like_an_engine_does_not_deceive_it(tmp_path, monkeypatch):
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise SystemExit('the wrong openvino')")
    monkeypatch.chdir(tmp_path)
    assert doctor.diagnose(["openvino"]).trials[0].works
