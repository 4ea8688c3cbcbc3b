# The homelab example's hosts boot with everything that `kingpost generate` renders for them, and do what it says.
# What is rendered is in rendered/homelab; a test holds it to what `generate` writes.
{ self, lib, ... }:

let
  tree = ./rendered/homelab;
  topology = ../examples/homelab/topology.toml;

  # What agenix would decrypt at boot, in the syntax of tmpfiles.d(5).
  secrets = {
    atticd = "ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64=dGhlIHNlY3JldCBvZiBhIHRlc3Q=\\nAWS_ACCESS_KEY_ID=key\\nAWS_SECRET_ACCESS_KEY=secret\\n";
    attic-readers = "eyJyZWFkZXJz.of.atest\\n";
    blog-runner = "glrt-blog_runner\\n";
    host-ci-runner = "glrt-host_ci_runner";
  };

  host = name: {
    imports = [
      (tree + "/hosts/${name}")
      # Where this flake has agenix, its options; a test writes the secrets itself.
      (self.nixosModules.agenix or ./lib/agenix.nix)
      # They bring kingpost's packages; what is rendered imports the same modules.
      self.nixosModules.bucket-check
      self.nixosModules.cache-audit
      self.nixosModules.store-fix
    ];

    kingpost.root = ./generated-host;
    systemd.tmpfiles.rules = [
      "d /run/agenix 0755 root root -"
    ]
    ++ lib.mapAttrsToList (secret: text: "f /run/agenix/${secret} 0400 root root - ${text}") secrets;
    services.openssh.enable = true;
    users.users.xameer.isNormalUser = true;
    virtualisation.memorySize = 1536;
  };

  said = value: builtins.toJSON (builtins.toJSON value);
in
{
  name = "kingpost-generated-host";

  nodes.node1 = host "node1";
  nodes.thinkpad = host "thinkpad";

  testScript = ''
    import json

    TOPOLOGY = json.loads(${said (builtins.fromTOML (builtins.readFile topology))})
    RUNNER = json.loads(${said (builtins.readFile (tree + "/hosts/node1/gitlab-runner.toml"))})
    JOB = json.loads(${said (builtins.readFile (tree + "/hosts/node1/contexts/docker/blog/env"))})
  ''
  + builtins.readFile ./generated-host.py;
}
