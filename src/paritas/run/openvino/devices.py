# SPDX-License-Identifier: Apache-2.0
"""On which device OpenVINO computes a port, and with which of its properties.

A property that changes what is computed is part of a port, as its precision is: it is noted, verified with it, kept in
`port.json` and the same wherever the port is loaded. All others, threads and streams, are for one process.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops

from paritas.errors import DeviceMissing, EngineError, InputError, PortError, did_you_mean, first_line
from paritas.lower.openvino.configuration import NUMBERS, lasting

#: OpenVINO's own choice among the devices.
AUTO = "AUTO"

#: Those that compile models of fixed sizes only.
_FIXED_SIZES = ("NPU",)

#: What a machine needs beside OpenVINO.
_DRIVERS = {
    "GPU": "A GPU needs Intel's OpenCL driver (intel-opencl-icd, libOpenCL.so.1) and the right to open /dev/dri.",
    "NPU": "An NPU needs Intel's driver for it and the right to open /dev/accel.",
}

#: Properties that say in which precision is computed, which is said otherwise.
_PRECISION = {"INFERENCE_PRECISION_HINT", "EXECUTION_MODE_HINT"}

#: Properties that change how fast, and with what of the machine.
_SPEED = {
    "PERFORMANCE_HINT", "PERFORMANCE_HINT_NUM_REQUESTS", "NUM_STREAMS", "INFERENCE_NUM_THREADS",
    "COMPILATION_NUM_THREADS", "ENABLE_CPU_PINNING", "ENABLE_CPU_RESERVATION", "ENABLE_HYPER_THREADING",
    "SCHEDULING_CORE_TYPE", "MODEL_DISTRIBUTION_POLICY", "MODEL_PRIORITY", "CACHE_DIR", "CACHE_MODE", "LOG_LEVEL",
    "PERF_COUNT", "DEVICE_ID", "ENABLE_MMAP", "TBB_PARTITIONER", "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE",
    "ENABLE_TENSOR_PARALLEL", "GPU_QUEUE_PRIORITY", "GPU_QUEUE_THROTTLE", "GPU_HOST_TASK_PRIORITY",
    "GPU_ENABLE_LOOP_UNROLLING", "NPU_TURBO", "NPU_TILES", "NPU_MAX_TILES",
}  # fmt: skip


@functools.cache
def core() -> openvino.Core:
    return openvino.Core()


# --- devices -----------------------------------------------------------------------------------


def found() -> dict[str, str]:
    """The devices of this machine as OpenVINO names them: "CPU", "GPU" or "GPU.0", "NPU"; with their full names."""
    names = {}
    for device in core().available_devices:
        try:
            names[device] = str(core().get_property(device, "FULL_DEVICE_NAME")).strip()
        except RuntimeError:  # its plugin is there, its driver is not
            continue
    return names


def named(asked: str) -> str:
    """A device as OpenVINO calls it: "gpu" is "GPU", "" is "CPU". Raises `DeviceMissing`."""
    device = asked.strip().upper() or "CPU"
    if device == "CPU":  # looking for others loads the libraries of all of them
        return device
    here = found()
    for one in _members(device):
        if not any(one in (name, name.partition(".")[0]) for name in here):
            raise DeviceMissing("openvino", one or asked, [*here, AUTO], here, _DRIVERS.get(one.partition(".")[0], ""))
    return device


def _members(device: str) -> list[str]:
    """The devices that are meant: "AUTO:GPU,CPU" means two, AUTO by itself whichever there are."""
    if device == AUTO:
        return []
    if device.startswith(f"{AUTO}:"):
        return [one.strip() for one in device.partition(":")[2].split(",")]
    return [device]


def capabilities(device: str) -> set[str]:
    """ "FP32", "BF16", ...: what all the devices have that are meant."""
    members = _members(device) or list(found())
    return set.intersection(*(set(core().get_property(one, "OPTIMIZATION_CAPABILITIES")) for one in members))


def needs_fixed_sizes(device: str) -> bool:
    return any(one.partition(".")[0] in _FIXED_SIZES for one in _members(device.upper()))


# --- properties --------------------------------------------------------------------------------


def checked(given: Mapping[str, Any], device: str) -> dict[str, str]:
    """Properties as text. Raises `InputError` for those that are none, not the device's, or of a value that is none."""
    properties = {str(name): _text(value) for name, value in given.items()}
    known = {*_SPEED, *NUMBERS}
    for name in properties:
        if name in _PRECISION:
            raise InputError(
                f"ov_config: {name} would change the precision that is verified. Say dtype= where the model is ported, "
                "precision= where the port is loaded."
            )
        if name not in known:
            close = difflib.get_close_matches(name.upper(), known, 1)
            meant = did_you_mean(close) or f" These are: {', '.join(sorted(known))}."
            raise InputError(f"ov_config: {name} is no property that Paritas passes to OpenVINO.{meant}")
    if properties:
        _try(properties, device)
    return properties


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "YES" if value else "NO"
    return str(value)


def _try(properties: Mapping[str, str], device: str) -> None:
    """Compile a model of one operator so: a value that is none says itself now, and not after the capture."""
    x = ops.parameter([1, 4], np.float32, name="x")
    model = openvino.Model([ops.result(ops.relu(x))], [x], "tried")
    tried = {name: value for name, value in properties.items() if name != "CACHE_DIR"}
    try:
        core().compile_model(model, device, {**for_device({}, device), **tried})
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
        raise InputError(f"ov_config: {' '.join(lines)[:300] or first_line(error)}") from None


def together(kept: Any, given: Mapping[str, str]) -> dict[str, str]:
    """What a port was verified with, and what is asked for where it is loaded.

    kept: `port.json` says it, so that it may be anything. Raises `PortError`, and `InputError` for what would change
    what the port computes.
    """
    if not isinstance(kept, dict) or not all(n in NUMBERS and isinstance(v, str) for n, v in kept.items()):
        raise PortError("port.json asks for a configuration of OpenVINO that is none: make the port again.")
    for name, value in lasting(given).items():
        if kept.get(name) != value:
            was = f"{name}={kept[name]}" if name in kept else f"without {name}"
            raise InputError(
                f"ov_config: {name}={value} changes what this port computes ({NUMBERS[name].format(value)}), and it "
                f"was verified {'with ' if name in kept else ''}{was}. Port the original again with it: "
                f"paritas port SOURCE --ov-config {name}={value}"
            )
    return {**kept, **given}


def for_device(properties: Mapping[str, str], device: str) -> dict[str, Any]:
    """What we ask of the CPU, as far as a device has it. AUTO decides once, not after some calls on the CPU."""
    if device == "CPU":
        return dict(properties)
    if device.startswith(AUTO):
        members = _members(device) or list(found())
        each = {one: for_device(properties, one) for one in members}
        shared = {n: v for n, v in properties.items() if n in ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT")}
        return {**shared, "DEVICE_PROPERTIES": each, "ENABLE_STARTUP_FALLBACK": "NO"}
    try:
        able = set(core().get_property(device, "SUPPORTED_PROPERTIES"))
    except RuntimeError as error:
        raise EngineError(f"OpenVINO's {device} does not answer: {first_line(error)}") from None
    return {name: value for name, value in properties.items() if name in able}
