# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# It needs kingpost's package store-fix: add kingpost.overlays.default to nixpkgs.overlays.
{
  imports = [ ../../modules/store-fix.nix ];

  kingpost.storeFix = {
    enable = true;
    repair = "none";
    textfile = "/var/lib/prometheus-node-exporter/kingpost-store.prom";
  };
}
