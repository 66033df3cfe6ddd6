"""Files that appear whole or not at all, and digests of what is in them."""

from __future__ import annotations

import atexit
import errno
import fcntl
import functools
import hashlib
import json
import logging
import math
import os
import re
import shutil
import socket
import sqlite3
import stat
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from models.base import FileRef, Roots

__all__ = [
    "NO_LOCKS",
    "annotation_keywords",
    "digest_file",
    "digest_pixels",
    "has_locks",
    "is_current",
    "owner",
    "ref",
    "remove_unfinished",
    "safe_name",
    "sweep",
    "torn",
    "write_json",
    "writing",
]

_log = logging.getLogger("ohp.files")

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a file system without locks answers when it is asked for one."""

_BLOCK = 1 << 20
_FITS_BLOCK = 2880

annotation_keywords = re.compile(
    r"^(QC[A-Z0-9]*|ASTR[A-Z]*|PHOT[A-Z0-9]*|VEGA[A-Z]*|PSF[A-Z0-9]*|PROCDATE|PIPELINE|CHECKSUM|DATASUM|COMMENT|HISTORY|"
    r"WCSAXES|CTYPE[12]|CUNIT[12]|CRPIX[12]|CRVAL[12]|CD[12]_[12]|LONPOLE|LATPOLE|RADESYS|EQUINOX|[AB]P?_(ORDER|DMAX|\d_\d)|MJDREF[IF]?)?$"
)
"""Primary-header keywords that stages after the reduction add to a reduced frame; not in its pixel digest."""


_DATED = re.compile(r"^(PROCDATE|CHECKSUM|DATASUM)$")


@contextmanager
def writing(path: Path, durable: bool = True, keep_same: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path`; on success sync it and rename it to `path`, else remove it.

    The file is world-readable as far as the umask allows. Readers see the old file or the whole new one.

    Parameters
    ----------
    path
        The file to be.
    durable
        False: a power cut may lose the file or leave it empty. Only for what tells by itself whether it is whole.
    keep_same
        A file that is there with the same content stays as it is, with its times.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{_host()}.{os.getpid()}.{threading.get_ident()}.tmp")
    _unfinished.add(temporary)
    try:
        yield temporary
        if keep_same and path.is_file() and path.read_bytes() == temporary.read_bytes():
            return
        if not durable:
            os.replace(temporary, path)
            return
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


_unfinished: set[Path] = set()


def remove_unfinished() -> None:
    """Remove the temporary files of this process, just before it ends in the middle of writing them.

    Called at a normal end too (a thread may still be writing); whoever calls ``os._exit`` calls it before.
    """
    for temporary in list(_unfinished):
        with suppress(OSError):
            temporary.unlink()


atexit.register(remove_unfinished)


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]


def owner() -> str:
    """Part of the name of a working folder that tells whose it is: machine and process."""
    return f"{_host()}-{os.getpid()}"


_WORKING_FOLDER = re.compile(r"^[a-z]+-(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-")
_LEFTOVER = re.compile(r"^\..*\.(?P<host>[0-9a-f]{6})\.(?P<pid>\d+)\.\d+\.tmp$")
_ABANDONED_S = 24 * 3600.0


def sweep(roots: Roots) -> list[Path]:
    """Remove what killed processes left under the data root: unfinished files (see `writing`), tools' working folders.

    What is of this machine goes when its process is gone, what is of other machines after a day. Raw frames are left
    alone, wherever they are.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed: list[Path] = []
    if not roots.data.is_dir():
        return removed
    ours = [
        folder
        for folder in roots.data.iterdir()
        if folder.is_dir()
        and folder.name != "raw"
        and not folder.name.startswith(".prefect")
        and folder.resolve() != roots.raw.resolve()
    ]
    for path in (path for folder in ours for path in folder.rglob(".*.tmp")):
        match = _LEFTOVER.match(path.name)
        if match is None or roots.raw in path.parents or not _abandoned(path, match):
            continue
        with suppress(OSError):  # finished, swept by another run, or not ours to remove
            path.unlink()
            removed.append(path)
    elsewhere = Path(tempfile.gettempdir())  # where the data root's own name does not suit the tools
    for folder in (roots.scratch, elsewhere):
        for path in folder.iterdir() if folder.is_dir() else ():
            match = _WORKING_FOLDER.match(path.name)
            if (folder == elsewhere and match is None) or not _abandoned(path, match):
                continue
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                removed.append(path)
    return removed


