# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ config, pkgs, ... }:

{
  imports = [ ../../modules/gitlab-runner.nix ];

  kingpost.gitlabRunner = {
    enable = true;
    # Without tokens: the unit fills them in.
    configFile = ./gitlab-runner.toml;
    runners = {
      host-ci = {
        token = {
          file = config.age.secrets.host-ci-runner.path;
          format = "raw";
        };
      };
    };
    # Shell jobs run in its unit: all of them together, at most what the topology gives them.
    memoryMax = 8589934592;
  };

  environment.systemPackages = [
    pkgs.git
    pkgs.attic-client
    pkgs.cachix
  ];
}
