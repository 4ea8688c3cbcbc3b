# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# It needs kingpost's package: add kingpost.overlays.default to nixpkgs.overlays.
{ config, ... }:

{
  imports = [ ../../modules/bucket-check.nix ];

  kingpost.bucketCheck = {
    metricsDirectory = "/var/lib/prometheus-node-exporter";
    buckets = {
      attic-cache = {
        endpoint = "https://5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c.r2.cloudflarestorage.com";
        region = "auto";
        credentialsFile = config.age.secrets.atticd.path;
        onCalendar = "*-*-* 04:10";
        memoryMax = 268435456;
      };
    };
  };
}
