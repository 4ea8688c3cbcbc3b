# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  imports = [ ./nix.nix ];

  system.stateVersion = lib.mkDefault "26.05";
}
