# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ lib, ... }:

{
  services.k3s = {
    enable = lib.mkDefault true;
    role = lib.mkDefault "server";
    # With its embedded etcd, which lives in the k3s process: its bounds are the quota and the unit's.
    clusterInit = lib.mkDefault true;
    extraFlags = [
      "--cluster-cidr=10.42.0.0/16"
      "--service-cidr=10.43.0.0/16"
      "--cluster-domain=cluster.local"
      "--etcd-arg=quota-backend-bytes=536870912"
      "--kubelet-arg=system-reserved=memory=6291456Ki"
    ];
  };

  # The server with its etcd, at most. Pods are not in this unit: what the kubelet reserves bounds them.
  systemd.services.k3s.serviceConfig.MemoryMax = lib.mkDefault 2147483648;
}
