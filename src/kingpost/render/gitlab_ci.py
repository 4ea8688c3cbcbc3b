"""A .gitlab-ci.yml for every pipeline, to be used with `include:`.

The shell behind it is `templates/ci/functions.sh`. Every value reaches it as a quoted argument of a script line,
so what a topology says is never read as shell. Tokens are named there, never written.
"""

from __future__ import annotations

from functools import cache
from shlex import quote
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kingpost.base.errors import InvalidInputError
from kingpost.render import layout
from kingpost.render.nix_conf import settings, settings_text
from kingpost.render.secret_files import ATTIC_TOKEN, secret_path, token_variable
from kingpost.render.sources import templates
from kingpost.render.yaml_text import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.ci import PushToken
    from kingpost.topology.places import Context
    from kingpost.topology.platform import Platform, PushRoute

FUNCTIONS: Final = "ci/functions.sh"
WARNING_EXIT: Final = 75
"""EX_TEMPFAIL: what a job ends with when only best-effort pushes failed."""

CLEAN: Final = 'rm -rf "${TMPDIR:-/tmp}/kingpost-job-$CI_JOB_ID"'


@cache
def functions() -> str:
    """Give the shell functions that every job begins with."""
    return (templates() / FUNCTIONS).read_text(encoding="utf-8")


def render_pipelines(platform: Platform) -> dict[str, str]:
    """Give every pipeline's file."""
    return {layout.pipeline_file(name): pipeline_yaml(platform, name) for name in platform.topology.pipelines}


def pipeline_yaml(platform: Platform, name: str) -> str:
    """Give one pipeline's file: a job of its name, and automatic cancelling of what a new commit replaces."""
    pipeline = platform.topology.pipelines[name]
    runner = platform.topology.runners[pipeline.runner]
    context = platform.runner_context(pipeline.runner)
    pushes = [push for push in platform.pushes(name) if push.push.policy != "off"]
    job: dict[str, Any] = {"stage": "build"}
    if runner.server.tags:
        job["tags"] = list(runner.server.tags)
    if runner.executor != "shell" and (image := pipeline.image or runner.image):
        job["image"] = image
    job["interruptible"] = pipeline.interruptible
    if any(push.push.policy == "best-effort" for push in pushes):
        job["allow_failure"] = {"exit_codes": [WARNING_EXIT]}
    job["variables"] = {"NIX_CONFIG": settings_text(settings(platform, context, fallback=pipeline.fallback))}
    job["before_script"] = [functions(), *_begin(platform, context, pipeline.forks, pushes)]
    job["script"] = [
        *(line("kingpost_build", installable) for installable in pipeline.build),
        *(_push(platform, push) for push in pushes),
        "kingpost_end",
    ]
    job["after_script"] = [CLEAN]
    job["artifacts"] = {"when": "always", "expire_in": "30 days", "paths": ["kingpost-report/"]}
    comments = [
        f"Pipeline {name} on runner {pipeline.runner}, in {context.id}; rendered by kingpost:",
        "change the topology instead.",
        *(_explained(push) for push in pushes),
    ]
    return yaml(
        comments, {"workflow": {"auto_cancel": {"on_new_commit": "interruptible"}}, _job_name(name): job}
    )


def _job_name(name: str) -> str:
    """Give the pipeline's name, kept apart from the words that GitLab reserves for the top level."""
    reserved = {"image", "services", "stages", "types", "before_script", "after_script", "variables", "cache",
                "include", "default", "workflow", "spec", "pages", "true", "false", "nil"}  # fmt: skip
    return f"{name}-build" if name in reserved else name


def _explained(push: PushRoute) -> str:
    where = push.route.url or "no address"
    return f"{push.push.policy} push to {push.ref} at {where}: {push.route.reason}"


def _begin(platform: Platform, context: Context, forks: str, pushes: list[PushRoute]) -> Iterator[str]:
    variables = dict.fromkeys(push.push.token.variable for push in pushes if push.push.token.variable)
    yield line("kingpost_begin", forks, *map(str, variables))
    if not context.own_store:
        return  # the host's daemon reads private caches with the host's netrc
    tokens = {push.ref.server: push.push.token for push in pushes if push.ref.kind == "attic"}
    machines: set[str] = set()
    for use in platform.cache_uses(context.id):
        machine = urlsplit(use.url or "").hostname
        token = tokens.get(use.ref.server)
        if use.ref.kind != "attic" or use.public or machine is None or machine in machines:
            continue
        if token and not token.login:
            machines.add(machine)
            yield line("kingpost_netrc", machine, *token_words(platform, token, ATTIC_TOKEN))


def _push(platform: Platform, push: PushRoute) -> str:
    head = ("kingpost_push", push.push.policy, str(push.ref))
    jobs = str(push.push.jobs)
    if push.ref.kind == "attic":
        token = token_words(platform, push.push.token, ATTIC_TOKEN, login=push.ref.server)
        return line(*head, "kingpost_attic", f"{push.route.url}/", push.ref.cache, jobs, *token)
    if push.ref.kind != "cachix":
        raise InvalidInputError(
            f"nothing can be pushed to {push.ref}",
            fix="push to an Attic or Cachix cache",
            where=str(push.ref),
        )
    cachix = platform.topology.cachix[push.ref.server]
    token = token_words(platform, push.push.token, "CACHIX_AUTH_TOKEN", login=push.ref.server)
    return line(*head, "kingpost_cachix", cachix.name or push.ref.server, jobs, *token)


def token_words(platform: Platform, token: PushToken, usual: str, *, login: str = "") -> list[str]:
    """Give where `kingpost_read_token` finds a token; the usual CI variable where nothing is declared."""
    if token.login and login:
        return ["login", login]
    secret = platform.topology.secrets.get(token.secret or "")
    if token.secret and secret:
        path = secret_path(token.secret, secret)
        return ["raw", path] if secret.format == "raw" else ["env", path, token_variable(secret, usual)]
    return ["variable", token.variable or usual]


def line(*words: str) -> str:
    """Give a script line: every word quoted for a POSIX shell."""
    return " ".join(map(quote, words))
