# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  virtualisation.docker = {
    enable = lib.mkDefault true;
    # Every container's route to this host depends on these addresses, so they are pinned.
    daemon.settings = {
      bip = "172.20.0.1/24";
      default-address-pools = [
        {
          base = "172.18.0.0/15";
          size = 24;
        }
      ];
    };
  };
}
