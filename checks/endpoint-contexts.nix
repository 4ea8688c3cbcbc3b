# One Attic server and everybody who calls it: the host, containers on its bridge and on its network, another
# machine. Each reaches it at its own address, and nobody at another's.
{ self, ... }:

{
  name = "kingpost-endpoint-contexts";

  nodes.box = {
    imports = [ self.nixosModules.atticd ];

    kingpost.atticd = {
      enable = true;
      # docker's callers come in by docker0, the other machine by eth1.
      address = "0.0.0.0";
      openOn = [ "docker0" "eth1" ];
      environmentFile = "/etc/atticd.env";
    };
    # The script writes a token's secret first.
    systemd.services.atticd.unitConfig.ConditionPathExists = "/etc/atticd.env";
    networking.firewall.enable = true;
    virtualisation.docker = {
      enable = true;
      daemon.settings.bip = "172.20.0.1/24";
    };
    virtualisation.memorySize = 1536;
  };

  nodes.laptop = { };

  testScript = builtins.readFile ./endpoint-contexts.py;
}
