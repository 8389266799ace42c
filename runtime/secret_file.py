"""Secrets that live in one file each: made once, mode 0600, never half written."""

import os
import secrets
from pathlib import Path

SECRET_BYTES = 32  # 256 bits: HS256 asks for a key at least as long as its hash


def load_or_create_secret(path: Path) -> str:
    """The secret in a file, made there when the file does not exist. Idempotent, also among processes.

    Returns:
        Printable ASCII without whitespace, so that it fits a URL and a configuration file as it is.

    Raises:
        OSError: the file can neither be read nor made.
        ValueError: the file is empty.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: of two processes that make the same secret, the second takes the first one's.
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            draft.rename(path)
            return _read(path)
    finally:
        draft.unlink(missing_ok=True)
    return _read(path)


def _read(path: Path) -> str:
    secret = path.read_text(encoding="utf-8").strip()
    if not secret:
        raise ValueError(f"{path} is empty; a secret was expected")
    return secret
