"""The plan: what would be done to each path, why, in what order, and what is lost. As a file, it replays exactly.

Order of preference for a path: fetch it, rebuild it, register what is there, drop it with what depends on it if
nothing alive does, cut it out of what is alive if the user allows that by name. What none of these can mend is
listed under `left`, with what the user can do.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .interface import PathInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

PLAN_SCHEMA = "kingpost.store-fix.plan/1"

# Kinds of actions, in the order in which they are done.
SALVAGE = "salvage"  # read what can be read of a malformed database into a new one
CLEAN = "clean"  # remove a leftover, a damaged hard link or cache; write the schema file
FETCH = "fetch"  # unpack a path from a source, in place of what is there
FORGET = "forget"  # delete rows that belong to no registered path
REGISTER = "register"  # register what is on disk, after a source has vouched for it
ADOPT = "adopt"  # register what is on disk and nobody vouches for, since the user said so
RESTATE = "restate"  # set references or size of a registered path right
DROP = "drop"  # deregister a path that is lost and needed by nothing, or refers to one
CUT = "cut"  # deregister a lost path that is needed, leaving what needs it incomplete
UNROOT = "unroot"  # move a link to a lost path out of the way
REBUILD = "rebuild"  # have Nix build it again

ORDER = (SALVAGE, CLEAN, FETCH, FORGET, REGISTER, ADOPT, RESTATE, DROP, CUT, UNROOT, REBUILD)


@dataclass(frozen=True)
class Action:
    """One thing to do.

    Attributes:
        kind: One of the constants above.
        subject: A store path; for `clean`, `unroot` and `forget` a file or a table.
        reason: Why this and nothing else, in one sentence.
        needed_by: Labels of roots that need the path; empty if none does.
        loses: What is lost by it; empty if nothing is.
        source: Where the bytes come from, as the source describes itself.
        info: What is registered, for `fetch`, `register`, `adopt` and `restate`; for `fetch` only what is
            unpacked if `registers` is not set.
        registers: Whether `info` replaces the row, for `fetch`.
        row: Id in the database, 0 if none.
        others: Paths that are affected too: what becomes incomplete by `cut`, which lost rows keep their
            references in spite of `forget` (`row 17`).
        lost: There was nothing on disk at its place.

    """

    kind: str
    subject: str
    reason: str
    needed_by: tuple[str, ...] = ()
    loses: str = ""
    source: str = ""
    info: PathInfo | None = None
    registers: bool = False
    row: int = 0
    others: tuple[str, ...] = ()
    lost: bool = False

    @property
    def offered(self) -> PathInfo:
        """Give `info`.

        Raises:
            UsageError: The plan has none: it was not made by this program.

        """
        if self.info is None:
            raise UsageError(f"the plan does not say what {self.subject} is", fix="make a new plan")
        return self.info


@dataclass(frozen=True)
class Left:
    """Something that the plan does not mend.

    Attributes:
        subject: A store path, link or row.
        reason: Why not.
        fix: What the user can do.
        needed_by: Labels of roots that need it.

    """

    subject: str
    reason: str
    fix: str
    needed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that one repair does.

    Attributes:
        root: Root directory of the store it was made for.
        store_dir: Its logical store directory.
        state_dir: Its state directory on this machine.
        created: Seconds since the epoch; also the registration time of what is registered.
        fingerprint: Of the database, see `database.fingerprint`; empty if it is malformed.
        actions: In the order in which they are done.
        left: What is not mended.
        unreached: Sources that did not answer: name to reason.

    """

    root: str
    store_dir: str
    state_dir: str
    created: int
    fingerprint: str
    actions: tuple[Action, ...] = ()
    left: tuple[Left, ...] = ()
    unreached: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Give 16 hexadecimal digits that name this plan and no other."""
        text = json.dumps(self.as_dict(named=False), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def as_dict(self, *, named: bool = True) -> dict[str, Any]:
        """Give the JSON form, as docs/store-fix.md describes it."""
        return {
            "schema": PLAN_SCHEMA,
            **({"id": self.id} if named else {}),
            "root": self.root,
            "store_dir": self.store_dir,
            "state_dir": self.state_dir,
            "created": self.created,
            "fingerprint": self.fingerprint,
            "actions": [_bare(asdict(action)) for action in self.actions],
            "left": [_bare(asdict(left)) for left in self.left],
            "unreached": dict(self.unreached),
        }

    def of(self, *kinds: str) -> list[Action]:
        """Give the actions of some kinds, in order."""
        return [action for action in self.actions if action.kind in kinds]


def in_order(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Sort actions by kind; within a kind they keep their order."""
    return tuple(sorted(actions, key=lambda action: ORDER.index(action.kind)))


def _bare(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty: a plan is read by people too."""
    return {name: value for name, value in fields.items() if value not in ("", (), None, 0, False)}


def to_json(plan: Plan) -> str:
    """Give the text of a plan file."""
    return json.dumps(plan.as_dict(), indent=1) + "\n"


def from_json(text: str, where: str) -> Plan:
    """Read a plan file.

    Args:
        text: Its text.
        where: Its name, for errors.

    Raises:
        UsageError: It is no plan of this version, or was edited.

    """
    try:
        raw = json.loads(text)
        if raw["schema"] != PLAN_SCHEMA:
            raise UsageError(
                f"this plan has the form {raw['schema']!r}",
                where=where,
                why=f"this program writes and reads {PLAN_SCHEMA}",
                fix="make a new plan: store-fix plan -o plan.json",
            )
        plan = Plan(
            root=str(raw["root"]),
            store_dir=str(raw["store_dir"]),
            state_dir=str(raw["state_dir"]),
            created=int(raw["created"]),
            fingerprint=str(raw["fingerprint"]),
            actions=tuple(_action(item) for item in raw["actions"]),
            left=tuple(Left(**_tuples(item)) for item in raw["left"]),
            unreached={str(name): str(reason) for name, reason in raw["unreached"].items()},
        )
        known = raw["id"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            "this is no plan", where=where, why=str(error), fix="make one: store-fix plan -o plan.json"
        ) from error
    if plan.id != known:
        raise UsageError(
            "this plan was changed after it was made",
            where=where,
            why="what is executed must be what was shown; its id does not fit its contents",
            fix="make a new plan: store-fix plan -o plan.json",
        )
    return plan


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}


def _action(raw: dict[str, Any]) -> Action:
    fields = _tuples(raw)
    if fields["kind"] not in ORDER:
        raise ValueError(f"unknown action {fields['kind']!r}")
    if fields.get("info") is not None:
        fields["info"] = PathInfo(**_tuples(fields["info"]))
    return Action(**fields)


def read(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        UsageError: It cannot be read, is no plan, or was edited.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the plan cannot be read", where=str(path), why=str(error)) from error
    return from_json(text, str(path))
