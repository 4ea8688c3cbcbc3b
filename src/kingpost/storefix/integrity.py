"""Whether the database holds together: its file, its write-ahead log, its foreign keys, its schema.

`pragma foreign_key_check` looks up both ends of every reference, ten million look-ups on a large store. Here the
*gaps* between the ids of ValidPaths are looked up in the indexes of Refs instead: a dangling reference can only
be in a gap, and there are at most as many gaps as paths. Is anything in one of them, it is the next value of the
index, and that has no row.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Callable

from .database import SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from .interface import StoreRoot

# What the first byte of a page may be: 2, 5 an inner page, 10, 13 a leaf (index, table); 0 a free or an overflow
# page, whose first bytes are the number of the next one (source: sqlite.org/fileformat2.html).
_KINDS = bytes((0, 2, 5, 10, 13))
_WINDOW = 16 << 20  # bytes mapped at once, of whole pages whatever their size
_WAL_HEADER, _FRAME_HEADER = 32, 24

_NO_ROW = "not in (select id from ValidPaths)"
_LAST_ID = 2**63 - 1
_NEXT = "ifnull((select {column} from {table} where {column} > {low} order by {column} limit 1), {none})"
_COLUMNS = (("Refs", "reference"), ("Refs", "referrer"), ("DerivationOutputs", "drv"))
_GAPS = """
create temp table gap as select id as low, next as high from (
    select id, coalesce(lead(id) over (order by id), 9223372036854775807) as next from ValidPaths
) where next > id + 1
union all select -9223372036854775807, coalesce((select min(id) from ValidPaths), 9223372036854775807)
"""
_IN_GAP = "select 1 from {table} where {column} > gap.low and {column} < gap.high"
_GAP_ROWS = """
select distinct {wanted} from gap cross join {table} where {column} > gap.low and {column} < gap.high
    and exists (select 1 from ValidPaths where id = {other})
