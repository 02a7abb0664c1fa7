"""What a cohort's patients, studies and series are called outside their source.

A public cohort keeps its published patient numbers. Of any other no identifier leaves the source: names are
hashes keyed by a laboratory's salt, so that a patient has the same name in every store made with it, and
nobody without the salt can find one by hashing the hospital's numbers.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from xr2ct.errors import UserError

log = logging.getLogger(__name__)

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a patient's ID may look like to be a file's name."""

_MIN_SALT = 16
"""Bytes; fewer could be guessed."""


@dataclass(frozen=True)
class Names:
    """One cohort's way of naming; `names_for` makes it."""

    public: bool
    salt_id: str = ""
    """A fingerprint by which two salts are told apart, and which gives neither away; empty where public."""
    _salt: bytes = field(default=b"", repr=False)

    def patient(self, raw: str) -> str:
        """Public: the ID where it is fit for a file's name, else a hash; private: `case-<12 hex>`.

        Nothing readable is kept of a public ID that is unfit: what breaks the rule is often a person's name.
        """
        if self.public:
            return raw if SAFE_NAME.fullmatch(raw) else f"patient-{short_hash(raw)}"
        return f"case-{self._keyed('patient', raw)}"

    def study(self, uid: str) -> str:
        """Twelve hexadecimal digits."""
        return short_hash(uid) if self.public else self._keyed("study", uid)

    def series(self, study: str, uid: str) -> str:
        """Twelve hexadecimal digits for the series `uid` of the study with the UID `study`."""
        return short_hash(uid) if self.public else self._keyed("series", study, uid)

    def where(self, text: str) -> str:
        """The name of a file or folder as it is; of a private cohort nothing, since it may name a patient."""
        return text if self.public else ""

    def _keyed(self, *parts: str) -> str:
        return hmac.new(self._salt, _bytes(parts), hashlib.sha256).hexdigest()[:12]


def names_for(cohort: str, salt: Path | None = None) -> Names:
    """How a cohort of the catalogue is named.

    `salt` is the file of the laboratory's salt, `$XDG_CONFIG_HOME/xr2ct/salt` unless given; only a cohort
    that is not public reads it, and makes it where there is none. Raises `UserError` for an unknown cohort
    and a salt that cannot be read or made, or is too short.
    """
    from xr2ct.cohorts.catalogue import (
        cohort as entry,
    )  # here: the catalogue's YAML is read by its users alone

    if entry(cohort).public:
        return Names(True)
    secret = _read_salt(salt or default_salt())
    return Names(False, hmac.new(secret, b"salt-id", hashlib.sha256).hexdigest()[:12], secret)


def default_salt() -> Path:
    """Where a user's salt lies."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "xr2ct" / "salt"


def short_hash(*parts: str) -> str:
    """Twelve hexadecimal digits that stand for an identifier."""
    return hashlib.sha256(_bytes(parts)).hexdigest()[:12]


def _bytes(parts: tuple[str, ...]) -> bytes:
    return "\x1f".join(parts).encode("utf-8", "surrogateescape")


def _read_salt(path: Path) -> bytes:
    try:
        if not path.exists():
            _make_salt(path)
        secret = path.read_bytes().strip()
        loose = path.stat().st_mode & 0o007
    except OSError as error:
        raise UserError(f"{path}: the salt cannot be read or made ({error.strerror})") from error
    if len(secret) < _MIN_SALT:
        raise UserError(f"{path}: a salt of {len(secret)} bytes; expected {_MIN_SALT} or more, kept secret")
    if loose:
        log.warning("%s: every user of this machine may read the salt; `chmod o-rwx` closes it", path)
    return secret


def _make_salt(path: Path) -> None:
    """A new salt, whole or not at all; the one already there where another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
    log.warning(
        "%s: a new salt was made; keep it secret and safe: case IDs cannot be had again without it", path
    )
