# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{
  imports = [ ../../modules/gitlab-runner.nix ];

  kingpost.gitlabRunner = {
    enable = true;
    # Without tokens: the unit fills them in.
    configFile = ./gitlab-runner.toml;
    runners = {
      bridge = {
        token = {
          file = "/etc/runner-token";
          format = "raw";
        };
      };
      hostnet = {
        token = {
          file = "/etc/runner-token";
          format = "raw";
        };
      };
    };
  };
}
