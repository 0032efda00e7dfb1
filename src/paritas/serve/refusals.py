# SPDX-License-Identifier: Apache-2.0
"""Why a request is not answered, in the codes that gRPC has, and what HTTP says for each."""

from __future__ import annotations

from paritas.errors import ExtraMissing, InputError, ParitasError

#: gRPC's code by name -> the status of HTTP, as TensorFlow Serving maps them.
STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 503,
    "FAILED_PRECONDITION": 400,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "INTERNAL": 500,
}


class Refused(ParitasError):
    """A request that gets no answer.

    code: gRPC's, by name. status: of HTTP, where it is not the one that `STATUS` has. after: seconds after which to try
    again, 0 where that is of no use.
    """

    def __init__(self, code: str, message: str, *, status: int = 0, after: float = 0.0) -> None:
        super().__init__(message)
        self.code, self.after = code, after
        self.status = status or STATUS[code]


def refusal(error: BaseException) -> Refused:
    """Any error as a `Refused`: what the caller sent is INVALID_ARGUMENT, all else is ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InputError):
        return Refused("INVALID_ARGUMENT", str(error))
    if isinstance(error, ExtraMissing):
        return Refused("UNIMPLEMENTED", str(error))
    if isinstance(error, ParitasError):
        return Refused("INTERNAL", str(error))
    if isinstance(error, MemoryError):
        return Refused("RESOURCE_EXHAUSTED", "There is not enough memory for this request.", after=1.0)
    if isinstance(error, RecursionError):
        return Refused("INVALID_ARGUMENT", "The request is nested too deeply.")
    return Refused("INTERNAL", f"{type(error).__name__}: {error}")
