"""Writing a file under a temporary name, so that its own name never holds half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slimnet.errors import InputError


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling; rename it to ``path`` on success, remove it on any failure.

    Raises:
        InputError: the file cannot be written there.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path.name}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
