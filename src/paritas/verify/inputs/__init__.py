# SPDX-License-Identifier: Apache-2.0
"""What a port is verified on: made from its manifest, kept from its capture, or looked for."""
