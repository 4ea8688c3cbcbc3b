"""Pushes: who holds the token, which policy fits which cache, and whose pipeline may push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kingpost.topology.checks.registry import Example, Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene


@check(
    "KP-PUSH-TARGET",
    title="A push goes to an Attic or Cachix cache",
    why="nothing is known about how, or whether, another binary cache takes uploads",
    fix="push to a declared Attic or Cachix cache",
    example=Example(
        bad="[pipelines.blog]\npush = [\n"
        '  { cache = "substituter:nixos", policy = "required", token = { variable = "TOKEN" } },\n]',
        good="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 0, "cache"),
    ),
)
def pushable(scene: Scene) -> Iterator[Finding]:
    """Find pushes to caches that take none."""
    for path, name, push in scene.pushes():
        ref = scene.cache(push.cache)
        if ref and ref.kind == "substituter":
            yield Finding((*path, "cache"), f"the pipeline {name} pushes to {ref}, which can only be read")


@check(
    "KP-PUSH-NO-TOKEN",
    title="Every push has a token",
    why="without one the server answers 401, or 403 on a public cache, and the cache stays empty",
    fix='say where the job finds it, for example `token = { variable = "ATTIC_TOKEN" }`',
    example=Example(
        bad='[pipelines.blog]\npush = [{ cache = "attic:home/main", policy = "required" }]',
        good="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "ATTIC_TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 0),
    ),
)
def no_token(scene: Scene) -> Iterator[Finding]:
    """Find pushes without a token."""
    for path, name, push in scene.pushes():
        if not (push.token.variable or push.token.secret or push.token.login):
            yield Finding(path, f"the pipeline {name} pushes to {push.cache} without a token")


@check(
    "KP-PUSH-TOKENS",
    title="A push takes its token from one place",
    why="nothing says which of them is used, so one of them rots unnoticed",
    fix="keep one of `variable`, `secret` and `login`",
    example=Example(
        bad="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN", secret = "push" } },\n]',
        good="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 0, "token"),
    ),
)
def several_tokens(scene: Scene) -> Iterator[Finding]:
    """Find pushes with several sources of one token."""
    for path, name, push in scene.pushes():
        sources = [key for key in ("variable", "secret", "login") if getattr(push.token, key)]
        if len(sources) > 1:
            yield Finding((*path, "token"), f"the pipeline {name} has {len(sources)} tokens for {push.cache}")


@check(
    "KP-PUSH-OTHER-USER",
    title="A push uses the login of the user that its job runs as",
    why="`attic login` writes to that user's ~/.config/attic alone: root, another user and a container have no"
    " token, the build succeeds, and the cache is not filled",
    fix="take the token from a CI variable or a secret's file, or log in as the user that the job runs as",
    example=Example(
        bad="[pipelines.host]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { login = "ann" } },\n]',
        good="[pipelines.host]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { login = "gitlab-runner" } },\n]',
        at=("pipelines", "host", "push", 0, "token", "login"),
    ),
)
def foreign_login(scene: Scene) -> Iterator[Finding]:
    """Find pushes with the login of a user that the job is not."""
    for path, name, push in scene.pushes():
        runner = scene.topology.runners.get(scene.topology.pipelines[name].runner)
        login = push.token.login
        if runner is None or login is None:
            continue
        where = (*path, "token", "login")
        if runner.executor != "shell":
            yield Finding(
                where,
                f"jobs of {name} run in containers, which have no part in the login of {login} on the host",
            )
        elif login != runner.user:
            yield Finding(where, f"jobs of {name} run as {runner.user}, and the token is in {login}'s login")


@check(
    "KP-PUSH-BEST-EFFORT",
    title="A push to the cache that readers rely on is required",
    why="a best-effort push that fails leaves the pipeline green, and every reader of the primary cache without"
    " the paths",
    fix='write `policy = "required"`, or say `because = "…"`',
    example=Example(
        bad='[pipelines.blog]\nprimary = "attic:home/main"\npush = [\n'
        '  { cache = "attic:home/main", policy = "best-effort", token = { variable = "TOKEN" } },\n]',
        good='[pipelines.blog]\nprimary = "attic:home/main"\npush = [\n'
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 0, "policy"),
    ),
)
def lax_primary(scene: Scene) -> Iterator[Finding]:
    """Find best-effort pushes to the primary cache that give no reason."""
    for path, name, push in scene.pushes():
        primary = scene.topology.pipelines[name].primary or scene.topology.site.primary
        ref = scene.cache(primary)
        if (
            ref
            and scene.cache(push.cache) == ref
            and push.policy == "best-effort"
            and not push.because.strip()
        ):
            yield Finding(
                (*path, "policy"), f"the pipeline {name} pushes to its primary cache {ref} best-effort"
            )


@check(
    "KP-PUSH-REQUIRED",
    title="A push to a secondary cache is best-effort",
    why="a required push stops the pipeline whenever the supplementary cache or its storage is down",
    fix='write `policy = "best-effort"`, or say `because = "…"`',
    example=Example(
        bad='[cachix.readers]\npublic_key = "readers.cachix.org-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="\n\n'
        '[pipelines.blog]\nprimary = "cachix:readers"\npush = [\n'
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n]',
        good='[cachix.readers]\npublic_key = "readers.cachix.org-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="\n\n'
        '[pipelines.blog]\nprimary = "cachix:readers"\npush = [\n'
        '  { cache = "attic:home/main", policy = "best-effort", token = { variable = "TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 0, "policy"),
    ),
)
def strict_secondary(scene: Scene) -> Iterator[Finding]:
    """Find required pushes to another cache than the primary one that give no reason."""
    for path, name, push in scene.pushes():
        primary = scene.topology.pipelines[name].primary or scene.topology.site.primary
        ref, own = scene.cache(primary), scene.cache(push.cache)
        if ref and own and own != ref and push.policy == "required" and not push.because.strip():
            yield Finding(
                (*path, "policy"), f"the pipeline {name} must push to {own}, but its readers rely on {ref}"
            )


@check(
    "KP-PUSH-TWICE",
    title="A pipeline pushes to a cache once",
    why="the second push finds everything there, and its policy contradicts the first",
    fix="keep one of them",
    example=Example(
        bad="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n'
        '  { cache = "home/main", policy = "best-effort", token = { variable = "TOKEN" } },\n]',
        good="[pipelines.blog]\npush = [\n"
        '  { cache = "attic:home/main", policy = "required", token = { variable = "TOKEN" } },\n]',
        at=("pipelines", "blog", "push", 1, "cache"),
    ),
)
def pushed_twice(scene: Scene) -> Iterator[Finding]:
    """Find two pushes of one pipeline to one cache."""
    seen = set()
    for path, name, push in scene.pushes():
        ref = scene.cache(push.cache)
        if ref and (name, ref) in seen:
            yield Finding((*path, "cache"), f"the pipeline {name} pushes to {ref} twice")
        seen.add((name, ref))


@check(
    "KP-PUSH-FORKS",
    title="A fork's pipeline pushes nothing",
    why="whoever opens a merge request could put anything into the cache, signed with its key, and read its token",
    fix='remove `forks = "push"`',
    example=Example(
        bad='[pipelines.blog]\nforks = "push"',
        good='[pipelines.blog]\nforks = "no-push"',
        at=("pipelines", "blog", "forks"),
    ),
)
def forks(scene: Scene) -> Iterator[Finding]:
    """Find pipelines that let forks push."""
    for name, pipeline in scene.topology.pipelines.items():
        if pipeline.forks == "push" and any(push.policy != "off" for push in pipeline.push):
            yield Finding(("pipelines", name, "forks"), f"pipelines of forks may push with {name}'s token")
