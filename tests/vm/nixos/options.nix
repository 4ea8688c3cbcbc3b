# What NixOS, and its test machines, have beside tests/real/nixos-stand-in: the commands of the stock modules.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkIf mkOption types;
  option = type: default: mkOption { inherit type default; };
in
{
  options.virtualisation = {
    memorySize = option types.int 1024;
    diskSize = option types.int 1024;
    cores = option types.int 1;
    writableStoreUseTmpfs = option types.bool true;
  };

  # Nothing of it is in a guest: its checks are evaluated only.
  options.services.garage = {
    enable = option types.bool false;
    package = option types.package null;
    settings = option (types.attrsOf types.anything) { };
  };

  options.services.openssh.enable = option types.bool false;

  config = {
    # nixos/modules/services/networking/ssh/sshd.nix
    systemd.services.sshd = mkIf config.services.openssh.enable {
      description = "SSH Daemon";
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      serviceConfig = {
        Type = "notify-reload";
        Restart = "always";
        KillMode = "process";
        RuntimeDirectory = "sshd";
        ExecStart = "/usr/sbin/sshd -D";
      };
    };

    # nixos/modules/services/continuous-integration/gitlab-runner/runner.nix
    systemd.services.gitlab-runner = mkIf config.services.gitlab-runner.enable {
      description = "Gitlab Runner";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        StateDirectory = "gitlab-runner";
        WorkingDirectory = "/var/lib/gitlab-runner";
        ExecStart = "${pkgs.gitlab-runner}/bin/gitlab-runner run --working-directory /var/lib/gitlab-runner";
      };
    };

    # nixos/modules/services/networking/atticd.nix
    systemd.services.atticd = mkIf config.services.atticd.enable {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        ExecStart = "${pkgs.attic-server}/bin/atticd -f ${
          pkgs.writeText "server.json" (builtins.toJSON config.services.atticd.settings)
        } --mode ${config.services.atticd.mode}";
        StateDirectory = "atticd";
        User = config.services.atticd.user;
        Restart = "on-failure";
        RestartSec = 10;
      };
    };
  };
}
