# SPDX-License-Identifier: Apache-2.0
"""What two hand ports to MindSpore published of their own numerical parity. Data, as their documents have it."""

from __future__ import annotations

#: mindone.transformers, "Numerical Parity": max|ms-pt| / mean|pt|, MindSpore on Ascend against PyTorch 2.2 on a CPU.
#: model -> (MindSpore 2.2.10, MindSpore 2.3) of each column of ours; None is their "N.A.".
Pair = tuple[float | None, float | None]
ENCODERS: dict[str, dict[str, Pair]] = {
    "openai/clip-vit-large-patch14": {
        "mindspore pynative float16": (0.0385, 0.0385),
        "mindspore pynative float32": (0.0062, 8.30e-05),
        "mindspore graph float16": (0.0385, 0.0385),
        "mindspore graph float32": (0.0186, 7.81e-05),
    },
    "stabilityai/stable-diffusion-2-1": {
        "mindspore pynative float16": (0.0272, 0.0272),
        "mindspore pynative float32": (0.0053, 3.28e-05),
        "mindspore graph float16": (0.0340, 0.0268),
        "mindspore graph float32": (0.0084, 3.16e-05),
    },
    "stabilityai/stable-diffusion-xl-base-1.0(H)": {
        "mindspore pynative float16": (0.0212, 0.0212),
        "mindspore pynative float32": (0.0030, 1.55e-05),
        "mindspore graph float16": (0.0151, 0.0151),
        "mindspore graph float32": (0.0059, 1.72e-05),
    },
    "stabilityai/stable-diffusion-xl-base-1.0(bigG)": {
        "mindspore pynative float16": (0.0233, 0.0233),
        "mindspore pynative float32": (0.0023, 1.38e-05),
        "mindspore graph float16": (0.0208, 0.0258),
        "mindspore graph float32": (0.0039, 1.75e-05),
    },
    "google-t5/t5-small": {
        "mindspore pynative float16": (0.0488, 0.0636),
        "mindspore pynative float32": (0.0466, 6.72e-05),
        "mindspore graph float16": (None, 0.0488),
        "mindspore graph float32": (None, 4.88e-05),
    },
    "DeepFloyd/t5-v1_1-xxl": {
        "mindspore pynative float16": (0.0480, 0.0426),
        "mindspore pynative float32": (0.0349, 1.40e-04),
        "mindspore graph float16": (None, 0.0918),
        "mindspore graph float32": (None, 9.84e-05),
    },
    "google/flan-t5-large": {
        "mindspore pynative float16": (0.0032, 0.0025),
        "mindspore pynative float32": (0.0009, 4.55e-06),
        "mindspore graph float16": (None, 0.0023),
        "mindspore graph float32": (None, 4.55e-06),
    },
}

#: The columns of which there are figures.
PUBLISHED_COLUMNS = frozenset(column for figures in ENCODERS.values() for column in figures)

#: The MindSpore-CLIP Handbook, "Inference Difference", MindSpore in Graph mode on Ascend against PyTorch on a GPU:
#: (library, image encoder, checkpoint) -> output -> (mean|pt-ms|, mean(|pt-ms| / (|pt| + 1e-6))).
Differences = dict[str, tuple[float, float]]
CLIP: dict[tuple[str, str, str], Differences] = {
    ("clip", "ResNet50", "OpenAI"): {
        "image_features": (0.00014024, 0.0189662),
        "text_features": (0.00033297, 0.0099895),
        "probs": (0.00005080, 0.0061126),
    },
    ("clip", "ViT-B-32", "OpenAI"): {
        "image_features": (0.00071072, 0.0145557),
        "text_features": (0.00025951, 0.0081902),
        "probs": (0.00005770, 0.0052820),
    },
    ("open_clip", "ResNet50", "OpenAI"): {
        "image_features": (0.00008979, 0.0122642),
        "text_features": (0.00051654, 0.0231994),
        "probs": (0.00003248, 0.0030192),
    },
    ("open_clip", "ResNet50", "YFCC 15m"): {
        "image_features": (0.00055126, 0.0044998),
        "text_features": (0.00075564, 0.0151225),
        "probs": (0.00194565, 0.0080727),
    },
    ("open_clip", "ResNet50x64", "OpenAI"): {
        "image_features": (0.00090105, 0.0221315),
        "text_features": (0.00063068, 0.0125737),
        "probs": (0.00038379, 0.0092997),
    },
    ("open_clip", "ViT-B-32", "OpenAI"): {
        "image_features": (0.00092272, 0.0141578),
        "text_features": (0.00032371, 0.0121768),
        "probs": (0.00004114, 0.0072396),
    },
    ("open_clip", "ViT-B-32", "laion2B"): {
        "image_features": (0.00100795, 0.0183331),
        "text_features": (0.00052981, 0.0135017),
        "probs": (0.00000438, 0.0146012),
    },
    ("open_clip", "ViT-H-14", "LAION 2B"): {
        "image_features": (0.00145688, 0.0182030),
        "text_features": (0.00059179, 0.0090787),
        "probs": (0.00003984, 0.0028105),
    },
    ("open_clip", "ViT-bigG-14", "LAION 2B"): {
        "image_features": (0.01203312, 0.0885838),
        "text_features": (0.00274894, 0.0168820),
        "probs": (0.00024528, 0.0806613),
    },
}
