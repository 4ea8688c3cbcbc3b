# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{
  imports = [ ../../modules/atticd.nix ];

  kingpost.atticd = {
    enable = true;
    address = "0.0.0.0";
    port = 8080;
    environmentFile = "/etc/atticd.env";
    settings = {
      allowed-hosts = [
        "127.0.0.1:8080"
        "172.20.0.1:8080"
        "192.168.1.1:8080"
      ];
      max-nar-info-size = 1048576;
      database = {
        url = "sqlite:///var/lib/atticd/server.db?mode=rwc";
      };
      storage = {
        type = "local";
        path = "/var/lib/atticd/storage";
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
        default-retention-period = "0s";
      };
    };
  };
}
