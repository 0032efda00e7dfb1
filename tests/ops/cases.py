# SPDX-License-Identifier: Apache-2.0
"""The table: adding an operator adds a line to one of these families and nothing else."""

import cases_numbers
import cases_reduce
import cases_shape

CASES = [
    *cases_numbers.ARITHMETIC,
    *cases_numbers.FUNCTIONS,
    *cases_numbers.ACTIVATIONS,
    *cases_numbers.LOGIC,
    *cases_numbers.CHOICES,
    *cases_shape.VIEWS,
    *cases_shape.PIECES,
    *cases_shape.MADE,
    *cases_shape.MOVED,
    *cases_shape.LOOKED_UP,
    *cases_reduce.REDUCED,
    *cases_reduce.PRODUCTS,
    *cases_reduce.NORMS,
    *cases_reduce.LAYERS,
]
