"""Mistakes that the user can mend. The command line prints the message alone and exits with status 2."""


class UserError(Exception):
    """Something in a file, an option or a config is wrong.

    The message names the file and place, the value found, what was expected and what to do.
    """
