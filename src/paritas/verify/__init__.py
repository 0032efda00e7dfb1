# SPDX-License-Identifier: Apache-2.0
"""Verify: is a port still the model it was made from? Needs no torch to import, and prints no verdict by itself."""

from paritas.verify.compare import Comparison, compare, typical
from paritas.verify.inputs.generate import Case, generate
from paritas.verify.inputs.search import Budget, Found, Score, Sought, Space, search
from paritas.verify.modules import Inside, compare_modules
from paritas.verify.nodes import NodeInfo
from paritas.verify.report.components import ComponentReports, report_from_json
from paritas.verify.report.markdown import terminal
from paritas.verify.report.report import ParityReport
from paritas.verify.report.rows import Environment, ModuleParity, NodeParity, OutputParity
from paritas.verify.tolerance import Tolerance, whole_model
from paritas.verify.verify import LEVELS, verify

__all__ = [
    "LEVELS",
    "Budget",
    "Case",
    "Comparison",
    "ComponentReports",
    "Environment",
    "Found",
    "Inside",
    "ModuleParity",
    "NodeInfo",
    "NodeParity",
    "OutputParity",
    "ParityReport",
    "Score",
    "Sought",
    "Space",
    "Tolerance",
    "compare",
    "compare_modules",
    "generate",
    "report_from_json",
    "search",
    "terminal",
    "typical",
    "verify",
    "whole_model",
]
