"""A disk that fails once: at the n-th call that changes it, or when a file has so many bytes."""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os

CALLS = ("mkdir", "open", "write", "fsync", "ftruncate", "chmod", "fchown", "replace", "unlink", "rmdir")
CODES = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """Counts the calls that change what lies below a folder, and fails one of them.

    Parameters
    ----------
    folder : below which calls count; those by a descriptor always do.
    fails : which call fails, from 1 on; none where absent.
    code : how it fails.
    """

    def __init__(self, folder, fails=None, code=errno.ENOSPC):
        self.folder, self.fails, self.code = str(folder), fails, code
        self.calls = []

    def step(self, name, path):
        """Count a call, or fail it."""
        self.calls.append(name)
        if len(self.calls) == self.fails:
            raise OSError(self.code, os.strerror(self.code), str(path))

    def counts(self, path, settings):
        """Whether a call is about the folder."""
        if isinstance(path, int) or settings.get("dir_fd") is not None:
            return True
        return os.fspath(path).startswith(self.folder)

    def wrapped(self, name, call):
        """The call, counted."""

        def step(path, *arguments, **settings):
            writes = name != "open" or (arguments and arguments[0] & _WRITING)
            if writes and self.counts(path, settings):
                self.step(name, path)
            return call(path, *arguments, **settings)

        return step

    def opened(self, call):
        """`open`, counted where it opens for writing; the stream's writes and its closing count too."""

        def step(path, mode="r", *arguments, **settings):
            writes = set(mode) & set("wax+") and self.counts(path, {})
            if writes:
                self.step("open", path)
            stream = call(path, mode, *arguments, **settings)
            if writes and "b" in mode:
                return _Stream(self, stream, path)
            return stream

        return step

    @contextlib.contextmanager
    def failing(self, monkeypatch):
        """Have the calls of the block counted."""
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, self.wrapped(name, getattr(os, name)))
            opened = self.opened(io.open)
            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            yield self


class _Stream(io.BufferedIOBase):
    """A binary stream whose first write, and whose end, may fail."""

    def __init__(self, disk, stream, path):
        self.disk, self.stream, self.path, self.begun = disk, stream, path, False

    def write(self, data):
        if not self.begun:
            self.begun = True
            self.disk.step("stream write", self.path)
        return self.stream.write(data)

    def close(self):
        if not self.stream.closed:
            try:
                self.disk.step("stream close", self.path)
            finally:
                self.stream.close()
        super().close()

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def readable(self):
        return self.stream.readable()

    def writable(self):
        return True

    def seekable(self):
        return self.stream.seekable()

    def seek(self, *arguments):
        return self.stream.seek(*arguments)

    def tell(self):
        return self.stream.tell()

    def read(self, *arguments):
        return self.stream.read(*arguments)

    def flush(self):
        if not self.stream.closed:
            self.stream.flush()

    def fileno(self):
        return self.stream.fileno()


@contextlib.contextmanager
def full_after(size):
    """Have every file end at so many bytes: a write beyond fails, as it does on a full disk."""
    import resource
    import signal

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, handler)
