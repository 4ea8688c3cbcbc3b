# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ config, lib, pkgs, ... }:

let
  fill = pkgs.writeShellScript "kingpost-fill-secrets" (builtins.readFile ../../modules/fill-secrets.sh);
  template = pkgs.writeText "netrc-without-passwords" "machine 127.0.0.1 password @TOKEN:attic-readers@\n";
in
{
  nix.settings = {
    # cachix:homelab: it is on the internet
    # attic:home/blog-cache: node1 is the dialer's own host
    # substituter:nixos: it is on the internet
    substituters = [
      "https://homelab.cachix.org"
      "http://127.0.0.1:8083/blog-cache"
      "https://cache.nixos.org/"
    ];
    trusted-public-keys = [
      "homelab.cachix.org-1:PRqA+J2rzFHsJzyNVpzgHzuIYkuc9pdfyeGSdmLgEf8="
      "blog-cache:gzjQ4yfeNWMwOoc8iibgKJMMdo7wSkSUlIFzf7yhsro="
      "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY="
    ];
    netrc-file = "/run/kingpost/netrc";
    fallback = lib.mkDefault true;
    connect-timeout = lib.mkDefault 5;
    stalled-download-timeout = lib.mkDefault 90;
    download-attempts = lib.mkDefault 3;
    fsync-store-paths = lib.mkDefault true;
  };

  # Passwords for private caches, put together from their secrets at boot and whenever one changes.
  systemd.services.kingpost-netrc = {
    description = "Nix's passwords for private caches";
    wantedBy = [ "multi-user.target" ];
    before = [ "nix-daemon.service" ];
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      RuntimeDirectory = "kingpost";
      RuntimeDirectoryMode = "0755";
      RuntimeDirectoryPreserve = "yes";
    };
    script = ''
      exec ${fill} ${template} /run/kingpost/netrc 0400 /run/kingpost ${lib.escapeShellArgs [
        "@TOKEN:attic-readers@" "raw" config.age.secrets.attic-readers.path
      ]}
    '';
  };
}
