# GitLab runners whose config.toml is a file that one can read and compare.
#
# The stock module registers runners anew whenever an option changes, and keeps its config.toml out of sight. Here
# config.toml is made without tokens; the unit fills them in from their secrets when it starts or reloads. What else
# is in its folder stays, .runner_system_id too: GitLab keeps seeing the same runner.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.gitlabRunner;
  inherit (lib) mkOption types;

  fill = pkgs.writeShellScript "kingpost-fill-secrets" (builtins.readFile ./fill-secrets.sh);

  # /nix as a whole would hide the image's own store, and with it the image's programs. The socket lies in the
  # daemon's folder, which is mounted writable: connecting to a socket is writing to it.
  nixVolumes = [
    "/nix/store:/nix/store:ro"
    "/nix/var/nix/db:/nix/var/nix/db:ro"
    "/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket"
  ];
  nixEnvironment = [ "NIX_REMOTE=daemon" ];

  placeholder = name: "@TOKEN:${name}@";
  runner =
    name: declared:
    let
      settings = {
        inherit name;
        token = placeholder name;
      }
      // declared.settings;
      docker = settings.docker or { };
    in
    if declared.hostNix then
      settings
      // {
        environment = (settings.environment or [ ]) ++ nixEnvironment;
        docker = docker // {
          volumes = (docker.volumes or [ ]) ++ nixVolumes;
        };
      }
    else
      settings;
  made = (pkgs.formats.toml { }).generate "gitlab-runner.toml" (
    cfg.settings // { runners = lib.mapAttrsToList runner cfg.runners; }
  );
  template = if cfg.configFile != null then cfg.configFile else made;

  secrets = lib.concatLists (
    lib.mapAttrsToList (name: declared: [
      (placeholder name)
      (if declared.token.format == "env" then "env:${declared.token.variable}" else "raw")
      declared.token.file
    ]) cfg.runners
  );
  configure = pkgs.writeShellScript "gitlab-runner-configure" ''
    exec ${fill} ${template} "$HOME/.gitlab-runner/config.toml" 0600 "$HOME" ${lib.escapeShellArgs secrets}
  '';

  inStore = lib.filterAttrs (_: declared: lib.hasPrefix "/nix/store/" declared.token.file) cfg.runners;
  inSettings = lib.filterAttrs (_: declared: declared.settings ? token) cfg.runners;
  wholeNix = lib.filterAttrs (
    _: declared:
    lib.any (lib.hasPrefix "/nix:") (
      (declared.settings.docker or { }).volumes or [ ]
    )
  ) cfg.runners;
  notDocker = lib.filterAttrs (
    _: declared: declared.hostNix && (declared.settings.executor or "") != "docker"
  ) cfg.runners;
  names = found: lib.concatStringsSep ", " (lib.attrNames found);

  size = types.nullOr (types.either types.int types.str);
