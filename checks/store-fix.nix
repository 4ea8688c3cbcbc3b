# A power cut in the middle of a copy to the store: what is found at boot, and what a repair leaves.
{ self, ... }:

{
  name = "kingpost-store-fix";

  nodes.machine = {
    imports = [ self.nixosModules.store-fix ];

    kingpost.storeFix = {
      enable = true;
      textfile = "/var/lib/kingpost/store.prom";
    };
    nix.settings.experimental-features = [ "nix-command" ];
    # What a power cut leaves must be there at the next boot.
    virtualisation.writableStoreUseTmpfs = false;
  };

  testScript = builtins.readFile ./store-fix.py;
}
