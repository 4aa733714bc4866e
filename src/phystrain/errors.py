"""Errors that a person can cause and mend."""


class UserError(Exception):
    """Something the user can put right. The message is one or two lines and names the mend.

    The command line prints it without a traceback and ends with exit code 2.
    """


class LoneError(UserError):
    """A mistake that this one of several processes is to tell, whichever it is."""


class Echo(UserError):  # noqa: N818 - nobody is told of it
    """What another process tells already: this one ends without a word, with the same exit code."""


def lacks_memory(error: BaseException) -> bool:
    """Whether Python, numpy or torch could not get the memory it asked for, on CPU or GPU."""
    named = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    return named or isinstance(error, MemoryError)
