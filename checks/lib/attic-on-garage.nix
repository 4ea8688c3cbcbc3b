# An Attic server whose bodies are in a bucket of Garage beside it; attic_on_garage.py makes the bucket and starts it.
{ pkgs, ... }:

{
  services.garage = {
    enable = true;
    package = pkgs.garage_2;
    settings = {
      rpc_bind_addr = "127.0.0.1:3901";
      rpc_secret = "5c1915fa04d0b6739675c61bf5907eb0fe3d9c69850c83820f51b4d25d13868c";
      replication_factor = 1;
      s3_api = {
        s3_region = "garage";
        api_bind_addr = "127.0.0.1:3900";
      };
    };
  };

  kingpost.atticd = {
    enable = true;
    region = "garage";
    environmentFile = "/etc/atticd.env";
    settings.storage = {
      type = "s3";
      region = "garage";
      bucket = "attic";
      # Not by the name that clients call atticd by: Nix sends what its netrc has for a host to every port of it, and
      # some S3 servers (AWS, rclone) refuse a signed URL that comes with a second kind of credentials.
      endpoint = "http://localhost:3900";
    };
  };
  systemd.services.atticd.unitConfig.ConditionPathExists = "/etc/atticd.env";

  environment.systemPackages = [ pkgs.attic-client ];
  virtualisation.memorySize = 2048;
}
