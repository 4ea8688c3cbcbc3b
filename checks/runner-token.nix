# A runner's token: how its file may look, what is refused, and what a new one does to the runner. And a job that eats
# all memory that the runner may take.
{ self, lib, ... }:

{
  name = "kingpost-runner-token";

  nodes.machine = {
    imports = [ self.nixosModules.gitlab-runner ];

    kingpost.gitlabRunner = {
      enable = true;
      settings.concurrent = 1;
      memoryMax = "128M";
      runners.blog = {
        settings = {
          url = "http://127.0.0.1:1/";
          executor = "shell";
        };
        token = {
          file = "/etc/runner-token";
          format = "raw";
        };
      };
    };
    # The script writes the token, then starts the unit.
    systemd.services.gitlab-runner.wantedBy = lib.mkForce [ ];
  };

  testScript = builtins.readFile ./runner-token.py;
}
