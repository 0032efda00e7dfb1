# SPDX-License-Identifier: Apache-2.0
"""Two PyTorch models, of which one is to be the other written anew: compared module by module, in float64."""
