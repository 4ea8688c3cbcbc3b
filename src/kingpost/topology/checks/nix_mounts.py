"""A container's view of Nix: which parts of /nix it may have from its host, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kingpost.topology.checks.registry import Example, Finding, Path, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.topology.checks.scene import Scene
    from kingpost.topology.ci import Runner

_STORE: Final = "/nix/store"
_DB: Final = "/nix/var/nix/db"
_SOCKET: Final = "/nix/var/nix/daemon-socket"
_RENDERED: Final = (_STORE, _DB, _SOCKET)

_HOST_DAEMON: Final = 'remove the volume and write `nix = "host-daemon"`: the right mounts are then rendered'


@dataclass(frozen=True, slots=True)
class Volume:
    """A docker volume: `[source:]target[:options]`."""

    path: Path
    source: str
    target: str
    options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Tell whether the container cannot write there."""
        return bool(self.options & {"ro", "readonly"})

    def covers(self, place: str) -> bool:
        """Tell whether a place of the container lies in this volume."""
        return place == self.target or place.startswith(self.target.rstrip("/") + "/")


def _volumes(scene: Scene) -> Iterator[tuple[str, Runner, Volume]]:
    for name, runner in scene.topology.runners.items():
        if runner.executor != "docker":
            continue
        for index, text in enumerate(runner.volumes):
            words = text.split(":")
            source, target = (words[0], words[1]) if len(words) > 1 else ("", words[0])
            options = frozenset(words[2].split(",")) if len(words) > 2 else frozenset()
            target = target.rstrip("/") or "/"
            yield name, runner, Volume(("runners", name, "volumes", index), source, target, options)


def _from_host(volume: Volume) -> bool:
    """Tell whether it is the host's own /nix, or a part of it."""
    return volume.source.rstrip("/").startswith("/nix")


@check(
    "KP-MOUNT-NIX-WHOLE",
    title="/nix is never mounted as one volume",
    why="it hides the image's own store, and with it every program in the image: `command not found` for grep, ls, sh",
    fix=_HOST_DAEMON,
    example=Example(
        bad='[runners.blog]\nvolumes = ["/nix:/nix:ro"]',
        good='[runners.blog]\nnix = "host-daemon"',
        at=("runners", "blog", "volumes", 0),
    ),
)
def whole_nix(scene: Scene) -> Iterator[Finding]:
    """Find volumes over a container's /nix."""
    for name, _, volume in _volumes(scene):
        if volume.target == "/nix":
            yield Finding(volume.path, f"the runner {name} mounts a volume over its containers' whole /nix")


@check(
    "KP-MOUNT-SOCKET-RO",
    title="The Nix daemon's socket is mounted writable",
    why="a client writes to the socket: read-only, every `nix build` in the container fails to reach the daemon",
    fix=_HOST_DAEMON,
    example=Example(
        bad='[runners.blog]\nvolumes = ["/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket:ro"]',
        good='[runners.blog]\nnix = "host-daemon"',
        at=("runners", "blog", "volumes", 0),
    ),
)
def read_only_socket(scene: Scene) -> Iterator[Finding]:
    """Find the daemon's socket mounted read-only."""
    for name, _, volume in _volumes(scene):
        if volume.read_only and volume.target.startswith(_SOCKET):
            yield Finding(volume.path, f"the runner {name} mounts the Nix daemon's socket read-only")


@check(
    "KP-MOUNT-NIX-WRITABLE",
    title="A container never writes to its host's Nix store or database",
    why="a job, as root in its container, could change what every build on the host trusts, past the daemon",
    fix=_HOST_DAEMON,
    example=Example(
        bad='[runners.blog]\nvolumes = ["/nix/var/nix/db:/nix/var/nix/db"]',
        good='[runners.blog]\nnix = "host-daemon"',
        at=("runners", "blog", "volumes", 0),
    ),
)
def writable_nix(scene: Scene) -> Iterator[Finding]:
    """Find the host's store or database mounted writable."""
    for name, _, volume in _volumes(scene):
        if volume.read_only or volume.target == "/nix" or not _from_host(volume):
            continue
        source = volume.source.rstrip("/")
        for place, what in ((_DB, "database"), (_STORE, "store")):
            if place == source or place.startswith(source + "/") or source.startswith(place + "/"):
                yield Finding(volume.path, f"the runner {name} mounts its host's Nix {what} writable")


@check(
    "KP-MOUNT-TWICE",
    title="Every place in a container is mounted once",
    why="gitlab-runner refuses the job: `volume for container path … is already defined`",
    fix="remove one of the two; what `nix` needs is mounted without being listed",
    example=Example(
        bad='[runners.blog]\nvolumes = ["/data", "/srv/data:/data"]',
        good='[runners.blog]\nvolumes = ["/srv/data:/data"]',
        at=("runners", "blog", "volumes", 1),
    ),
)
def mounted_twice(scene: Scene) -> Iterator[Finding]:
    """Find two volumes at one place, those that `nix = "host-daemon"` brings included."""
    seen: dict[tuple[str, str], str] = {}
    for name, runner, volume in _volumes(scene):
        if runner.nix == "host-daemon" and volume.target in _RENDERED:
            yield Finding(
                volume.path,
                f'the runner {name} lists {volume.target}, which `nix = "host-daemon"` mounts already',
            )
        elif (name, volume.target) in seen:
            yield Finding(volume.path, f"the runner {name} mounts two volumes at {volume.target}")
        seen[name, volume.target] = volume.source


@check(
    "KP-MOUNT-OWN-STORE",
    title="A container uses its own store or its host's, not both",
    why="the host's store hides the image's programs, and addresses are derived for the wrong Nix daemon:"
    " whoever uses the host's daemon substitutes from the host's network",
    fix=_HOST_DAEMON,
    example=Example(
        bad='[runners.blog]\nvolumes = ["/nix/store:/nix/store:ro"]',
        good='[runners.blog]\nnix = "host-daemon"',
        at=("runners", "blog", "volumes", 0),
    ),
)
def mixed_stores(scene: Scene) -> Iterator[Finding]:
    """Find runners with a store of their own that mount the host's store or socket."""
    for name, runner, volume in _volumes(scene):
        if runner.nix != "own" or not _from_host(volume):
            continue
        if (volume.target == _STORE and volume.read_only) or (
            volume.target.startswith(_SOCKET) and not volume.read_only
        ):
            yield Finding(
                volume.path,
                f'the runner {name} says `nix = "own"` and mounts its host\'s {volume.source.rstrip("/")}',
            )


@check(
    "KP-MOUNT-SYNTAX",
    title="A volume is `[source:]target[:options]`, its target an absolute path",
    why="docker refuses to create the container",
    fix='write for example "/srv/cache:/cache:ro"',
    example=Example(
        bad='[runners.blog]\nvolumes = ["/srv/cache:cache"]',
        good='[runners.blog]\nvolumes = ["/srv/cache:/cache"]',
        at=("runners", "blog", "volumes", 0),
    ),
)
def malformed(scene: Scene) -> Iterator[Finding]:
    """Find volumes that docker cannot read."""
    for name, runner, volume in _volumes(scene):
        text = runner.volumes[int(volume.path[-1])]
        if not volume.target.startswith("/") or volume.target == "/" or text.count(":") > 2:
            yield Finding(volume.path, f"a volume of the runner {name} is none that docker accepts")
