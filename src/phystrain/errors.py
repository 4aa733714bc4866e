"""Errors that a person can cause and mend."""


class UserError(Exception):
    """Something the user can put right. The message is one or two lines and names the mend.

    The command line prints it without a traceback and ends with exit code 2.
    """
