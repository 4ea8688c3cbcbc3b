"""Write what checks/ import of `kingpost generate`: `python -m tools.rendered_checks`.

A NixOS test imports the files themselves, so that evaluating it builds nothing; a test holds them to what is rendered.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from kingpost.render.nix_files import render_nix
from kingpost.render.site import render_site
from kingpost.topology.loader import load
from kingpost.topology.platform import Platform

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / "checks" / "rendered"
TOPOLOGIES: Final = {
    "homelab": ROOT / "examples" / "homelab" / "topology.toml",
    "endpoint-contexts": ROOT / "checks" / "endpoint-contexts.toml",
}


def rendered() -> dict[str, str]:
    """Give every file by its path below FOLDER: hosts' modules, what they read, and each context's environment."""
    found = {}
    for name, file in TOPOLOGIES.items():
        platform = Platform(load(file).topology)
        modules = render_nix(platform)
        for path, text in render_site(platform).items():
            read = path in modules or path.endswith(("/gitlab-runner.toml", "/env", "/nix.conf"))
            if path.startswith("hosts/") and read:
                found[f"{name}/{path}"] = text
    return found


def main() -> None:
    """Write them anew; kingpost's own modules are not copied, but linked to."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    for path, text in rendered().items():
        target = FOLDER / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for name in TOPOLOGIES:
        (FOLDER / name / "modules").symlink_to("../../../modules")


if __name__ == "__main__":
    main()
