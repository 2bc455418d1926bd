"""Errors that tell of the machine and not of a bug, as sentences."""

from __future__ import annotations

import errno

from HCCNetLib.inference import full_gpu
from HCCNetLib.records import Refusal

_NO_ROOM_OR_RIGHT = (errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT)


def refusal_of(error: Exception) -> Refusal | None:
    """What a person should read of an error; None if it is a bug."""
    if isinstance(error, Refusal):
        return error
    # torch's own way to say that the computer's memory is full is a RuntimeError.
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)):
        return Refusal("memory", "The memory does not suffice. Close other programs, or predict fewer exams at once.")
    if isinstance(error, OSError) and error.errno in _NO_ROOM_OR_RIGHT:
        return Refusal("cannot_write", f"{error.strerror}: check permissions and free space.")
    return full_gpu(error)
