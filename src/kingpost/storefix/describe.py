"""Turn what a scan saw into findings: what each means, and what needs it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from . import findings, leftovers, nar
from .database import paths_of
from .findings import NOTE, PROBLEM, Finding
from .integrity import Wal, schema_complaint, write_ahead_log
from .liveness import Liveness

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from .interface import Settings, StoreRoot
    from .roots import Root
    from .scan import Scan

_LABELLED = 1000  # so many damaged rows at most are traced to what needs them; a plan traces all
_TRACED = 20  # so many of them to several roots


def rows(result: Scan, connection: sqlite3.Connection) -> None:
    """Turn rows into findings, with what needs them if they are not too many."""
    store, add = result.store, result.findings.append
    damaged = [*result.lost, *result.invalid, *result.wrong, *result.unhashed, *result.keys.ghosts]
    needed: dict[int, tuple[str, ...]] = {}
    if 0 < len(damaged) <= _LABELLED:
        liveness = Liveness(connection, store, result.roots)
        labels = liveness.live(damaged)
        for position, row in enumerate(row for row in damaged if row in labels):
            needed[row] = tuple(liveness.needed_by(row)) if position < _TRACED else (labels[row],)
    for row, name in sorted(result.lost.items(), key=lambda item: item[1]):
        add(Finding(findings.LOST_PATH, PROBLEM, store.path(name), "is registered, but not on disk",
                    needed.get(row, ()), {"id": row}))  # fmt: skip
    for row, path in sorted(result.invalid.items(), key=lambda item: item[1]):
        add(Finding(findings.INVALID_ROW, PROBLEM, path, "can be no path of this store; Nix stops at it",
                    needed.get(row, ()), {"id": row}))  # fmt: skip
    for ghost in result.keys.ghosts:
        add(Finding(findings.GHOST_REFERENCE, PROBLEM, f"row {ghost}",
                    "is referred to, but not there: a garbage collection deletes what it stood for",
                    needed.get(ghost, ()), {"id": ghost}))  # fmt: skip
    counts = ((findings.ORPHAN_REFERENCES, result.keys.orphan_references, "Refs"),
              (findings.ORPHAN_OUTPUTS, result.keys.orphan_outputs, "DerivationOutputs"))  # fmt: skip
    for code, count, table in counts:
        if count:
            add(Finding(code, PROBLEM, f"table {table}", f"{count} rows belong to no registered path",
                        evidence={"rows": count}))  # fmt: skip
    for table, count in result.keys.others:
        add(Finding(findings.ORPHAN_ROWS, PROBLEM, f"table {table}", f"{count} rows point nowhere",
                    evidence={"rows": count}))  # fmt: skip
    _wrong(result, connection, needed)


def _wrong(result: Scan, connection: sqlite3.Connection, needed: dict[int, tuple[str, ...]]) -> None:
    """Say of each path with wrong content what can be seen of it."""
    store, add = result.store, result.findings.append
    names = paths_of(connection, result.wrong)
    sizes = {row: connection.execute("select narSize from ValidPaths where id = ?", (row,)).fetchone()[0] or 0
             for row in names}  # fmt: skip
    for row, path in sorted(names.items(), key=lambda item: item[1]):
        wrong = result.wrong[row]
        if wrong.error:
            add(
                Finding(
                    findings.UNREADABLE_CONTENT, PROBLEM, path, wrong.error, needed.get(row, ()), {"id": row}
                )
            )
            continue
        empty = _empty_files(store, path)
        summary = "has other contents than were registered"
        if sizes[row] > wrong.nar_size:
            summary += f", {sizes[row] - wrong.nar_size} bytes fewer"
        if empty:
            summary += f"; of no bytes: {', '.join(name or 'the file itself' for name in empty[:3])}"
        evidence = {
            "id": row,
            "nar_bytes": wrong.nar_size,
            "expected_nar_bytes": sizes[row],
            "got": wrong.nar_hash,
        }
        add(Finding(findings.DAMAGED_CONTENT, PROBLEM, path, summary, needed.get(row, ()), evidence))
    for row, name in sorted(result.unhashed.items(), key=lambda item: item[1]):
        add(Finding(findings.DAMAGED_CONTENT, PROBLEM, store.path(name), "has no usable hash in the database",
                    needed.get(row, ()), {"id": row}))  # fmt: skip
    for name in result.bad_links:
        add(Finding(findings.DAMAGED_LINK, PROBLEM, store.path(f".links/{name}"),
                    "is not what its name says; the next optimisation would spread it"))  # fmt: skip


def _empty_files(store: StoreRoot, path: str) -> tuple[str, ...]:
    try:
        return nar.metadata(store.real(path)).empty_files
    except OSError:
        return ()


def links(result: Scan) -> None:
    """Turn roots that lead nowhere, and what they keep that no row knows, into findings."""
    store = result.store
    orphans = set(result.orphans)
    labels: dict[str, list[Root]] = {}
    for root in result.roots:
        labels.setdefault(root.base_name, []).append(root)
    for root in labels.pop("", []):
        severity = PROBLEM if root.current else NOTE
        code = findings.DANGLING_ROOT if root.current else findings.STALE_ROOT
        result.findings.append(Finding(code, severity, root.link, f"{root.label}: its target is gone"))
    for name, pointing in sorted(labels.items()):
        needed = tuple(dict.fromkeys(root.label for root in pointing))
        if name in orphans:
            result.findings.append(
                Finding(findings.LIVE_ORPHAN, PROBLEM, store.path(name),
                        "is needed and on disk, but not registered: a garbage collection deletes it", needed,
                        {"state": orphan_state(store, name)})
            )  # fmt: skip
        elif not os.path.lexists(store.real_store / name):
            for root in pointing:
                if root.link:
                    result.findings.append(
                        Finding(findings.DANGLING_ROOT, PROBLEM, root.link,
                                f"{root.label}: {store.path(name)} is gone", needed,
                                {"path": store.path(name), "current": root.current})
                    )  # fmt: skip
    needed_names = set(labels)
    for name in result.orphans:
        if name not in needed_names:
            state = orphan_state(store, name) if len(result.orphans) <= _LABELLED else "unknown"
            result.findings.append(
                Finding(findings.ORPHAN, NOTE, store.path(name),
                        f"is not registered ({state} copy); the next garbage collection deletes it",
                        evidence={"state": state})
            )  # fmt: skip


def orphan_state(store: StoreRoot, name: str) -> str:
    """Tell a complete copy from a partial one, as far as the path itself shows it.

    Nix sets every mode and time just before it registers a path: where one is not as Nix leaves it, the copy
    was cut off. Whether a copy that looks complete is so, only a hash from elsewhere can tell.
    """
    try:
        seen = nar.metadata(store.real_store / name)
    except OSError:
        return "unreadable"
    if not seen.canonical or not seen.nar_size:
        return "partial"
    return "seemingly complete"


def database(result: Scan) -> None:
    """Turn what is wrong with the database as a whole into findings."""
    store = result.store
    place = str(store.database)
    if not store.database.exists():
        severity = PROBLEM if result.names else NOTE
        result.database = result.database or "it is missing"
        result.findings.insert(
            0, Finding(findings.DATABASE_MISSING, severity, place,
                       "is missing: Nix makes a new, empty one, and a garbage collection then deletes everything")
        )  # fmt: skip
    elif result.database:
        result.findings.insert(0, Finding(findings.DATABASE_MALFORMED, PROBLEM, place, result.database))
    try:
        wal = write_ahead_log(store.database)
    except OSError:
        wal = Wal()
    if wal.torn:
        result.findings.append(
            Finding(findings.TORN_WAL, PROBLEM if wal.lost_commits else NOTE, place + "-wal",
                    f"{wal.lost_commits} transactions behind page {wal.frames} cannot be read: what they "
                    "registered is on disk without a row",
                    evidence={"readable_pages": wal.frames, "lost_pages": wal.lost_frames,
                              "lost_transactions": wal.lost_commits, "cut_off": wal.partial})
        )  # fmt: skip
    complaint = schema_complaint(store)
    if complaint and store.database.exists():
        # Nix works without the file; it does not with a wrong one.
        severity = NOTE if complaint == "it is missing" else PROBLEM
        result.findings.append(
            Finding(findings.SCHEMA_VERSION, severity, str(store.state_dir / "db" / "schema"), complaint)
        )


def surroundings(
    result: Scan, names: set[bytes], settings: Settings, environment: Mapping[str, str] | None
) -> None:
    """Add what lies around the store, and the causes of damage."""
    store = result.store
    known = set(result.orphans)
    others = [name for name in map(os.fsdecode, names) if name not in known]
    found = leftovers.find_trash(store, others)
    found += leftovers.serve_processes(store)
    found += leftovers.narinfo_caches(store, os.environ if environment is None else environment)
    found += leftovers.interrupted(store)
    found += [
        Finding(
            findings.UNKNOWN_NAME,
            NOTE,
            f"{store.store_dir}/{name}",
            "is no store path; a garbage collection deletes it",
        )
        for name in sorted(others)
        if not leftovers.trash(store, name)
    ]
    found += leftovers.causes(store, settings)
    result.findings += found
    result.findings.sort(key=lambda finding: finding.severity != PROBLEM)
