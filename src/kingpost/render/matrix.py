"""Who reaches what at which address: the rows behind `kingpost matrix` and matrix.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kingpost.render.layout import MATRIX
from kingpost.topology.places import Dialer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from kingpost.topology.platform import Platform
    from kingpost.topology.routes import Route

EVERYTHING: Final = 2000
"""Up to so many combinations matrix.md lists all; above, those that the platform needs."""

_DAEMONS: Final = ("attic", "cachix", "substituter", "bucket")


class Row(NamedTuple):
    """One dialer, one service.

    Attributes:
        context: Id of the context.
        dialer: `client` or `daemon`.
        service: Reference of the service.
        url: The base URL; None when it cannot be reached.
        via: The kind of way.
        reason: Why this address, or why there is none.
        fix: What to change where there is none.
        needs: What the platform does there; empty when nothing does.

    """

    context: str
    dialer: str
    service: str
    url: str | None
    via: str
    reason: str
    fix: str
    needs: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the JSON form."""
        return {**self._asdict(), "needs": list(self.needs)}


def rows(
    platform: Platform,
    *,
    needed: bool = False,
    contexts: Collection[str] = (),
    services: Collection[str] = (),
) -> Iterator[Row]:
    """Give the rows, context by context.

    Args:
        platform: The platform.
        needed: Only connections that the platform makes.
        contexts: Only these ids; empty is all.
        services: Only these references; empty is all.

    """
    why: dict[tuple[str, Dialer, str], list[str]] = {}
    for need in platform.needs:
        why.setdefault((need.context, need.dialer, need.service), []).append(need.why)
    order = {context: number for number, context in enumerate(platform.contexts)}
    keys: Iterable[tuple[str, Dialer, str]] = (
        sorted(why, key=lambda key: order[key[0]]) if needed else _combinations(platform)
    )
    for context, dialer, service in keys:
        if (contexts and context not in contexts) or (services and service not in services):
            continue
        yield _row(platform.route(context, dialer, service), why.get((context, dialer, service), []))


def _combinations(platform: Platform) -> Iterator[tuple[str, Dialer, str]]:
    """Give every context with every service; a Nix daemon dials no GitLab, and a server's context has none."""
    for context in platform.contexts.values():
        for service in platform.services:
            yield context.id, Dialer.CLIENT, service
            if context.kind != "service" and service.startswith(_DAEMONS):
                yield context.id, Dialer.DAEMON, service


def _row(route: Route, needs: list[str]) -> Row:
    why = tuple(dict.fromkeys(needs))
    return Row(
        route.context, str(route.dialer), route.service, route.url, route.via, route.reason, route.fix, why
    )


def render_matrix(platform: Platform) -> dict[str, str]:
    """Give matrix.md by its path."""
    return {MATRIX: matrix_md(platform)}


def matrix_md(platform: Platform) -> str:
    """Give matrix.md."""
    combinations = len(platform.contexts) * len(platform.services)
    everything = combinations <= EVERYTHING
    lines = [f"# Who reaches what: {platform.topology.site.name}", ""]
    if not everything:
        lines += [
            f"Only what the platform dials is here; `kingpost matrix` shows all of {combinations} combinations.",
            "",
        ]
    lines += markdown(rows(platform, needed=not everything), platform)
    return "\n".join(lines) + "\n"


def markdown(found: Iterable[Row], platform: Platform) -> list[str]:
    """Give one table per context, as lines of Markdown."""
    lines: list[str] = []
    last = None
    for row in found:
        if row.context != last:
            context = platform.contexts[row.context]
            if last is not None:
                lines.append("")
            lines += [
                f"## {row.context}",
                "",
                f"Client in `{context.client}`, Nix daemon in `{context.daemon}`, user `{context.user}`.",
                "",
                "| service | dialer | address | why | used for |",
                "| --- | --- | --- | --- | --- |",
            ]
            last = row.context
        address = f"`{row.url}`" if row.url else "**unreachable**"
        reason = row.reason if row.url else f"{row.reason}. Fix: {row.fix}"
        cells = [row.service, row.dialer, address, reason, "; ".join(row.needs)]
        if any("|" in cell for cell in cells):
            cells = [cell.replace("|", "\\|") for cell in cells]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
