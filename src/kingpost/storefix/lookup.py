"""Ask all sources for the paths that are wanted, and for what those need in turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable

from .errors import SourceError
from .interface import PathInfo, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .interface import Source


@dataclass
class Offers:
    """What the sources said.

    Attributes:
        known: Path to the source that offers it and what it says of it.
        refused: Path to why an answer could not be used.
        unreached: Source to why it did not answer at all.

    """

    known: dict[str, tuple[str, PathInfo]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)


class Lookup:
    """Asks sources in order, each only for what none before had.

    Args:
        sources: In the order in which they are asked.

    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._asked: set[str] = set()
        self.offers = Offers()

    def ask(self, wanted: Iterable[Wanted], closed: Callable[[str], bool]) -> None:
        """Ask for paths and then for what they refer to, until nothing new is named.

        Args:
            wanted: Paths, with their hash if the database knows it.
            closed: Tells of a path whether it need not be asked for, since it is registered.

        """
        todo = list(wanted)
        while todo:
            todo = [item for item in todo if item.path not in self._asked]
            self._asked.update(item.path for item in todo)
            self._ask_all(todo)
            more: dict[str, Wanted] = {}
            for item in todo:
                offer = self.offers.known.get(item.path)
                # An answer with the hash we know brings no references that we do not have.
                if offer and not (item.nar_hash and closed(item.path) and offer[1].nar_hash == item.nar_hash):
                    for path in offer[1].references:
                        if not closed(path):
                            more[path] = Wanted(path)
            todo = list(more.values())

    def ask_references(self, paths: Iterable[str], closed: Callable[[str], bool]) -> None:
        """Ask for what known offers refer to, although the database has their row."""
        more = {
            path: Wanted(path)
            for name in paths
            if name in self.offers.known
            for path in self.offers.known[name][1].references
            if not closed(path)
        }
        self.ask(more.values(), closed)

    def _ask_all(self, wanted: list[Wanted]) -> None:
        """Ask each source in turn; an answer with the hash that the database knows ends the search."""
        offers = self.offers
        for source in self._sources:
            name = source.describe()
            todo = [item for item in wanted if not self._settled(item)]
            if not todo or name in offers.unreached:
                continue
            try:
                answers = source.query(todo)
            except SourceError as error:
                offers.unreached[name] = error.why or error.what
                continue
            hashes = {item.path: item.nar_hash for item in todo}
            for path, answer in answers.items():
                if isinstance(answer, PathInfo):
                    if path not in offers.known or answer.nar_hash == hashes.get(path):
                        offers.known[path] = (name, answer)
                else:
                    offers.refused.setdefault(path, str(answer.what))

    def _settled(self, item: Wanted) -> bool:
        offer = self.offers.known.get(item.path)
        return offer is not None and (not item.nar_hash or offer[1].nar_hash == item.nar_hash)
