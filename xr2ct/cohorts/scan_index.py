"""What is known of the files under a folder: an SQLite file that a scan fills and a later one continues.

It is the one file of the project that holds paths and identifiers of private cohorts; nobody but its owner
may read it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xr2ct.cohorts.facts import Facts
from xr2ct.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from xr2ct.cohorts.headers import Identity

VERSION = 1
"""Of the tables and of how headers are read; an index of another version is filled anew."""

PASSED, IMAGE, BROKEN, VOLUME = range(4)
"""What a file is: nothing of interest, a DICOM image, one that cannot be read, a volume file."""

_TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE folders(id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE);
CREATE TABLE headers(id INTEGER PRIMARY KEY, facts TEXT NOT NULL UNIQUE);
CREATE TABLE files(
    folder INTEGER NOT NULL, name BLOB NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    walk INTEGER NOT NULL, kind INTEGER, header INTEGER, instance BLOB, x REAL, y REAL, z REAL, reason TEXT,
    PRIMARY KEY(folder, name)
) WITHOUT ROWID;
CREATE INDEX files_header ON files(header) WHERE header IS NOT NULL;
CREATE INDEX files_kind ON files(kind);
CREATE TABLE coverages(scan TEXT PRIMARY KEY, value REAL, reason TEXT NOT NULL, place BLOB NOT NULL);
CREATE TABLE lines(
    patient BLOB, study BLOB, series BLOB, take TEXT NOT NULL, reason TEXT NOT NULL, place BLOB NOT NULL,
    PRIMARY KEY(patient, study, series)
);
"""


CLOSED = "cannot be read ("
"""How the reason of a file begins that could not be opened: it may be open to the next scan as it is."""


class Entry(NamedTuple):
    """A file as met on a walk."""

    name: str
    size: int
    mtime_ns: int
    closed: str = ""
    """Why it cannot be opened."""


class Read(NamedTuple):
    """What reading a file gave."""

    kind: int
    facts: str = ""
    """JSON: of an image what it shares with most of its series, of a volume file its `Facts`."""
    instance: bytes | None = None
    """A hash of SOPInstanceUID."""
    position: tuple[float, ...] | None = None
    reason: str = ""


class Row(NamedTuple):
    """A file as it is known."""

    folder: str
    """Below the root, "" for the root itself."""
    name: str
    size: int
    mtime_ns: int
    header: int
    instance: bytes | None
    position: tuple[float, float, float] | None
    reason: str


@dataclass(frozen=True)
class Coverage:
    """The lung coverage of a scan, or why there is none."""

    value: float | None
    reason: str = ""
    where: str = ""


