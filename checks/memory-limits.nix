# What eats memory dies alone: a service at its limit, a container at its slice's, a build at the daemon's, a unit
# that stalls for memory by systemd-oomd; the others live on.
{ self, ... }:

{
  name = "kingpost-memory-limits";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [
        self.nixosModules.atticd
        self.nixosModules.limits
      ];

      kingpost.limits.units = {
        "hungry.service".memoryMax = "64M";
        "jobs.slice".memoryMax = "96M";
        "stalling.service" = {
          memoryHigh = "48M";
          oomd = "kill";
        };
        "sshd.service".oomScore = -900;
        "atticd.service".memoryMax = "256M";
        "nix-daemon.service" = {
          memoryMax = "384M";
          oomScore = 250;
        };
      };
      kingpost.atticd = {
        enable = true;
        environmentFile = "/etc/atticd.env";
      };
      # The script writes a token's secret first.
      systemd.services.atticd.unitConfig.ConditionPathExists = "/etc/atticd.env";
      services.openssh.enable = true;
      virtualisation.docker = {
        enable = true;
        daemon.settings.cgroup-parent = "jobs.slice";
      };
      # A container's own limit, without swap for what is above it.
      virtualisation.memorySize = 1536;
      # systemd-oomd waits for 30 s of stalling by itself.
      environment.etc."systemd/oomd.conf.d/soon.conf".text = ''
        [OOM]
        DefaultMemoryPressureDurationSec=5s
      '';

      systemd.services.hungry.serviceConfig.ExecStart =
        "${pkgs.python3}/bin/python3 -c 'x = bytearray(b\"1\") * (200 << 20); print(\"ate it all\")'";
      systemd.services.stalling.serviceConfig.ExecStart =
        "${pkgs.python3}/bin/python3 -c 'x = bytearray(b\"1\") * (200 << 20); print(\"ate it all\")'";
    };

  testScript = builtins.readFile ./memory-limits.py;
}
