# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# Each port is open on the interfaces that its callers come in by, and on no other.
{ ... }:

{
  networking.firewall.interfaces = {
    # docker:box/bridge
    docker0.allowedTCPPorts = [ 8080 ];
    # host:laptop
    eth1.allowedTCPPorts = [ 8080 ];
  };
}
