"""What serving engines write about speculation, brought to one form: one file per kind of log."""

from perfmodel.acceptance.logs.reading import LogFormat, read_log, read_logs

__all__ = ["LogFormat", "read_log", "read_logs"]
