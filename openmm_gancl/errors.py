"""The one exception that means: the input or the environment is at fault, not the program."""


class InputError(ValueError):
    """Bad input or environment, told in one sentence that names the remedy (exit code 2)."""
