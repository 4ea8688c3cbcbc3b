# A bucket that vanishes behind atticd's back: what it still promises, what an audit says, and what it says afterwards.
{ self, ... }:

{
  name = "kingpost-cache-integrity";

  nodes.machine = {
    imports = [
      self.nixosModules.atticd
      self.nixosModules.cache-audit
      ./lib/attic-on-garage.nix
    ];

    kingpost.cacheAudit = {
      metricsDirectory = "/var/lib/node-exporter";
      caches.main = {
        url = "http://127.0.0.1:8080/main";
        closures = [ "/var/lib/pushed" ];
        tokenFile = "/etc/attic-token";
      };
    };
  };

  testScript = builtins.readFile ./lib/attic_on_garage.py + builtins.readFile ./cache-integrity.py;
}
