# SPDX-License-Identifier: Apache-2.0
"""The process of `paged.Paged`: told in JSON lines which texts to go on with, and says which tokens came."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import openvino_genai as genai

from paritas.errors import first_line
from paritas.workers import answering

Answer = Callable[[dict[str, Any]], None]

#: Tokens in a page of keys and values, on the CPU.
PAGE = 32

#: Below it, a mask's number stands for "is not seen".
UNSEEN = -1e30


def why_not(path: str, context: int) -> str:
    """Why paged attention would not be this model's: a mask that is other than a triangle; "" where none is.

    Computes the masks alone, of one text of `context` tokens.
    """
    core = openvino.Core()
    model = core.read_model(path)
    masks: dict[tuple[str, int], openvino.Output] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ScaledDotProductAttention":
            if node.get_input_size() < 4:
                if not node.get_attributes().get("causal"):
                    return "each of its tokens sees all others"
                continue
            mask = node.input_value(3)
            masks[mask.get_node().get_name(), mask.get_index()] = mask
        elif node.get_type_name() == "ReadValue":  # a text that begins
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(node.input_value(0))
    if not masks:
        return ""
    seen = [ops.convert(ops.greater(mask, np.float32(UNSEEN)), "u8") for mask in masks.values()]
    # The scores are added to: a mask of other numbers, as of ALiBi's slopes, is no mask alone.
    flat = [
        ops.convert(ops.logical_or(ops.equal(mask, np.float32(0)), ops.less(mask, np.float32(UNSEEN))), "u8")
        for mask in masks.values()
    ]
    parameters = model.get_parameters()
    proof = core.compile_model(openvino.Model([ops.result(one) for one in [*seen, *flat]], parameters), "CPU")
    given = {
        "input_ids": np.zeros((1, context), np.int64),
        "attention_mask": np.ones((1, context), np.int64),
        "position_ids": np.arange(context, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    names = [parameter.output(0).get_any_name() for parameter in parameters]
    if strange := [name for name in names if name not in given]:
        return f"it is told more than a text: {', '.join(strange)}"
    found = list(proof([given[name] for name in names]).values())
    triangle = np.tril(np.ones((context, context), np.uint8))
    if not all(np.array_equal(np.broadcast_to(one, (1, 1, context, context))[0, 0], triangle) and one.shape[1] == 1
               for one in found[: len(masks)]):  # fmt: skip
        return f"a token does not see all before it, in {context} tokens"
    return "" if all(one.all() for one in found[len(masks) :]) else "its masks hold more than what is seen"


def _opened(task: dict[str, Any]) -> Any:
    if why := why_not(f"{task['directory']}/openvino_model.xml", task["context"]):
        raise ValueError(why)
    how = genai.SchedulerConfig()
    how.num_kv_blocks, how.max_num_seqs = task["pages"], task["together"]
    how.dynamic_split_fuse, how.enable_prefix_caching = True, True
    return genai.ContinuousBatchingPipeline(task["directory"], how, task["device"], task["properties"])


def _config(options: dict[str, Any]) -> Any:
    config = genai.GenerationConfig(apply_chat_template=False)
    for name, value in options.items():
        setattr(config, name, set(value) if name == "stop_token_ids" else value)
    config.validate()
    return config


_ENDS = {genai.GenerationFinishReason.STOP: "stop", genai.GenerationFinishReason.LENGTH: "length"}


def _pages(task: dict[str, Any]) -> int:
    """How many pages a text needs at most, with all that may follow it."""
    return -(-(len(task["ids"]) + task["options"]["max_new_tokens"]) // PAGE) + 1


def _run(pipeline: Any, pages: int, tasks: queue.Queue[dict[str, Any]], answer: Answer) -> None:
    """Steps as long as there are texts, and hears what is to begin and to end before each.

    A text begins when there are pages for all of it, in the order in which they came: openvino-genai itself takes more,
    and computes those again that it has had no place for, which with many texts comes to no end.
    """
    running: dict[int, Any] = {}
    needs: dict[int, int] = {}
    waiting: deque[dict[str, Any]] = deque()
    while True:
        told: list[list[Any]] = []
        heard = [] if running or waiting else [tasks.get()]
        while not tasks.empty():
            heard.append(tasks.get_nowait())
        for task in heard:
            if "cancel" not in task:
                waiting.append(task)
            elif (handle := running.pop(task["cancel"], None)) is not None:
                handle.cancel()
            else:
                waiting = deque(one for one in waiting if one["add"] != task["cancel"])
        needs = {number: need for number, need in needs.items() if number in running}
        while waiting and (not running or sum(needs.values()) + _pages(waiting[0]) <= pages):
            task = waiting.popleft()
            number = task["add"]
            try:
                ids = openvino.Tensor(np.array([task["ids"]], np.int64))
                running[number] = pipeline.add_request(number, ids, _config(task["options"]))
                needs[number] = _pages(task)
            except (RuntimeError, TypeError) as error:
                told.append([number, [], f"error: {first_line(error)}"])
        if running:
            pipeline.step()
        for number, handle in list(running.items()):
            tokens: list[int] = []
            end = ""
            while handle.can_read():
                for output in handle.read().values():
                    tokens += output.generated_ids
                    end = _ENDS.get(output.finish_reason, "")
            status = handle.get_status()
            if status == genai.GenerationStatus.IGNORED:
                end = "error: the text does not fit into the memory for keys and values"
            elif status != genai.GenerationStatus.RUNNING and not end:
                end = "stop"
            if tokens or end:
                told.append([number, tokens, end])
            if end:
                del running[number]
        if told:
            answer({"told": told})


def main() -> None:
    answer = answering()
    how = json.loads(sys.stdin.readline())
    try:
        pipeline = _opened(how)
    except Exception as error:  # noqa: BLE001 - whatever openvino-genai raises: the parent says it
        answer({"failed": first_line(error)})
        return
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()

    def hear() -> None:
        for line in sys.stdin:
            tasks.put(json.loads(line))
        os._exit(0)  # nobody is there any more

    threading.Thread(target=hear, daemon=True).start()
    answer({"ready": True})
    _run(pipeline, how["pages"], tasks, answer)


if __name__ == "__main__":
    main()
