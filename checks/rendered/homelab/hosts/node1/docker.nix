# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  virtualisation.docker = {
    enable = lib.mkDefault true;
    # Every container's route to this host depends on these addresses, so they are pinned.
    daemon.settings = {
      bip = "172.17.0.1/16";
      default-address-pools = [
        {
          base = "172.20.0.0/14";
          size = 24;
        }
      ];
    };
  };
}