def _abandoned(path: Path, match: re.Match[str] | None) -> bool:
    """Whether nobody works on an unfinished file or working folder any more, as far as its name and age tell."""
    if match is not None and match["host"] == _host():
        return not Path(f"/proc/{match['pid']}").exists()
    try:
        return time.time() - path.stat().st_mtime > _ABANDONED_S
    except OSError:
        return False


def has_locks(folder: Path) -> bool:
    """Whether files in a folder can be locked; SQLite would wait a minute for each lock where there are none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (indented, key order kept, UTF-8), whole or not at all. NaN is refused.

    A file that is there with the same content stays as it is.
    """
    with writing(path, keep_same=True) as temporary, temporary.open("w", encoding="utf-8") as stream:
        # Not as one text: of a year of frames, its pieces take ten times what the file does.
        json.dump(value, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def safe_name(text: str, limit: int = 100) -> str:
    """A file-name stem from any text: ASCII letters, digits, ``. _ + -``, never a path, never empty, never hidden.

    ``'M67_-0003r60'`` stays as it is; ``'Coma Cote-0017G'`` becomes ``'Coma_Cote-0017G'``.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", plain)[:limit]
    name = re.sub(r"^[^A-Za-z0-9]+", "", name).rstrip(".")
    return name or "unnamed"


class _Memo:
    """Digests by path, believed while inode, size, mtime and ctime stay: shared by threads and processes.

    It only saves time: where it cannot be read or written (a full or read-only disk, a file system without locks, a
    file torn by a power cut) there is none, and every digest is taken from the file itself.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._local = threading.local()
        self._told = False
        with suppress(OSError):  # SQLite then says why it cannot be opened
            database.parent.mkdir(parents=True, exist_ok=True)
        self._off = not has_locks(database.parent)
        if self._off:
            self._tell("no locks on this file system")

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "pid", None) != os.getpid():
            connection = sqlite3.connect(self._database, timeout=60, isolation_level=None)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=off")
            connection.execute("create table if not exists memo(key text primary key, signature text, digest text)")
            self._local.connection, self._local.pid = connection, os.getpid()
        return self._local.connection  # type: ignore[no-any-return]

    def get(self, key: str, signature: str) -> str | None:
        if self._off:
            return None
        try:
            row = self._connection().execute("select signature, digest from memo where key=?", (key,)).fetchone()
        except sqlite3.Error as error:
            self._do_without(error)
            return None
        return row[1] if row and row[0] == signature else None

    def put(self, key: str, signature: str, digest: str) -> None:
        if self._off:
            return
        try:
            self._connection().execute("replace into memo values(?,?,?)", (key, signature, digest))
        except sqlite3.Error as error:
            self._do_without(error)

    def _do_without(self, error: sqlite3.Error) -> None:
        """A database that is none any more is removed, and begun anew when it is next opened."""
        torn_database = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        if torn_database:
            self._local.pid = None
            for suffix in ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._database.with_name(self._database.name + suffix).unlink()
        self._tell(str(error))

    def _tell(self, why: str) -> None:
        """Say it once a process."""
        if not self._told:
            self._told = True
            _log.warning("%s: %s; digests are taken from the files, which takes longer", self._database, why)


def _database(folder: Path) -> Path:
    """The memo's file: one for all accounts that may write it, as the umask says; else one of this account's own."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = folder / "digests.sqlite"
    with suppress(OSError):  # SQLite itself would let nobody else write it
        os.close(os.open(shared, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        return shared
    return folder / f"digests-{os.geteuid()}.sqlite"


_memos: dict[Path, _Memo] = {}
_memos_lock = threading.Lock()


def _memo(roots: Roots) -> _Memo:
    with _memos_lock:
        if roots.data not in _memos:
            _memos[roots.data] = _Memo(_database(roots.data / ".cache"))
        return _memos[roots.data]


def digest_file(path: Path, roots: Roots | None = None) -> str:
    """SHA-256 (hex) of a file's bytes; with `roots`, remembered while the file's inode, size and times stay.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    return _digest(path, "file", roots)


def digest_pixels(path: Path, roots: Roots | None = None) -> str:
    """SHA-256 (hex) of a FITS file without the cards that later stages add to its primary header.

    Covers every byte after the primary header and the primary cards that do not match
    `annotation_keywords`: stays the same when `tasks.report` writes QC, WCS and PHOT keywords into it,
    changes when a pixel, the mask, the variance or a card of the reduction does.
    """
    return _digest(path, "pixels", roots)


