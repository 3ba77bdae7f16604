"""The error that a user can fix."""


class UserError(Exception):
    """Report bad input: a file, option or folder that cannot be used as given.

    The message is one line that names the file or option, says what is wrong and what to do. The command line
    prints it without a traceback and exits with status 2.
    """
