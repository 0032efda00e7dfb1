# SPDX-License-Identifier: Apache-2.0
"""`paritas train SCRIPT`: what is refused before anything is started, and how a process's end is told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paritas.apps.training import launch, zero
from paritas.apps.training.wish import Wish
from paritas.cli.app import app
from paritas.errors import InputError


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "recipe.py").write_text("print('trained')\n")
    return str(tmp_path / "recipe.py")


@pytest.mark.parametrize(
    ("wished", "message"),
    [
        ({"engine": "openvino"}, "openvino computes no gradients"),
        ({"processes": 0}, "--processes 0: a training has 1 or more"),
        ({"zero": 4}, "--zero 4: ZeRO has the stages 1, 2 and 3"),
        ({"zero": 2, "processes": 1}, "--zero 2 divides what one process would hold: pass --processes 2 or more"),
        ({"offload": ("optimizer",)}, "--offload is DeepSpeed's: pass --zero 2 or 3 too"),
        ({"zero": 1, "offload": ("optimizer",)}, "--offload optimizer: accelerate hands it on for the stages 2 and 3"),
        ({"zero": 2, "offload": ("param",)}, "--offload param: only stage 3 has its parameters apart, and --zero is 2"),
        ({"zero": 2, "offload": ("weights",)}, "--offload weights: what can leave the device are optimizer and param"),
        ({"engine": "mindspore", "zero": 1}, "--zero is DeepSpeed's, with --engine torch: MindSpore reads parameters"),
    ],
)
def test_what_does_not_go_together_is_refused(script: str, wished: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Wish(**{"script": script, "engine": "torch", "processes": 2, **wished}).check()  # type: ignore[arg-type]


def test_a_word_that_is_no_command_is_a_script() -> None:
    done = CliRunner().invoke(app, ["train", "nowhere.py", "--epochs", "3"])
    assert done.exit_code == 2
    assert "There is no file nowhere.py: paritas train takes a script of Python's, or clip." in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no configuration of DeepSpeed's"),
        ("[]", "is no configuration of DeepSpeed's"),
        ("{}", "asks for no ZeRO: its zero_optimization has the stage 0"),
        ('{"zero_optimization": {"stage": 3}}', "needs stage3_gather_16bit_weights_on_model_save: true"),
    ],
)
def test_a_configuration_that_divides_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "ds.json").write_text(text)
    with pytest.raises(InputError, match=message):
        zero.stage_of(str(tmp_path / "ds.json"))


def test_accelerate_is_told_of_deepspeed_in_either_way(script: str) -> None:
    plugin = zero.configuration(Wish(script, "torch", processes=2, zero=3, offload=("optimizer", "param")))
    assert plugin["distributed_type"] == "DEEPSPEED" and plugin["use_cpu"] is False
    told = plugin["deepspeed_config"]
    assert (told["zero_stage"], told["offload_optimizer_device"], told["offload_param_device"]) == (3, "cpu", "cpu")
    file = zero.configuration(Wish(script, "torch", processes=2, zero=2, config="/a/ds.json"))
    assert file["deepspeed_config"]["deepspeed_config_file"] == "/a/ds.json"


def test_what_trains_without_zero_is_found_out(script: str) -> None:
    """accelerate trains in plain data parallel where it leaves DeepSpeed out, and says nothing."""

    class Accelerator:
        distributed_type = "MULTI_CPU"

    with pytest.raises(Exception, match="ZeRO-2 in 2 processes was asked for, and is not what trains: accelerate says"):
        zero.check_active(Accelerator(), object(), Wish(script, "torch", processes=2, zero=2))


def test_the_process_that_failed_first_is_named(tmp_path: Path, script: str) -> None:
    wish = Wish(script, "torch", processes=2)
    assert launch._why(wish, tmp_path, [], 1, {1: -9}) == (
        "Process 1 of 2 was killed by signal 9, and the others were stopped: out of memory, perhaps."
    )
    (tmp_path / "0.reason").write_text("ValueError: no data (line 3 of recipe.py)")
    assert launch._why(wish, tmp_path, [], 1, {1: -9}).startswith("Process 1 of 2 was killed by signal 9")
    assert launch._why(wish, tmp_path, [], 1, {1: launch._UNKNOWN}).startswith("Process 1 of 2 was killed, and the")
    found = launch._why(wish, tmp_path, [], 1, {})  # the other was ended by its launcher
    assert found == "Process 0 of 2 failed, and the others were stopped: ValueError: no data (line 3 of recipe.py)"
    empty = tmp_path / "empty"
    assert launch._why(wish, empty, [], 1, {1: 3}) == (
        "Process 1 of 2 ended with 3, and said nothing, and the others were stopped."
    )
    assert launch._why(wish, empty, ["last words\n"], 3, {}).endswith("ended with 3: last words")


def test_how_a_process_ended_is_seen() -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        assert launch._how(process.pid) is None
        process.kill()
        while launch._how(process.pid) is None:
            pass
        assert launch._how(process.pid) == -9
    assert launch._how(process.pid) == launch._UNKNOWN


@pytest.mark.slow
def test_a_script_that_trains_nothing_is_told(script: str) -> None:
    with pytest.raises(Exception, match="trained nothing on torch: it gave no model to transformers' Trainer"):
        launch.train(Wish(script, "torch"), (), lambda line: None)


def test_a_wish_travels(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = Wish(script, "torch", processes=2, zero=3, offload=("param",))
    (name, value), *_ = wish.environment().items()
    monkeypatch.setenv(name, value)
    assert Wish.of_this_process() == wish and json.loads(value)["zero"] == 3
