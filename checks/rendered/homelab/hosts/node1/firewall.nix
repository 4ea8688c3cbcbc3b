# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# Each port is open on the interfaces that its callers come in by, and on no other.
{ ... }:

{
  networking.firewall.interfaces = {
    # docker:node1/blog
    docker0.allowedTCPPorts = [ 8083 ];
  };
}
