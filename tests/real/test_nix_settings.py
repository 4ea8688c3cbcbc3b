"""Real Nix knows every setting that a host of its version gets, and no other was left out for nothing."""

from __future__ import annotations

import pytest

from kingpost.render.nix_settings import RESILIENCE, known_to


def test_nix_knows_every_setting_that_its_version_gets(nix):
    conf = known_to(nix.version, RESILIENCE)
    assert shown(nix, conf) == {key: str(value).lower() for key, value in conf.items()}
    unknown = RESILIENCE.keys() - conf.keys()
    if nix.version == "2.8":
        assert unknown == {"fsync-store-paths", "narinfo-cache-meta-ttl"}
        for setting in unknown:
            with pytest.raises(AssertionError, match="unknown setting"):
                shown(nix, {setting: 1})
    else:
        assert not unknown


def shown(nix, conf: dict) -> dict[str, str]:
    lines = "".join(f"{key} = {str(value).lower()}\n" for key, value in conf.items())
    command = ["nix", "config", "show"] if nix.version != "2.8" else ["nix", "show-config"]
    done = nix.run(*command, env={"NIX_CONFIG": lines + "experimental-features = nix-command\n"})
    assert "unknown setting" not in done.stderr, done.stderr
    pairs = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    return {key: pairs[key] for key in conf}
