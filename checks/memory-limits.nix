# What eats memory dies alone: a service at its limit, a container at its slice's; the others live on.
{ self, ... }:

{
  name = "kingpost-memory-limits";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [ self.nixosModules.limits ];

      kingpost.limits.units = {
        "hungry.service".memoryMax = "64M";
        "jobs.slice".memoryMax = "96M";
        "bystander.service".oomScore = -900;
        "nix-daemon.service" = {
          memoryMax = "512M";
          oomScore = 250;
        };
      };
      virtualisation.docker = {
        enable = true;
        daemon.settings.cgroup-parent = "jobs.slice";
      };
      virtualisation.memorySize = 1536;

      systemd.services.hungry = {
        serviceConfig.ExecStart = "${pkgs.python3}/bin/python3 -c 'x = bytearray(b\"1\") * (200 << 20); print(\"ate it all\")'";
      };
      systemd.services.bystander = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
      };
    };

  testScript = builtins.readFile ./memory-limits.py;
}
