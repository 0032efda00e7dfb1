# SPDX-License-Identifier: Apache-2.0
"""A port behind TensorFlow Serving's protocol and the Open Inference Protocol: `paritas serve`.

`model.Servable` is one version of one model with its pre- and post-processing; `batcher.Batcher` computes several
requests at once; `registry.Registry` has the versions that are loaded; `app.Application` and `grpc_server` are the
doors. Nothing here imports torch, unless what reads a port's inputs is transformers' alone.
"""
