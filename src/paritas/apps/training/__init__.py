# SPDX-License-Identifier: Apache-2.0
"""`paritas train SCRIPT`: a script of transformers or accelerate trains on an engine, in one process or several."""
