# SPDX-License-Identifier: Apache-2.0
"""The table: adding an operator adds a line to one of these families and nothing else."""

import cases_empty
import cases_exact
import cases_hard
import cases_images
import cases_nan
import cases_numbers
import cases_order
import cases_rare
import cases_reduce
import cases_scans
import cases_shape
import cases_siblings
import cases_special
import cases_systems

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
    *cases_special.SPECIAL,
    *cases_special.LOSSES,
    *cases_special.DISTANCES,
    *cases_special.SCATTERED,
    *cases_special.SEARCHED,
    *cases_siblings.SIBLINGS,
    *cases_images.CONVOLUTIONS,
    *cases_images.WINDOWS,
    *cases_images.RESIZED,
    *cases_images.SAMPLED,
    *cases_images.POOLS,
    *cases_images.CHANNELS,
    *cases_hard.EXPERTS,
    *cases_hard.COMPLEX,
    *cases_hard.FOURIER,
    *cases_hard.RECURRENT,
    *cases_hard.RANDOM,
    *cases_hard.TRIANGULAR,
    *cases_hard.FOUND,
    *cases_order.RUNNING,
    *cases_order.ORDER,
    *cases_order.DISTINCT,
    *cases_order.SIGNS,
    *cases_order.WHOLE,
    *cases_order.INNER,
    *cases_order.PRIMS,
    *cases_order.MARGINS,
    *cases_exact.ONE_EACH,
    *cases_empty.EMPTY,
    *cases_nan.NAN,
    *cases_rare.RARE,
    *cases_systems.SYSTEMS,
    *cases_systems.WITHOUT_KERNELS,
    *cases_scans.SCANS,
]
CASES += cases_siblings.aliased(CASES)
