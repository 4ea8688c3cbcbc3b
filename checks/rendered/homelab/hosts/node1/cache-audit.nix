# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# It needs kingpost's package: add kingpost.overlays.default to nixpkgs.overlays.
{ config, ... }:

{
  imports = [ ../../modules/cache-audit.nix ];

  kingpost.cacheAudit = {
    metricsDirectory = "/var/lib/prometheus-node-exporter";
    caches = {
      system = {
        url = "http://127.0.0.1:8083/dev-cache";
        closures = [ "/run/current-system" ];
        keys = [ "dev-cache:18n51cQZM3TuzsRVypE8KWcpGsDMM7LQD7sQoD27Re4=" ];
        arguments = [
          "--upstream"
          "https://cache.nixos.org"
        ];
        tokenFile = config.age.secrets.attic-readers.path;
        onCalendar = "*-*-* 05:10";
        memoryMax = 268435456;
      };
    };
  };
}
