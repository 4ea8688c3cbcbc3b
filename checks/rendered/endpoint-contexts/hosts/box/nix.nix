# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  nix.settings = {
    # attic:home/main: box is the dialer's own host
    # NixOS adds its own cache to every list; the topology leaves it out.
    substituters = lib.mkForce [ "http://127.0.0.1:8080/main" ];
    trusted-public-keys = [ "main:MOjxCMhKFSIS5JGtq5dJYyhVKlCr9vkVuPXBgq6XIWs=" ];
    fallback = lib.mkDefault true;
    connect-timeout = lib.mkDefault 5;
    stalled-download-timeout = lib.mkDefault 90;
    download-attempts = lib.mkDefault 3;
    fsync-store-paths = lib.mkDefault true;
  };
}
