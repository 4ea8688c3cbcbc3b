# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
#
# Where secrets are, never what they hold. Needs agenix's NixOS module.
{ config, lib, ... }:

let
  root = config.kingpost.root;
  isFile = path: builtins.pathExists path
    && builtins.elem ((builtins.readDir (dirOf path)).${baseNameOf path} or "") [ "regular" "symlink" ];
  # A trigger of the encrypted file's content, for its path changes with every commit of the flake.
  content = name:
    let file = config.age.secrets.${name}.file; in
    lib.optional (isFile file) (builtins.hashFile "sha256" file);
in
{
  options.kingpost.root = lib.mkOption {
    type = lib.types.path;
    default = ../../..;
    description = "Root of the host flake, to which the `source` of secrets in the topology is relative.";
  };

  config = {
    age.secrets = {
      host-ci-runner = {
        file = root + "/secrets/host-ci-runner.age";
        owner = "root";
        group = "root";
        mode = "0400";
      };
      attic-readers = {
        file = root + "/secrets/attic-readers.age";
        owner = "root";
        group = "root";
        mode = "0400";
      };
    };

    systemd.services.gitlab-runner.reloadTriggers = builtins.concatMap content [ "host-ci-runner" ];
    systemd.services.kingpost-netrc.restartTriggers = builtins.concatMap content [ "attic-readers" ];

    assertions = map (name: {
      assertion = isFile config.age.secrets.${name}.file;
      message = "kingpost: the secret ${name} has no encrypted file ${toString config.age.secrets.${name}.file}: create it with agenix, or set kingpost.root to the flake's root";
    }) [
      "host-ci-runner"
      "attic-readers"
    ];
  };
}
