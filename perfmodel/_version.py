"""The version of draftplan, stated once for the package, the command and the plans that it writes."""

__version__ = "0.1.0"
