"""The command line, `ddad ...`: a module a theme, in which the options of a command
stand beside the code they drive.

Torch and the rest are imported by the command that needs them, so that --help is quick.
"""
from .main import main, parser

__all__ = ["main", "parser"]
