"""Runners as GitLab sees them, through its API.

Shapes: https://docs.gitlab.com/api/runners/ (`GET /runners`, `GET /runners/:id`, `GET /runners/:id/managers`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kingpost.base import http
from kingpost.base.errors import CannotLookError
from kingpost.observe import drift_codes as codes
from kingpost.observe.drift_items import shown
from kingpost.topology.contexts import all_gitlab

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.topology.ci import Runner, RunnerServer
    from kingpost.topology.platform import Platform


@dataclass(frozen=True, slots=True)
class Known:
    """What hosts say of their runners.

    Attributes:
        ids: GitLab's ids, by the runner's name; those that the user gave win.
        system_ids: Of the gitlab-runner on each host.
        versions: Likewise.

    """

    ids: Mapping[str, int]
    system_ids: Mapping[str, str]
    versions: Mapping[str, str]


def judge(platform: Platform, tokens: Mapping[str, str], known: Known) -> Iterator[Verdict]:
    """Compare every declared runner with what GitLab holds of it.

    Args:
        platform: What is declared.
        tokens: A token that may read runners, by the instance's name.
        known: What hosts said.

    """
    instances = all_gitlab(platform.topology)
    for instance, gitlab in instances.items():
        mine = {
            name: runner
            for name, runner in platform.topology.runners.items()
            if (runner.gitlab or next(iter(instances))) == instance
        }
        if not mine:
            continue
        if instance not in tokens:
            why = f"no token for {instance}: pass --gitlab-token {instance}=FILE, with one that has read_api"
            yield from (codes.NOT_ASKED.verdict(_subject(name), why, remedy="") for name in mine)
            continue
        with http.client(read_timeout=20) as client:
            client.headers["PRIVATE-TOKEN"] = tokens[instance]
            yield from _instance(Api(client, f"{gitlab.url.rstrip('/')}/api/v4"), mine, known)


def _instance(api: Api, runners: Mapping[str, Runner], known: Known) -> Iterator[Verdict]:
    try:
        listed = api.pages("/runners") if any(name not in known.ids for name in runners) else []
        for name, runner in runners.items():
            found = [one["id"] for one in listed if name in {one.get("description"), one.get("name")}]
            number = known.ids.get(name, found[0] if found else None)
            details = api.get(f"/runners/{number}") if number is not None else None
            if details is None:
                others = [one.get("description") for one in listed]
                words = f"declared {name}, and GitLab shows {shown(others)}"
                evidence = {"declared": name, "operational": others}
                yield codes.RUNNER_UNKNOWN.verdict(_subject(name), words, evidence)
                continue
            managers = api.get(f"/runners/{number}/managers") or []
            yield from compare(name, runner, details, managers, known)
    except CannotLookError as error:
        for name in runners:
            yield codes.NOT_ASKED.verdict(_subject(name), error.what, remedy=error.fix)


class Api:
    """GitLab's REST API, read only."""

    def __init__(self, client: httpx.Client, base: str) -> None:
        self._client = client
        self._base = base

    def get(self, path: str, **parameters: Any) -> Any:
        """Give a document; None for 404.

        Raises:
            CannotLookError: GitLab cannot be asked.

        """
        return self._ask(path, parameters)[0]

    def pages(self, path: str) -> list[dict[str, Any]]:
        """Give every item of a list, page by page (at most 100 pages)."""
        found: list[dict[str, Any]] = []
        page = "1"
        for _ in range(100):
            items, page = self._ask(path, {"per_page": 100, "page": page})
            if not isinstance(items, list):
                raise CannotLookError("what answers is no GitLab", where=f"{self._base}{path}")
            found += items
            if not page:
                break
        return found

    def _ask(self, path: str, parameters: dict[str, Any]) -> tuple[Any, str]:
        import httpx  # noqa: PLC0415 - slow to import

        url = f"{self._base}{path}"
        try:
            answer = self._client.get(url, params=parameters)
            if answer.status_code == 404:
                return None, ""
            if answer.status_code in {401, 403}:
                raise CannotLookError(
                    f"GitLab refuses the token with HTTP {answer.status_code}",
                    where=url,
                    fix="use a personal access token with read_api, of a maintainer or owner",
                )
            answer.raise_for_status()
            return answer.json(), answer.headers.get("x-next-page", "")
        except (httpx.HTTPError, ValueError) as error:
            raise CannotLookError(f"GitLab cannot be asked: {error}", where=url) from error


def compare(
    name: str, runner: Runner, details: Mapping[str, Any], managers: list[dict[str, Any]], known: Known
) -> Iterator[Verdict]:
    """Compare one runner with its details and its machines, as GitLab gives them."""
    status = "paused" if details.get("paused") else str(details.get("status"))
    yield _compared(codes.RUNNER_AWAY, name, "status", "online", status, at=details.get("contacted_at"))
    for item, declared, seen in _server(runner.server, details):
        yield _compared(codes.RUNNER_SERVER, name, item, declared, seen)
    own = known.system_ids.get(runner.host or "", "")
    yield from _machines(name, runner, managers, own)
    version = known.versions.get(runner.host or "", "")
    current = next((one for one in managers if one.get("system_id") == own), None)
    if version and current:
        yield _compared(codes.RUNNER_VERSION, name, "version", version, current.get("version"))


def _server(server: RunnerServer, details: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    yield "tags", sorted(server.tags), sorted(details.get("tag_list", []))
    yield "protected", server.protected, details.get("access_level") == "ref_protected"
    yield "run untagged", server.run_untagged, details.get("run_untagged")
    if details.get("runner_type") == "project_type":
        yield "locked", server.locked, details.get("locked")
    if server.maximum_timeout is not None:
        yield "maximum timeout", server.maximum_timeout, details.get("maximum_timeout")


def _machines(name: str, runner: Runner, managers: list[dict[str, Any]], own: str) -> Iterator[Verdict]:
    if runner.executor == "kubernetes" or not managers:
        return  # a Deployment may have replicas
    seen = [
        {key: one.get(key) for key in ("system_id", "status", "contacted_at", "version", "ip_address")}
        for one in managers
    ]
    ids = [one["system_id"] for one in seen]
    if len(ids) == 1 and own in {"", ids[0]}:
        yield _same(name, "machines", ids)
        return
    words = "; ".join(
        f"{one['system_id']} {one['status']}{' (this host)' if one['system_id'] == own else ''}"
        for one in seen
    )
    if own and own not in ids:
        words += f"; the host itself has {own}, which GitLab has not seen"
    yield codes.RUNNER_SYSTEM_IDS.verdict(
        f"{_subject(name)} machines", f"declared one machine, GitLab lists {words}",
        {"declared": own or "one machine", "operational": seen},
    )  # fmt: skip


def _subject(runner: str) -> str:
    return f"runner {runner} at GitLab"


def _same(name: str, item: str, value: Any) -> Verdict:
    evidence = {"declared": value, "operational": value}
    return codes.SAME.verdict(f"{_subject(name)} {item}", f"{shown(value)}, as declared", evidence)


def _compared(code: Code, name: str, item: str, declared: Any, seen: Any, *, at: Any = None) -> Verdict:
    if declared == seen:
        return _same(name, item, declared)
    evidence = {"declared": declared, "operational": seen, **({"contacted_at": at} if at else {})}
    return code.verdict(
        f"{_subject(name)} {item}", f"declared {shown(declared)}, in operation {shown(seen)}", evidence
    )
