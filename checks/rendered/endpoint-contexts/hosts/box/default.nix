# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  imports = [
    ./atticd.nix
    ./docker.nix
    ./firewall.nix
    ./gitlab-runner.nix
    ./nix.nix
  ];

  system.stateVersion = lib.mkDefault "26.05";
}
