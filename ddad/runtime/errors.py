"""Every error that `ddad` raises on purpose: one sentence names the file or field, says
what is wrong and what to do.

Each is also the built-in error that it is a kind of, so that code which knows nothing
of `ddad` catches it where it would catch that one.
"""


class DdadError(Exception):
    """Something that its reader can mend; the command line prints it and exits with
    2.
    """


class SettingsError(DdadError, ValueError):
    """A setting that does not exist, or whose value does not fit."""


class DataError(DdadError, ValueError):
    """An image, a mask or a folder of them that cannot be used."""


class BackboneError(DdadError, RuntimeError):
    """A pretrained network that cannot be had; says what to pass instead."""


class ModelError(DdadError, ValueError):
    """A saved detector that is missing, damaged or does not fit."""


class WriteError(DdadError, OSError):
    """A folder that cannot be written to, or that another process writes to."""


class ExportError(DdadError, ValueError):
    """A detector that cannot be exported, or whose export does not do what it does."""


class ReceiptError(DdadError, ValueError):
    """A receipt that is missing, damaged or altered."""
