# An Attic server off the cloud: its S3 client asks no metadata service, so that a push takes no longer than it must.
{ self, ... }:

{
  name = "kingpost-attic-environment";

  nodes.machine.imports = [
    self.nixosModules.atticd
    ./lib/attic-on-garage.nix
  ];

  testScript = builtins.readFile ./lib/attic_on_garage.py + builtins.readFile ./attic-environment.py;
}
