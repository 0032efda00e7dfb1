# SPDX-License-Identifier: Apache-2.0
"""A batch that is padded on the left makes NaN of a GPT-2 on OpenVINO, and lockstep says where.

    python examples/left_padding.py

The padding's own positions see no token at all. PyTorch's attention makes 0 of such a row; that of OpenVINO 2026.4
makes NaN, which spreads to every token of the sequence. OpenVINO is what its own converter makes of the graph, in fp32
and in the precision that it chooses by itself; Paritas is a port, whose attention avoids it.
"""

from __future__ import annotations

import openvino
import torch
from transformers import GPT2Config, GPT2Model

import paritas

ROW = "{:<8} {:<9} {:<9} {}"


def main() -> None:
    """Convert a tiny random GPT-2 in both ways, and verify each at two precisions."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=99, n_embd=32, n_layer=3, n_head=4, bos_token_id=None, eos_token_id=None)
    model = GPT2Model(config).eval()
    ids = torch.randint(0, 99, (2, 8))
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, :3] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}

    ours = paritas.port(model, engine="openvino", inputs=inputs)
    exported = ours.program().exported
    theirs = openvino.convert_model(exported)

    print(ROW.format("made by", "computes", "verdict", "guilty"))
    for made_by, port in (
        ("OpenVINO", paritas.adopt(theirs, model, inputs, dtype="float32")),
        ("OpenVINO", paritas.adopt(theirs, model, inputs)),
        ("Paritas", ours),
        ("Paritas", ours.to("openvino", dtype="bfloat16")),
    ):
        report = port.verify(inputs, level="nodes")
        for guilty in [f"{row.target}, {row.module}, {row.source}" for row in report.guilty] or ["none"]:
            print(ROW.format(made_by, report.environment.precision, report.verdict, guilty))


if __name__ == "__main__":
    main()
