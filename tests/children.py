"""Processes that tests start, and that may be killed."""

import os


def in_child(function):
    """Run a function in a child, and return its process."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(int(function() or 0))
        except BaseException as error:  # noqa: BLE001
            os.write(2, repr(error).encode())
            os._exit(99)
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
