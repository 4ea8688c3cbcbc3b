# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  imports = [
    ./atticd.nix
    ./bucket-check.nix
    ./cache-audit.nix
    ./docker.nix
    ./firewall.nix
    ./gitlab-runner.nix
    ./k3s.nix
    ./limits.nix
    ./nix.nix
    ./secrets.nix
    ./store-fix.nix
  ];

  system.stateVersion = lib.mkDefault "26.05";
}
