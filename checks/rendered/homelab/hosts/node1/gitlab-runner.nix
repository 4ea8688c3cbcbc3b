# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{ config, ... }:

{
  imports = [ ../../modules/gitlab-runner.nix ];

  kingpost.gitlabRunner = {
    enable = true;
    # Without tokens: the unit fills them in.
    configFile = ./gitlab-runner.toml;
    runners = {
      blog = {
        token = {
          file = config.age.secrets.blog-runner.path;
          format = "raw";
        };
      };
    };
  };
}
