"""Real Nix as the last source: it builds a registered path again, in place.

`nix-store --repair-path` is the one command that does so for a path that the database calls valid; `--realise`
does nothing then. It may ask substituters itself. A build that is not reproducible gives other bytes, which
Nix registers with their own hash.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Dict, List, Optional

from ..errors import SourceError

if TYPE_CHECKING:
    from ..interface import Settings, StoreRoot

_PROFILES = ("/run/current-system/sw/bin", "/nix/var/nix/profiles/default/bin")
# Derive(outputs, inputDrvs, inputSrcs, "system", "builder", …): the first string that stands behind a list of
# the top level (source: src/libstore/derivations.cc, Derivation::unparse).
_SYSTEM = re.compile(r'\],"([^"\\]{1,64})",')
_LAST_LINES = 8


class NixStore:
    """A Nix that works, as a `Rebuilder`.

    Args:
        program: Absolute path of `nix-store`.
        version: What it says of itself.
        store: The store; of the running machine or below a root.

    """

    def __init__(self, program: str, version: str, store: StoreRoot) -> None:
        self._program = program
        self._version = version
        self._store = store

    def describe(self) -> str:
        """Give name, version and place."""
        return f"nix-store {self._version} in {os.path.dirname(self._program)}"

    def obstacle(self, path: str, deriver: str) -> str:
        """Say why a path cannot be rebuilt; empty if it may work. See `Rebuilder.obstacle`."""
        if path.endswith(".drv"):
            return "a derivation is not built; evaluating its expression again writes it"
        if not deriver:
            return "its derivation is unknown: the path was copied here or added, not built"
        try:
            text = self._store.real(deriver).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return f"its derivation {deriver} is missing too"
        if not text.startswith("Derive("):
            return f"its derivation {deriver} is damaged too"
        found = _SYSTEM.search(text)
        system = found.group(1) if found else ""
        here = f"{platform.machine()}-{platform.system().lower()}"
        if system not in (here, "builtin") and not self._elsewhere(system):
            return (
                f"it is built on {system or 'an unknown system'}, this is {here}, and no builders are set up"
            )
        return ""

    def _elsewhere(self, system: str) -> bool:
        """Tell whether nix.conf names builders or this system; Nix knows best then."""
        machines = self._store.conf_dir / "machines"
        try:
            conf = (self._store.conf_dir / "nix.conf").read_text(encoding="utf-8", errors="replace")
        except OSError:
            conf = ""
        named = re.search(r"(?m)^\s*(extra-)?(builders|platforms|system)\s*=\s*\S", conf)
        return machines.exists() or named is not None or system in conf

    def rebuild(self, path: str, deriver: str) -> None:
        """Run `nix-store --repair-path`. See `Rebuilder.rebuild`."""
        argv = [self._program, *self._options(), "--repair-path", path]
        done = subprocess.run(
            argv,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode or not os.path.lexists(self._store.real(path)):
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise SourceError(
                f"{path} could not be rebuilt from {deriver}",
                where=self.describe(),
                why="\n".join(lines[-_LAST_LINES:]) or f"exit code {done.returncode}, and it said nothing",
                fix=f"read the whole log: nix-store --log {deriver}",
            )

    def _options(self) -> List[str]:
        return [] if self._store.is_live_system else ["--store", str(self._store.root)]

    def _environment(self) -> Dict[str, str]:
        """Point Nix at this store, past the daemon, which may know another one."""
        environment = dict(os.environ)
        if self._store.is_live_system:
            environment.update(
                NIX_STORE_DIR=self._store.store_dir,
                NIX_STATE_DIR=str(self._store.state_dir),
                NIX_LOG_DIR=str(self._store.log_dir),
                NIX_CONF_DIR=str(self._store.conf_dir),
                NIX_REMOTE="local" if os.access(self._store.database, os.W_OK) else "daemon",
            )
        else:
            for name in ("NIX_STORE_DIR", "NIX_STATE_DIR", "NIX_LOG_DIR", "NIX_REMOTE"):
                environment.pop(name, None)
        return environment


def find(store: StoreRoot, settings: Settings) -> Optional[NixStore]:
    """Give a Nix that starts; None if there is none on PATH or where NixOS and installers put it."""
    del settings  # Nix reads its own
    program = shutil.which("nix-store") or shutil.which("nix-store", path=os.pathsep.join(_PROFILES))
    if program is None:
        return None
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.decode("utf-8", "replace").split()
    if done.returncode or not words:
        return None
    return NixStore(os.path.abspath(program), words[-1], store)