def _digest(path: Path, scope: str, roots: Roots | None) -> str:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
        raise OSError(f"{path}: not a regular file")
    signature = f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    key = f"{scope}:{os.path.abspath(path)}"
    if roots is not None and (known := _memo(roots).get(key, signature)):
        return known
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        if scope != "file":
            header = _primary_header(stream, path)
            if scope == "undated":
                _check_sum(header, stream, path)
            left_out = annotation_keywords if scope == "pixels" else _DATED
            for card in _cards(header):
                if not left_out.match(card[:8].strip()):
                    state.update(card.rstrip().encode("latin-1"))
        while block := stream.read(_BLOCK):
            state.update(block)
    digest = state.hexdigest()
    if roots is not None:
        _memo(roots).put(key, signature, digest)
    return digest


def _primary_header(stream: IO[bytes], path: Path) -> bytes:
    """All blocks of the primary header, as they are."""
    header = b""
    while block := stream.read(_FITS_BLOCK):
        header += block
        if len(block) == _FITS_BLOCK and any(block[at : at + 8] == b"END     " for at in range(0, _FITS_BLOCK, 80)):
            return header
    raise OSError(f"{path}: the FITS header ends before its END card")


def _cards(header: bytes) -> Iterator[str]:
    """Cards up to the END card."""
    for start in range(0, len(header), 80):
        card = header[start : start + 80].decode("latin-1")
        if card.startswith("END     "):
            return
        yield card


def _check_sum(header: bytes, stream: IO[bytes], path: Path) -> None:
    """Compare the primary HDU with its CHECKSUM, which covers the dates that the digest leaves out, too.

    The ones' complement sum of the HDU's 32-bit words is the HDU, taken as one number, modulo 2^32 - 1; it must be
    zero (FITS standard 4.0, appendix J). `stream` is left where the header ends.

    Raises
    ------
    OSError
        If they do not fit. An HDU without CHECKSUM is not checked.
    """
    values = _values(header)
    if "CHECKSUM" not in values:
        return
    try:
        size = _data_size(values)
    except (KeyError, ValueError) as error:
        raise OSError(f"{path}: its header does not tell its size: {error}") from error
    left, total = -(-size // _FITS_BLOCK) * _FITS_BLOCK, int.from_bytes(header, "big")
    while left > 0 and (block := stream.read(min(left, _FITS_BLOCK * 256))):
        total += int.from_bytes(block, "big")
        left -= len(block)
    if left > 0 or total % 0xFFFFFFFF:
        raise OSError(f"{path}: its first HDU does not fit its CHECKSUM")
    stream.seek(len(header))


def _values(header: bytes) -> dict[str, str]:
    return {card[:8].strip(): card[10:].partition("/")[0].strip() for card in _cards(header)}


def _data_size(values: dict[str, str]) -> int:
    """Bytes of an HDU's data without padding (FITS standard 4.0, eq. 2)."""
    axes = [int(values[f"NAXIS{axis + 1}"]) for axis in range(int(values["NAXIS"]))]
    extra, groups = int(values.get("PCOUNT", "0")), int(values.get("GCOUNT", "1"))
    return abs(int(values["BITPIX"])) // 8 * groups * (extra + math.prod(axes)) if axes else 0


def ref(path: Path, roots: Roots, scope: str = "file") -> FileRef:
    """Describe a file under the data root by what is in it now."""
    return FileRef(path=path.relative_to(roots.data).as_posix(), digest=_digest(path, scope, roots), scope=scope)


def is_current(product: FileRef, roots: Roots) -> bool:
    """Whether the product is still there with the content it was recorded with."""
    try:
        return _digest(roots.of(product), product.scope, roots) == product.digest
    except OSError:
        return False


def torn(path: Path) -> str:
    """Why a file of a format that knows its own end cannot be whole; empty if it may be, or is of another format.

    FITS: header and data of every HDU are there to their last block; VOTable: the closing tag. What the values are is
    not looked at.
    """
    with open(path, "rb") as stream:
        start = stream.read(512)
        if start.startswith(b"SIMPLE  ="):
            stream.seek(0)
            return _torn_fits(stream, path)
        if b"<VOTABLE" in start or start.startswith(b"<?xml"):
            stream.seek(max(0, path.stat().st_size - 512))
            return "" if stream.read().rstrip().endswith(b"</VOTABLE>") else "its closing tag is missing"
    return ""


def _torn_fits(stream: IO[bytes], path: Path) -> str:
    size = os.fstat(stream.fileno()).st_size
    while stream.tell() < size:
        try:
            values = _values(_primary_header(stream, path))
            length = _data_size(values)
        except (OSError, KeyError, ValueError):
            return "a header without an end"
        end = stream.tell() + -(-length // _FITS_BLOCK) * _FITS_BLOCK
        if end > size:
            return f"{size} of {end} bytes"
        stream.seek(end)
    return ""
