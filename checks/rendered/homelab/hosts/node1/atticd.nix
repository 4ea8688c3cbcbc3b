# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ config, ... }:

{
  imports = [ ../../modules/atticd.nix ];

  kingpost.atticd = {
    enable = true;
    address = "0.0.0.0";
    port = 8083;
    environmentFile = config.age.secrets.atticd.path;
    region = "auto";
    checksums = "when_required";
    settings = {
      allowed-hosts = [
        "127.0.0.1:8083"
        "172.17.0.1:8083"
      ];
      max-nar-info-size = 1048576;
      database = {
        url = "sqlite:///var/lib/atticd/server.db?mode=rwc";
      };
      storage = {
        type = "s3";
        region = "auto";
        bucket = "attic-cache";
        endpoint = "https://5f0c5f0c5f0c5f0c5f0c5f0c5f0c5f0c.r2.cloudflarestorage.com";
      };
      chunking = {
        nar-size-threshold = 65536;
        min-size = 16384;
        avg-size = 65536;
        max-size = 262144;
      };
      compression = {
        type = "zstd";
        level = 8;
      };
      garbage-collection = {
        interval = "12h";
        default-retention-period = "90d";
      };
    };
  };
}
