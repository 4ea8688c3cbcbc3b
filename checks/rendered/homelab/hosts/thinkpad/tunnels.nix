# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{
  imports = [ ../../modules/tunnels.nix ];

  kingpost.tunnels = {
    attic = {
      description = "ssh tunnel to attic:home on node1";
      listen = "127.0.0.1:8083";
      to = "127.0.0.1:8083";
      login = "xameer@100.105.10.61";
      after = [ "tailscaled.service" ];
    };
  };
}
