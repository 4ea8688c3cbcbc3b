# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  imports = [
    ./gitlab-runner.nix
    ./nix.nix
    ./secrets.nix
    ./tunnels.nix
  ];

  system.stateVersion = lib.mkDefault "26.05";
}