class ScanIndex:
    """Open it with `ScanIndex.open`. Text is stored so that any bytes of a file system come back."""

    def __init__(self, root: Path, database: sqlite3.Connection) -> None:
        self.root = root
        """The folder that was or is to be walked."""
        self._database = database
        self._header_ids: dict[str, int] = {}

    @classmethod
    @contextmanager
    def open(cls, path: Path | None, root: Path | None) -> Iterator[ScanIndex]:
        """The index at `path`, new where there is none, of a scan of `root` (None: of whatever it is of).

        Without a path it is temporary. Raises `UserError` where there is no such folder and where the
        file is no index or one of another, `WorkFailed` where another process writes into it.
        """
        if root is not None and not root.is_dir():
            raise UserError(f"{root}: no such folder (expected one with DICOM, NIfTI, MHA or NRRD inside)")
        if path is not None:
            _make_private(path, new=root is not None)
        try:
            with closing(sqlite3.connect(path or "", timeout=10.0)) as database:
                yield cls(_prepare(database, path, root), database)
        except sqlite3.OperationalError as error:
            busy = " (is another plan at work on it?)" if "locked" in str(error) else ""
            raise WorkFailed(f"{path}: {error}{busy}") from error
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: no index of a scan ({error}); delete it, or name another") from error

    # Walking

    def begin_walk(self) -> int:
        """A number for this walk, greater than any before. What could not be opened is tried again."""
        self._database.execute(
            "UPDATE files SET kind = NULL, reason = NULL WHERE kind = ? AND reason LIKE ?",
            (BROKEN, f"{CLOSED}%"),
        )
        return int(self._one("SELECT coalesce(max(walk), 0) + 1 FROM files"))

    def note(self, walk: int, folder: str, entries: Sequence[Entry]) -> None:
        """The files met in a folder: one of the same size and time stays known, others are pending."""
        number = self._id("folders", "path", os.fsencode(folder))
        same = "(size, mtime_ns) = (excluded.size, excluded.mtime_ns)"
        self._database.executemany(
            f"""INSERT INTO files(folder, name, size, mtime_ns, walk, kind, reason)
            VALUES(?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT(folder, name) DO UPDATE SET walk = excluded.walk,
            kind = CASE WHEN {same} THEN coalesce(kind, excluded.kind) ELSE excluded.kind END,
            reason = CASE WHEN {same} THEN coalesce(reason, excluded.reason) ELSE excluded.reason END,
            size = excluded.size, mtime_ns = excluded.mtime_ns""",
            [
                (
                    number,
                    os.fsencode(entry.name),
                    entry.size,
                    entry.mtime_ns,
                    walk,
                    BROKEN if entry.closed else None,
                    entry.closed or None,
                )
                for entry in entries
            ],
        )

    def end_walk(self, walk: int, subfolders: Iterable[str]) -> None:
        """Forget what was not met; from here on the walk counts."""
        self._database.execute("DELETE FROM files WHERE walk <> ?", (walk,))
        self._set("subfolders", json.dumps(sorted(subfolders)))
        self._database.commit()

    # Reading

    def count(self, kind: int | None) -> int:
        """Files of a kind; None: those not read yet."""
        return int(self._one("SELECT count(*) FROM files WHERE kind IS ?", kind))

    def pending(self, size: int) -> Iterator[list[tuple[str, str]]]:
        """(folder, name) of the files not read yet, in batches; read ones may be `put` in between."""
        last: tuple[int, bytes] = (-1, b"")
        while True:
            rows = self._database.execute(
                """SELECT folder, name, path FROM files JOIN folders ON folders.id = folder
                WHERE kind IS NULL AND (folder, name) > (?, ?) ORDER BY folder, name LIMIT ?""",
                (*last, size),
            ).fetchall()
            if not rows:
                return
            last = rows[-1][:2]
            yield [(os.fsdecode(path), os.fsdecode(name)) for _, name, path in rows]

    def put(self, batch: Sequence[tuple[str, str]], results: Sequence[Read]) -> None:
        """Keep what was read: from here on it survives any end of the process."""
        folders = {folder: self._id("folders", "path", os.fsencode(folder)) for folder, _ in batch}
        self._database.executemany(
            """UPDATE files SET kind = ?, header = ?, instance = ?, x = ?, y = ?, z = ?, reason = ?
            WHERE folder = ? AND name = ?""",
            [
                (
                    read.kind,
                    self._header(read.facts) if read.facts else None,
                    read.instance,
                    *(read.position or (None, None, None)),
                    read.reason,
                    folders[folder],
                    os.fsencode(name),
                )
                for (folder, name), read in zip(batch, results, strict=True)
            ],
        )
        self._database.commit()

    # What is known

    def identities(self, make: Callable[..., Identity]) -> dict[int, Identity]:
        """By number: every different header of the images."""
        rows = self._database.execute(
            "SELECT id, facts FROM headers WHERE id IN (SELECT header FROM files WHERE kind = ?)", (IMAGE,)
        )
        return {number: make(*map(_frozen, json.loads(facts))) for number, facts in rows}

    def facts(self, number: int) -> Facts:
        """What one header of a volume file says."""
        held = json.loads(self._one("SELECT facts FROM headers WHERE id = ?", number))
        return Facts(**{key: _frozen(value) for key, value in held.items()})

    def files(self) -> int:
        """All of them, of whatever kind."""
        return int(self._one("SELECT count(*) FROM files"))

    def rows(self, kind: int, headers: Sequence[int] | None = None) -> list[Row]:
        """The files of a kind (of these headers), in the order of their paths."""
        chosen = "" if headers is None else f" AND header IN ({','.join(map(str, headers))})"
        found = self._database.execute(
            f"""SELECT path, name, size, mtime_ns, header, instance, x, y, z, reason
            FROM files JOIN folders ON folders.id = folder WHERE kind = ?{chosen}""",
            (kind,),
        )
        rows = [
            Row(
                os.fsdecode(path),
                os.fsdecode(name),
                size,
                mtime,
                header,
                instance,
                None if z is None else (x, y, z),
                reason or "",
            )
            for path, name, size, mtime, header, instance, x, y, z, reason in found
        ]
        return sorted(rows)

    def tops(self) -> set[str]:
        """The root's direct subfolders that hold an image, a volume or a broken file; "" for the root."""
        rows = self._database.execute(
            """SELECT path FROM folders WHERE id IN (SELECT folder FROM files WHERE kind IN (?, ?, ?))""",
            (IMAGE, BROKEN, VOLUME),
        )
        return {os.fsdecode(path).split(os.sep, 1)[0] for (path,) in rows}

    def subfolders(self) -> set[str]:
        """All its direct subfolders."""
        return set(json.loads(self._get("subfolders") or "[]"))

    # Lung coverages and the plan's lines

    def coverage(self, digest: str) -> Coverage | None:
        """What was found before of a scan, by `Source.digest`."""
        row = self._database.execute(
            "SELECT value, reason, place FROM coverages WHERE scan = ?", (digest,)
        ).fetchone()
        return Coverage(row[0], row[1], _untext(row[2])) if row else None

    def put_coverage(self, digest: str, found: Coverage) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO coverages VALUES(?, ?, ?, ?)",
            (digest, found.value, found.reason, _text(found.where)),
        )
        self._database.commit()

    def lines(self) -> Iterator[tuple[tuple[str, str, str], Any, str, str]]:
        """((patient, study, series), take, reason, where) as last written, in that order."""
        for *key, take, reason, place in self._database.execute("SELECT * FROM lines ORDER BY rowid"):
            patient, study, series = map(_untext, key)
            yield (patient, study, series), take, reason, _untext(place)

    def put_lines(
        self, lines: Iterable[tuple[tuple[str, str, str], str, str, str]], cohort: str, salt_id: str
    ) -> None:
        self._database.execute("DELETE FROM lines")
        self._database.executemany(
            "INSERT INTO lines VALUES(?, ?, ?, ?, ?, ?)",
            [(*map(_text, key), take, reason, _text(place)) for key, take, reason, place in lines],
        )
        self._set("cohort", cohort)
        self._set("salt_id", salt_id)
        self._database.commit()

    def planned_for(self) -> tuple[str, str]:
        """Cohort and `salt_id` of the lines; empty where none were written."""
        return self._get("cohort"), self._get("salt_id")

    def _header(self, facts: str) -> int:
        if facts not in self._header_ids:
            if len(self._header_ids) > 4096:
                self._header_ids.clear()
            self._header_ids[facts] = self._id("headers", "facts", facts)
        return self._header_ids[facts]

    def _id(self, table: str, column: str, value: str | bytes) -> int:
        row = self._database.execute(f"SELECT id FROM {table} WHERE {column} = ?", (value,)).fetchone()
        if row:
            return int(row[0])
        return int(
            self._database.execute(f"INSERT INTO {table}({column}) VALUES(?)", (value,)).lastrowid or 0
        )

    def _one(self, query: str, *values: object) -> Any:
        return self._database.execute(query, values).fetchone()[0]

    def _get(self, key: str) -> str:
        row = self._database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else ""

    def _set(self, key: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO meta VALUES(?, ?)", (key, value))


def _make_private(path: Path, new: bool) -> None:
    """A file that its owner alone may read, made where there is none and it may be."""
    try:
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise UserError(f"{path}: the index of the scan cannot be opened ({error.strerror})") from error


def _prepare(database: sqlite3.Connection, path: Path | None, root: Path | None) -> Path:
    """The tables, made where there are none; the folder that they are of."""
    database.execute("PRAGMA synchronous = NORMAL")
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "meta" not in tables:
        raise UserError(f"{path}: a database of something else; name another file for the index of the scan")
    held = dict(database.execute("SELECT key, value FROM meta")) if tables else {}
    if held.get("version") != str(VERSION):
        if root is None:
            raise UserError(f"{path}: not of this version; call `xr2ct plan` again")
        database.executescript("".join(f"DROP TABLE {name};" for name in tables))
        database.executescript(_TABLES)
        held = {"version": str(VERSION), "root": json.dumps(os.path.realpath(root))}
        database.executemany("INSERT INTO meta VALUES(?, ?)", held.items())
        database.commit()
    known = json.loads(held["root"])
    if root is not None and os.path.realpath(root) != known:
        raise UserError(f"{path}: the index of {known}, asked for was {root}; name another, or delete it")
    return root or Path(known)


def _text(text: str) -> bytes:
    """Any text as bytes: what comes from a header or a file system need not be Unicode."""
    return text.encode("utf-8", "surrogatepass")


def _untext(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(value) if isinstance(value, list) else value
