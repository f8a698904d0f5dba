"""The subcommands of ``ifog``, one module each: ``HELP``, ``DESCRIPTION``, arguments, ``main``."""
