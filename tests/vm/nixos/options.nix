# What NixOS, and its test machines, have beside tests/real/nixos-stand-in: the commands of the stock modules.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkIf mkOption types;
  option = type: default: mkOption { inherit type default; };
  atticdSettings = (pkgs.formats.toml { }).generate "server.toml" config.services.atticd.settings;
in
{
  options.virtualisation = {
    memorySize = option types.int 1024;
    diskSize = option types.int 1024;
    cores = option types.int 1;
    writableStoreUseTmpfs = option types.bool true;
  };

  options.services.openssh.enable = option types.bool false;
  options.networking.firewall.allowedTCPPorts = option (types.listOf types.port) [ ];

  config = {
    # nixos/modules/services/cluster/rancher/default.nix; Debian has no k3s, so the unit is there and does not start
    systemd.services.k3s = mkIf config.services.k3s.enable {
      description = "k3s service";
      wantedBy = [ "multi-user.target" ];
      unitConfig.ConditionFileIsExecutable = "${pkgs.k3s}/bin/k3s";
      serviceConfig = {
        Type = "notify";
        ExecStart = "${pkgs.k3s}/bin/k3s ${config.services.k3s.role} ${toString config.services.k3s.extraFlags}";
      };
    };

    # nixos/modules/services/networking/ssh/sshd.nix
    networking.firewall.allowedTCPPorts = mkIf config.services.openssh.enable [ 22 ];
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

    # nixos/modules/services/web-servers/garage.nix; rclone's S3 server stands in for it (guest-programs/garage)
    systemd.services.garage = mkIf config.services.garage.enable {
      description = "Garage Object Storage (S3 compatible)";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        StateDirectory = "garage";
        ExecStart = "${pkgs.garage_2}/bin/garage server";
      };
    };

    # nixos/modules/services/networking/atticd.nix; the stand-in marks its defaults, which no server could run with
    services.atticd.settings = {
      chunking = lib.mkOverride 900 {
        nar-size-threshold = 65536;
        min-size = 16384;
        avg-size = 65536;
        max-size = 262144;
      };
      database.url = lib.mkOverride 900 "sqlite:///var/lib/atticd/server.db?mode=rwc";
    };
    environment.systemPackages =
      lib.optional config.services.atticd.enable (pkgs.writeShellScript "atticd-atticadm" ''
        exec systemd-run --quiet --pipe --wait --collect --property=EnvironmentFile=${
          toString config.services.atticd.environmentFile
        } ${pkgs.attic-server}/bin/atticadm -f ${atticdSettings} "$@"
      '')
      ++ lib.optional config.services.garage.enable pkgs.garage_2;
    systemd.services.atticd = mkIf config.services.atticd.enable {
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        ExecStart = "${pkgs.attic-server}/bin/atticd -f ${atticdSettings} --mode ${config.services.atticd.mode}";
        StateDirectory = "atticd";
        User = config.services.atticd.user;
        Restart = "on-failure";
        RestartSec = 10;
      };
    };
  };
}
