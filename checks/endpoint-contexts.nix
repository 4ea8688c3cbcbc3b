# One Attic server and everybody who calls it: the host, containers on its bridge and on its network, another
# machine. Each reaches it at the address that is rendered for it, and nobody at another's.
# What is rendered from endpoint-contexts.toml is in rendered/; a test holds it to what `generate` writes.
{ self, lib, ... }:

let
  tree = ./rendered/endpoint-contexts;
  rendered = path: builtins.toJSON (builtins.readFile (tree + "/hosts/${path}"));
in
{
  name = "kingpost-endpoint-contexts";

  nodes.box = {
    imports = [
      (tree + "/hosts/box")
      self.nixosModules.atticd
    ];

    # The script writes a token's secret first, and no runner asks a GitLab for jobs here.
    systemd.services.atticd.unitConfig.ConditionPathExists = "/etc/atticd.env";
    systemd.services.gitlab-runner.wantedBy = lib.mkForce [ ];
    virtualisation.memorySize = 1536;
  };

  nodes.laptop = {
    imports = [
      (tree + "/hosts/laptop")
      self.nixosModules.atticd
    ];

    # A server of its own, by the module alone and as it is by default.
    kingpost.atticd = {
      enable = true;
      port = 8090;
      environmentFile = "/etc/atticd.env";
    };
    systemd.services.atticd.unitConfig.ConditionPathExists = "/etc/atticd.env";
  };

  testScript = ''
    # What `kingpost generate` wrote for each context.
    RENDERED = {
        "host:box": ${rendered "box/contexts/host/nix.conf"},
        "docker:box/bridge": ${rendered "box/contexts/docker/bridge/env"},
        "docker:box/hostnet": ${rendered "box/contexts/docker/hostnet/env"},
        "host:laptop": ${rendered "laptop/contexts/host/nix.conf"},
    }
  ''
  + builtins.readFile ./endpoint-contexts.py;
}