in
{
  key = "kingpost/gitlab-runner";

  options.kingpost.gitlabRunner = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether to run GitLab runners from a `config.toml` that holds no token. At start and at reload the tokens are
        filled in from their files; a token with carriage returns, blanks or several lines is refused, and the unit
        says which file and what to do. Runners are made in GitLab (a `glrt-` token), and never registered from here.
      '';
    };
    configFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./gitlab-runner.toml";
      description = ''
        A whole `config.toml` in which `@TOKEN:NAME@` stands for the token of the runner NAME. `settings`, and of each
        runner all but `token`, then do nothing. By default one is made from them.
      '';
    };
    settings = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example = {
        concurrent = 2;
        check_interval = 3;
      };
      description = "The global section of `config.toml`.";
    };
    runners = mkOption {
      default = { };
      description = "Every runner, by the name that GitLab shows.";
      type = types.attrsOf (
        types.submodule {
          options = {
            settings = mkOption {
              type = types.attrsOf types.anything;
              default = { };
              example = {
                url = "https://gitlab.com";
                executor = "docker";
                docker.image = "alpine:3.22";
              };
              description = "Its `[[runners]]` table, without `token`.";
            };
            hostNix = mkOption {
              type = types.bool;
              default = false;
              description = ''
                Whether jobs of a docker runner build with the host's Nix daemon: mounts `/nix/store` and
                `/nix/var/nix/db` read-only and the daemon's socket writable, and sets `NIX_REMOTE=daemon`. Mounting
                `/nix` as a whole would hide the programs of an image that has a store of its own.
              '';
            };
            token = {
              file = mkOption {
                type = types.str;
                example = "/run/agenix/runner";
                description = "The file with its token, which root can read when the unit starts.";
              };
              format = mkOption {
                type = types.enum [
                  "env"
                  "raw"
                ];
                default = "env";
                description = ''
                  `raw`: the file holds the bare token; one newline at its end is dropped. `env`: it holds lines
                  `NAME=value`, as agenix and sops-nix files for the stock module do.
                '';
              };
              variable = mkOption {
                type = types.str;
                default = "CI_SERVER_TOKEN";
                description = "Which line of an `env` file is the token.";
              };
            };
          };
        }
      );
    };
    user = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "ci";
      description = ''
        Who runs the jobs of shell runners; by default a user that systemd makes while the unit runs. One process runs
        all runners of a host, so there is one.
      '';
    };
    memoryMax = mkOption {
      type = size;
      default = null;
      example = "8G";
      description = "The most that the unit may take, bytes or as systemd writes it. Shell jobs run in the unit.";
    };
    memoryHigh = mkOption {
      type = size;
      default = null;
      example = "6G";
      description = "Above it the unit is slowed down and its memory reclaimed.";
    };
    gracefulTimeout = mkOption {
      type = types.str;
      default = "10min";
      description = "How long jobs may go on when the unit stops. A reload never ends any.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = config.services.gitlab-runner.services == { };
        message = "kingpost: config.toml comes from kingpost.gitlabRunner, so services.gitlab-runner.services would do nothing: declare those runners in the topology, or in kingpost.gitlabRunner.runners";
      }
      {
        assertion = cfg.user == null || config.users.users ? ${cfg.user};
        message = "kingpost: shell jobs run as the user ${toString cfg.user}, whom this host does not declare: add users.users.${toString cfg.user}";
      }
      {
        assertion = cfg.configFile != null || cfg.runners != { };
        message = "kingpost.gitlabRunner has no runner: declare one in kingpost.gitlabRunner.runners, or set configFile";
      }
      {
        assertion = inStore == { };
        message = "kingpost.gitlabRunner: the token of ${names inStore} is in the Nix store, where everybody can read it: give the path of a secret as a string, such as config.age.secrets.runner.path";
      }
      {
        assertion = inSettings == { };
        message = "kingpost.gitlabRunner: the settings of ${names inSettings} hold a token, which would be in the Nix store: put it into a file and name that in token.file";
      }
      {
        assertion = wholeNix == { };
        message = "kingpost.gitlabRunner: ${names wholeNix} mounts /nix as a whole, which hides the store of the image and with it its programs: take that volume out and set hostNix = true";
      }
      {
        assertion = notDocker == { };
        message = "kingpost.gitlabRunner: hostNix of ${names notDocker} is for the executor docker: a shell runner's jobs use the host's Nix anyway, so take it out";
      }
    ];

    services.gitlab-runner = {
      enable = true;
      gracefulTermination = lib.mkDefault true;
      gracefulTimeout = lib.mkDefault cfg.gracefulTimeout;
    };

    systemd.services.gitlab-runner = {
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      unitConfig.StartLimitIntervalSec = lib.mkDefault 0;
      environment = lib.mkIf (cfg.user != null) {
        HOME = lib.mkForce (config.users.users.${cfg.user}.home or "/var/empty");
      };
      serviceConfig = {
        # As root, for only root may read the secrets.
        ExecStartPre = lib.mkForce [ "!${configure}" ];
        ExecReload = lib.mkForce [
          "!${configure}"
          "${pkgs.coreutils}/bin/kill -HUP $MAINPID"
        ];
        Restart = lib.mkDefault "always";
        RestartSec = lib.mkDefault 15;
        # Shell jobs run in the unit: one that is killed for memory would end the others, and the runner, with it.
        OOMPolicy = lib.mkDefault "continue";
        DynamicUser = lib.mkIf (cfg.user != null) (lib.mkForce false);
        User = lib.mkIf (cfg.user != null) cfg.user;
        MemoryMax = lib.mkIf (cfg.memoryMax != null) (lib.mkDefault cfg.memoryMax);
        MemoryHigh = lib.mkIf (cfg.memoryHigh != null) (lib.mkDefault cfg.memoryHigh);
      };
    };
  };
}
