"""Bytes to read from, whatever they come from: a path, bytes in memory, or an open file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from encoders.errors import AudioError


class Source:
    """A seekable binary file whose read errors are kept instead of raised.

    The decoders call back into it from C, where an exception would be lost or printed; they see
    an early end of file, and the caller finds the reason in :attr:`error`.

    Parameters
    ----------
    source : str or os.PathLike or bytes or binary file
        A file that is passed in stays open.

    Raises
    ------
    AudioError
        Stage ``"open"``.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes | BinaryIO) -> None:
        self.error: str | None = None
        self.path: str | None = None
        self._owned = True
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._file: BinaryIO = io.BytesIO(source)
        elif isinstance(source, (str, os.PathLike)):
            # Absolute, since libsndfile reads "-" as standard input.
            self.path = str(Path(source).absolute())
            self._file = _open(Path(source))
        else:
            self._owned = False
            self._file = source
        try:
            self.size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            if not isinstance(self._file.read(0), bytes):
                raise ValueError("it gives text")
        except (AttributeError, OSError, ValueError) as error:
            self.close()
            raise AudioError("open", f"not a seekable binary file ({_text(error)})") from error
        if self.size == 0:
            self.close()
            raise AudioError("open", "the file is empty (zero bytes)")

    def read(self, n: int = -1) -> bytes:
        """Up to ``n`` bytes; none after a read error."""
        if self.error is not None:
            return b""
        try:
            return self._file.read(n)
        except Exception as error:  # a remote file system may raise anything
            self.error = _text(error)
            return b""

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        """Move, and give the new position."""
        try:
            return self._file.seek(position, whence)
        except Exception as error:
            self.error = self.error or _text(error)
            return self._file.tell()

    def tell(self) -> int:
        """The position, in bytes."""
        return self._file.tell()

    def read_at(self, position: int, n: int) -> bytes:
        """Up to ``n`` bytes from ``position``."""
        self.seek(position)
        return self.read(n)

    def close(self) -> None:
        """Close the file unless it was passed in open."""
        if self._owned:
            self._file.close()


def _open(path: Path) -> BinaryIO:
    try:
        if path.exists() and not path.is_file():
            kind = "directory" if path.is_dir() else "special file"
            raise AudioError("open", f"it is a {kind}, not a file")
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise AudioError("open", _text(error)) from error


def _text(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
