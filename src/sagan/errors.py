"""The error that a user can fix."""


class UserError(ValueError):
    """Report bad input: a file, option or folder that cannot be used as given.

    The message is one line that names the file or option, says what is wrong and what to do. The command line
    prints it without a traceback and exits with status 2. In Python it is a ValueError, as every error of the caller
    is: code that turns other ValueErrors into messages lets it pass first.
    """