"""


@dataclass(frozen=True)
class ForeignKeys:
    """What points to rows that are not there.

    Attributes:
        ghosts: Ids without a row that valid rows refer to: their names are lost with the row.
        orphan_references: Number of references whose referrer has no row. They belong to nobody.
        orphan_outputs: Number of DerivationOutputs whose derivation has no row.
        others: Table to number of rows that point nowhere, for tables of newer Nix (Realisations).

    """

    ghosts: tuple[int, ...] = ()
    orphan_references: int = 0
    orphan_outputs: int = 0
    others: tuple[tuple[str, int], ...] = ()

    @property
    def clean(self) -> bool:
        """Tell whether nothing dangles."""
        return not (self.ghosts or self.orphan_references or self.orphan_outputs or self.others)


def foreign_keys(connection: sqlite3.Connection) -> ForeignKeys:
    """Find everything that points to rows that are not there, as `pragma foreign_key_check` would.

    The connection gets a temporary table `gap`; nothing else is written.

    Raises:
        sqlite3.DatabaseError: The database cannot be read.

    """
    if not _dangles(connection):
        return ForeignKeys(others=_others(connection))
    connection.execute("drop table if exists temp.gap")
    connection.execute(_GAPS)
    ghosts: list[int] = []
    if connection.execute(_exists("Refs", "reference")).fetchone():
        query = _GAP_ROWS.format(wanted="reference", table="Refs", column="reference", other="referrer")
        ghosts = sorted(row[0] for row in connection.execute(query))
    references = outputs = 0
    if connection.execute(_exists("Refs", "referrer")).fetchone():
        references = _count(connection, "Refs", "referrer")
    if connection.execute(_exists("DerivationOutputs", "drv")).fetchone():
        outputs = _count(connection, "DerivationOutputs", "drv")
    connection.execute("drop table temp.gap")
    return ForeignKeys(tuple(ghosts), references, outputs, _others(connection))


def _dangles(connection: sqlite3.Connection) -> bool:
    """Tell whether anything dangles; it may say so of a database that has no paths at all."""

    def beyond(low: str) -> str:
        following = (
            _NEXT.format(table=table, column=column, low=low, none=_LAST_ID) for table, column in _COLUMNS
        )
        return f"nullif(min({', '.join(following)}), {_LAST_ID}) {_NO_ROW}"

    below_all = f"select {beyond(str(-(2**63)))}"
    in_a_gap = (
        f"select 1 from ValidPaths as here not indexed where here.id + 1 {_NO_ROW} "  # noqa: S608 -- constants
        f"and {beyond('here.id')} limit 1"
    )
    return bool(connection.execute(below_all).fetchone()[0] or connection.execute(in_a_gap).fetchone())


def path_entries(connection: sqlite3.Connection) -> int | None:
    """Count the entries of the index on paths, which are as many as there are rows; None if there is no index."""
    query = "select name from pragma_index_list('ValidPaths') where origin = 'u'"
    index = connection.execute(query).fetchone()
    if index is None:
        return None
    name = index[0].replace('"', '""')
    query = f'select count(*) from ValidPaths indexed by "{name}"'  # noqa: S608 -- quoted
    return int(connection.execute(query).fetchone()[0])


def _exists(table: str, column: str) -> str:
    inner = _IN_GAP.format(table=table, column=column)
    return f"select 1 from gap where exists ({inner}) limit 1"  # noqa: S608 -- constants


def _count(connection: sqlite3.Connection, table: str, column: str) -> int:
    query = (
        f"select count(*) from gap cross join {table} "  # noqa: S608 -- constants
        f"where {column} > gap.low and {column} < gap.high"
    )
    return int(connection.execute(query).fetchone()[0])


def _others(connection: sqlite3.Connection) -> tuple[tuple[str, int], ...]:
    """Count what dangles in tables with foreign keys that this program does not know in detail."""
    known = {"ValidPaths", "Refs", "DerivationOutputs"}
    tables = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
    found = []
    for table in sorted(set(tables) - known):
        name = table.replace('"', '""')
        rows = {row[1] for row in connection.execute(f'pragma foreign_key_check("{name}")')}
        if rows:
            found.append((table, len(rows)))
    return tuple(found)


def pages_look_sound(database: Path) -> bool:
    """Tell whether every page of the file begins as a page of SQLite does.

    A page whose contents are wrong behind a good beginning is left to `quick_check`, which takes far longer.
    Tells nothing, and says True, while the write-ahead log holds newer pages.

    Raises:
        OSError: The file cannot be read.

    """
    wal = database.with_name(database.name + "-wal")
    if wal.exists() and wal.stat().st_size > _WAL_HEADER:
        return True
    with database.open("rb") as file:
        header = file.read(100)
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            return False
        page = int.from_bytes(header[16:18], "big")
        page = 65536 if page == 1 else page
        pages, free = int.from_bytes(header[28:32], "big"), int.from_bytes(header[36:40], "big")
        if page < 512 or page & (page - 1) or database.stat().st_size < pages * page:
            return False
        # Mapped, only the beginnings are read. What the disk does not give back ends the process: let it be another.
        return in_child(lambda: _begin_well(file.fileno(), page, free))


def _begin_well(fd: int, page: int, free: int) -> bool:
    size, other = os.fstat(fd).st_size, 0
    for start in range(0, size, _WINDOW):
        length = min(_WINDOW, size - start)
        with mmap.mmap(fd, length, prot=mmap.PROT_READ, offset=start) as mapped:
            # The first page begins with the header of the file.
            kinds = mapped[0 if start else page : length // page * page : page]
        if kinds.translate(None, _KINDS):
            return False
        other += kinds.count(0)
    return other <= free


def in_child(question: Callable[[], bool]) -> bool:
    """Ask something in a process of its own; however that ends but with a yes is a no.

    Raises:
        OSError: There can be no other process.

    """
    with warnings.catch_warnings():
        # Python 3.12 warns of a fork beside threads: the child takes no lock, looks and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        status = 1
        try:
            status = 0 if question() else 1
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def sqlite_complaint(connection: sqlite3.Connection, *, thorough: bool = False) -> str:
    """Let SQLite check the whole file; give its first complaint, empty if there is none.

    Args:
        connection: The database.
        thorough: Compare every index with its table too (`integrity_check`), some six times slower.

    """
    pragma = "integrity_check" if thorough else "quick_check"
    try:
        lines = [str(row[0]) for row in connection.execute(f"pragma {pragma}(5)")]
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if lines == ["ok"] else "; ".join(line.strip() for line in lines)


@dataclass(frozen=True)
class Wal:
    """The write-ahead log as it was found.

    Attributes:
        frames: Pages in it that SQLite reads.
        lost_frames: Pages of the same generation behind the last one it can read.
        lost_commits: How many of those end a transaction: each was reported to its writer as done.
        partial: The file ends in the middle of a page.

    """

    frames: int = 0
    lost_frames: int = 0
    lost_commits: int = 0
    partial: bool = False

    @property
    def torn(self) -> bool:
        """Tell whether transactions that were done are not readable any more.

        Frames without a commit behind the last one are a writer that was killed: nothing was lost.
        """
        return self.lost_commits > 0 or self.partial


def write_ahead_log(database: Path) -> Wal:
    """Look for transactions in the write-ahead log that SQLite passes over in silence.

    SQLite reads up to the first frame whose checksum is wrong; frames behind it with the log's own salt were
    written and are lost (source: sqlite.org/fileformat2.html, "The Write-Ahead Log").

    Raises:
        OSError: The file cannot be read.

    """
    wal = database.with_name(database.name + "-wal")
    if not wal.is_file() or wal.stat().st_size <= _WAL_HEADER:
        return Wal()
    with wal.open("rb") as file:
        header = file.read(_WAL_HEADER)
        magic, _, page, _, _, _, _, _ = struct.unpack(">8I", header)
        if magic & ~1 != 0x377F0682 or page < 512 or page > 65536:
            return Wal(partial=True)
        order = "big" if magic & 1 else "little"
        commits, count, partial = _frames(file, header[16:24], page)
        last = max(commits, default=0)
        readable = _readable_by_index(database, header[16:24])
        if readable < last:
            readable = _readable_by_checksum(file, header, page, order, count)
    lost = sum(commit > readable for commit in commits)
    return Wal(readable, count - readable if lost else 0, lost, partial)


def _frames(file: BinaryIO, salt: bytes, page: int) -> tuple[list[int], int, bool]:
    """Give the numbers of frames that end a transaction, the number of frames, and whether the last is cut."""
    commits: list[int] = []
    count = 0
    while True:
        head = file.read(_FRAME_HEADER)
        if head[8:16] != salt:
            return commits, count, False  # the end, or frames of an older generation
        if len(file.read(page)) < page:
            return commits, count, True
        count += 1
        if head[4:8] != b"\0\0\0\0":
            commits.append(count)


def _readable_by_index(database: Path, salt: bytes) -> int:
    """Give the number of frames that SQLite itself reads, from the index that an open connection keeps."""
    try:
        with database.with_name(database.name + "-shm").open("rb") as file:
            header = file.read(48)
    except OSError:
        return 0
    if len(header) < 48 or header[12] != 1 or header[32:40] != salt:
        return 0
    return int(struct.unpack("=I", header[16:20])[0])


def _readable_by_checksum(file: BinaryIO, header: bytes, page: int, order: str, count: int) -> int:
    """Give the number of the last commit that SQLite would read, by the checksums, as SQLite finds it."""
    state = _checksum(header[:24], (0, 0), order)
    if state != struct.unpack(">2I", header[24:]):
        return 0
    file.seek(_WAL_HEADER)
    commit = 0
    for number in range(1, count + 1):
        frame = file.read(_FRAME_HEADER + page)
        state = _checksum(frame[_FRAME_HEADER:], _checksum(frame[:8], state, order), order)
        if state != struct.unpack(">2I", frame[16:24]):
            break
        if frame[4:8] != b"\0\0\0\0":
            commit = number
    return commit


def _checksum(data: bytes, state: tuple[int, int], order: str) -> tuple[int, int]:
    """Continue the checksum of a write-ahead log over some bytes."""
    one, two = state
    words = struct.unpack(("<" if order == "little" else ">") + f"{len(data) // 4}I", data)
    for first, second in zip(words[::2], words[1::2]):  # noqa: B905 -- strict= needs Python 3.10
        one = (one + first + two) & 0xFFFFFFFF
        two = (two + second + one) & 0xFFFFFFFF
    return one, two


def schema_complaint(store: StoreRoot) -> str:
    """Say what is wrong with the file `schema` that Nix reads first; empty if nothing is."""
    path = store.state_dir / "db" / "schema"
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return "it is missing"
    if text == SCHEMA_VERSION:
        return ""
    if not text:
        return "it is empty"
    if text.isdecimal():
        return f"it says {text}, and this program knows {SCHEMA_VERSION}"
    return f"it says {text[:40]!r}, which is no number"


def is_newer_schema(store: StoreRoot) -> bool:
    """Tell whether a Nix newer than this program made the database: then nothing is written to it."""
    try:
        text = (store.state_dir / "db" / "schema").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return False
    return text.isdecimal() and int(text) > int(SCHEMA_VERSION)
