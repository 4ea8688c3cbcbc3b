from pathlib import Path

import pytest

from kingpost.storefix.interface import StoreRoot
from kingpost.storefix.settings import read


@pytest.fixture
def store(tmp_path):
    """A store below a mounted root, so that nothing of the machine is read."""
    root = tmp_path / "disk"
    (root / "etc/nix").mkdir(parents=True)
    return StoreRoot(
        root=root,
        store_dir="/nix/store",
        real_store=root / "nix/store",
        state_dir=root / "nix/var/nix",
        log_dir=root / "nix/var/log/nix",
        conf_dir=root / "etc/nix",
    )


def write(store, text, name="nix.conf"):
    (store.conf_dir / name).write_text(text)


def test_the_defaults_of_nix_without_a_file(store):
    remarks = []
    settings = read(store, remark=remarks.append)
    assert settings.substituters == ("https://cache.nixos.org/",)
    assert list(settings.trusted_public_keys) == ["cache.nixos.org-1"]
    assert settings.require_sigs
    assert not settings.fsync_store_paths
    assert settings.netrc_file is None
    assert len(remarks) == 1
    assert "nix.conf is not there" in remarks[0]


def test_later_lines_win_and_extra_appends(store):
    write(
        store,
        "substituters = https://one https://two # why\n"
        "extra-substituters = https://three https://one\n"
        "binary-cache-public-keys = a-1:AAAA\n"
        "extra-trusted-public-keys = b-1:BB==\n"
        "require-sigs = false\nfsync-store-paths = true\nconnect-timeout = 3\n",
    )
    settings = read(store)
    assert settings.substituters == ("https://one", "https://two", "https://three")
    assert dict(settings.trusted_public_keys) == {"a-1": "AAAA", "b-1": "BB=="}
    assert not settings.require_sigs
    assert settings.fsync_store_paths
    assert settings.connect_timeout == 3


def test_extra_before_the_setting_is_overwritten_as_in_nix(store):
    write(store, "extra-substituters = https://early\nsubstituters = https://late\n")
    assert read(store).substituters == ("https://late",)


def test_a_later_config_wins_over_the_file(store):
    write(store, "substituters = https://file\n")
    assert read(store, "substituters = https://named").substituters == ("https://named",)


def test_includes_are_relative_to_their_file_or_to_the_root(store):
    (store.root / "opt").mkdir()
    (store.root / "opt/more.conf").write_text("extra-substituters = https://absolute\n")
    write(store, "substituters = https://a\ninclude sub/b.conf\n!include gone.conf\ninclude /opt/more.conf\n")
    (store.conf_dir / "sub").mkdir()
    write(store, "extra-substituters = https://b\ninclude c.conf\n", "sub/b.conf")
    write(store, "extra-substituters = https://c\n", "sub/c.conf")
    remarks = []
    settings = read(store, remark=remarks.append)
    assert settings.substituters == ("https://a", "https://b", "https://c", "https://absolute")
    assert remarks == []


def test_what_cannot_be_used_is_said_and_passed_over(store):
    write(store, "include gone.conf\nnonsense\ninclude nix.conf\nsubstituters = https://a\n")
    remarks = []
    assert read(store, remark=remarks.append).substituters == ("https://a",)
    assert "nix.conf:1: gone.conf is included but is not there" in remarks[0]
    assert "nix.conf:2: neither" in remarks[1]
    assert any("include each other without end" in remark for remark in remarks)


def test_symlinks_are_followed_inside_the_root_only(store, tmp_path):
    # As on NixOS: /etc/nix/nix.conf -> /etc/static/nix/nix.conf -> /nix/store/...-nix.conf
    conf = store.real_store / "0123456789abcdfghijklmnpqrsvwxyz-nix.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("substituters = https://inside\n")
    static = store.root / "etc/static/nix"
    static.mkdir(parents=True)
    (static / "nix.conf").symlink_to(f"/nix/store/{conf.name}")
    (store.conf_dir / "nix.conf").symlink_to("/etc/static/nix/nix.conf")
    assert read(store).substituters == ("https://inside",)
    conf.unlink()
    remarks = []
    assert read(store, remark=remarks.append).substituters == ("https://cache.nixos.org/",)
    assert any("which is lost" in remark for remark in remarks)


def test_a_file_outside_of_the_root_is_never_read(store, tmp_path):
    (tmp_path / "evil.conf").write_text("substituters = https://evil\n")
    (store.conf_dir / "nix.conf").symlink_to("../../../evil.conf")
    assert read(store).substituters == ("https://cache.nixos.org/",)


def test_the_users_files_and_nix_config_count_for_the_running_system_only(store, tmp_path, monkeypatch):
    user = tmp_path / "user.conf"
    user.write_text("extra-substituters = https://user\n")
    monkeypatch.setenv("NIX_USER_CONF_FILES", str(user))
    write(store, "substituters = https://system\n")
    assert read(store).substituters == ("https://system",)
    live = StoreRoot(Path("/"), "/nix/store", *[store.real_store] * 3, store.conf_dir)
    assert read(live).substituters == ("https://system", "https://user")


def test_nix_is_asked_when_the_file_of_the_running_system_is_lost(store, tmp_path, monkeypatch):
    program = tmp_path / "bin/nix"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n[ "$3" = show-config ] || exit 1\n'
        'echo "substituters = https://compiled-in"\necho "extra-platforms = i686-linux"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("NIX_USER_CONF_FILES", "")
    live = StoreRoot(Path("/"), "/nix/store", *[store.real_store] * 3, store.conf_dir)
    assert read(live).substituters == ("https://compiled-in",)


def test_a_netrc_file_beside_nix_conf(store):
    write(store, "")
    write(store, "machine a login b password c\n", "netrc")
    assert read(store).netrc_file == store.conf_dir / "netrc"
    (store.root / "run").mkdir()
    (store.root / "run/netrc").write_text("")
    write(store, "netrc-file = /run/netrc\n")
    assert read(store).netrc_file == store.root / "run/netrc"
