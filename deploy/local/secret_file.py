"""Secrets made once and kept beside the data, readable by their owner alone."""

import json
import os
from collections.abc import Callable
from pathlib import Path


class SecretFile:
    """A JSON object of names and strings in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str, make: Callable[[], str]) -> str:
        """The secret of this name, made and written to disk on first use."""
        secrets = self._read()
        if name not in secrets:
            secrets[name] = make()
            self._write(secrets)
        return secrets[name]

    def _read(self) -> dict[str, str]:
        try:
            return json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}

    def _write(self, secrets: dict[str, str]) -> None:
        new = self.path.with_name(self.path.name + ".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(secrets, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)
