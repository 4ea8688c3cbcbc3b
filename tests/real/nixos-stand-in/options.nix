# Stand-ins for the NixOS, agenix and sops-nix options that rendered modules set, with the types of 26.05, and
# what the stock modules define themselves where that decides what a rendered value becomes.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkAfter mkDefault mkIf mkMerge mkOption types;
  option = type: default: mkOption { inherit type default; };
  required = type: mkOption { inherit type; };

  # nixos/lib/systemd-unit-options.nix: a directive that is a list anywhere is joined.
  directive = lib.mkOptionType {
    name = "systemd option";
    merge = loc: definitions:
      let values = map (definition: definition.value) definitions; in
      if builtins.any builtins.isList values
      then builtins.concatMap (value: if builtins.isList value then value else [ value ]) values
      else if builtins.all (value: value == builtins.head values) values then builtins.head values
      else throw "The option `${builtins.concatStringsSep "." loc}' has conflicting definition values";
  };
  directives = types.attrsOf directive;
  units = types.listOf types.str;

  unit = section: types.submodule {
    options = {
      description = option types.str "";
      wantedBy = option units [ ];
      requiredBy = option units [ ];
      wants = option units [ ];
      requires = option units [ ];
      after = option units [ ];
      before = option units [ ];
      conflicts = option units [ ];
      bindsTo = option units [ ];
      partOf = option units [ ];
      onFailure = option units [ ];
      path = option (types.listOf types.package) [ ];
      restartIfChanged = option types.bool true;
      unitConfig = option directives { };
      environment = option (types.attrsOf (types.nullOr types.str)) { };
      script = option types.lines "";
      restartTriggers = option (types.listOf types.anything) [ ];
      reloadTriggers = option (types.listOf types.anything) [ ];
      reloadIfChanged = option types.bool false;
      ${section} = option directives { };
    };
  };

  toml = types.oneOf [
    types.bool
    types.int
    types.float
    types.str
    (types.attrsOf toml)
    (types.listOf toml)
  ];
  json = types.nullOr toml;
  conf = types.oneOf [ types.bool types.int types.float types.str types.path ];
  strings = types.listOf types.str;
  enable = option types.bool false;
in
{
  options = {
    assertions = option (types.listOf types.anything) [ ];
    warnings = option (types.listOf types.str) [ ];
    system.stateVersion = required types.str;
    environment.etc = option (types.attrsOf (types.submodule { options.text = required types.str; })) { };
    environment.systemPackages = option (types.listOf types.package) [ ];
    users.users = option
      (types.attrsOf (types.submodule {
        options = {
          home = option types.str "/var/empty";
          isSystemUser = enable;
          isNormalUser = enable;
          group = option types.str "";
        };
      })) { };
    users.groups = option (types.attrsOf (types.submodule { options.gid = option (types.nullOr types.int) null; })) { };

    nix.package = option types.package pkgs.nix;
    nix.settings = mkOption {
      default = { };
      type = types.submodule {
        freeformType = types.attrsOf (types.either conf (types.listOf conf));
        options = {
          substituters = required strings;
          trusted-substituters = option strings [ ];
          trusted-public-keys = required strings;
          trusted-users = required strings;
        };
      };
    };

    networking.hostName = option types.str "host";
    networking.nftables.enable = enable;
    networking.firewall.enable = option types.bool true;
    networking.firewall.interfaces = option
      (types.attrsOf (types.submodule { options.allowedTCPPorts = option (types.listOf types.port) [ ]; })) { };
    networking.bridges = option (types.attrsOf (types.submodule { options.interfaces = required strings; })) { };
    networking.interfaces = option
      (types.attrsOf (types.submodule {
        options.ipv4.addresses = option
          (types.listOf (types.submodule {
            options = { address = required types.str; prefixLength = required types.int; };
          })) [ ];
      })) { };

    systemd.services = option (types.attrsOf (unit "serviceConfig")) { };
    systemd.slices = option (types.attrsOf (unit "sliceConfig")) { };
    systemd.sockets = option (types.attrsOf (unit "socketConfig")) { };
    systemd.timers = option (types.attrsOf (unit "timerConfig")) { };
    systemd.tmpfiles.rules = option strings [ ];
    systemd.packages = option (types.listOf types.package) [ ];
    systemd.oomd.enable = option types.bool true;

    services.atticd = {
      enable = enable;
      environmentFile = option (types.nullOr types.path) null;
      user = option types.str "atticd";
      group = option types.str "atticd";
      settings = required (types.attrsOf toml);
      mode = option (types.enum [ "monolithic" "api-server" "garbage-collector" ]) "monolithic";
    };
    services.gitlab-runner = {
      enable = enable;
      services = option (types.attrsOf types.anything) { };
      gracefulTermination = enable;
      gracefulTimeout = option types.str "infinity";
    };
    services.k3s = {
      enable = enable;
      role = option (types.enum [ "server" "agent" ]) "server";
      clusterInit = enable;
      extraFlags = option (types.either types.str strings) "";
    };
    # What their modules do of themselves: nixpkgs nixos/modules/services/web-servers/.
    services.garage = {
      enable = enable;
      package = option (types.nullOr types.package) null; # required there; all of this is printed here
      environmentFile = option (types.nullOr types.path) null;
      extraEnvironment = option (types.attrsOf types.str) { };
      logLevel = option (types.enum [ "error" "warn" "info" "debug" "trace" ]) "info";
      settings = mkOption {
        default = { };
        type = types.submodule {
          freeformType = types.attrsOf toml;
          options.metadata_dir = option types.path "/var/lib/garage/meta";
          options.data_dir = option types.path "/var/lib/garage/data";
        };
      };
    };
    services.minio = {
      enable = enable;
      listenAddress = option types.str ":9000";
      consoleAddress = option types.str ":9001";
      dataDir = option (types.listOf (types.either types.path types.str)) [ "/var/lib/minio/data" ];
      rootCredentialsFile = option (types.nullOr types.path) null;
      region = option types.str "us-east-1";
      browser = option types.bool true;
    };
    services.postgresql = {
      enable = enable;
      ensureDatabases = option strings [ ];
      ensureUsers = option
        (types.listOf (types.submodule {
          options = { name = required types.str; ensureDBOwnership = enable; };
        })) [ ];
    };
    virtualisation.docker.enable = enable;
    virtualisation.docker.daemon.settings = option (types.attrsOf json) { };
    virtualisation.oci-containers.containers = option
      (types.attrsOf (types.submodule { options.extraOptions = option strings [ ]; })) { };

    age.secrets = option
      (types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          file = required types.path;
          path = option types.str "/run/agenix/${name}";
          owner = option types.str "0";
          group = option types.str "0";
          mode = option types.str "0400";
        };
      }))) { };
    sops.secrets = option
      (types.attrsOf (types.submodule ({ name, ... }: {
        options = {
          sopsFile = option (types.nullOr types.path) null;
          format = option (types.enum [ "yaml" "json" "binary" "ini" "dotenv" ]) "yaml";
          path = option types.str "/run/secrets/${name}";
          owner = option types.str "root";
          group = option types.str "root";
          mode = option types.str "0400";
          restartUnits = option strings [ ];
          reloadUnits = option strings [ ];
        };
      }))) { };
  };

  config = {
    nix.settings = {
      trusted-public-keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
      trusted-users = [ "root" ];
      substituters = mkAfter [ "https://cache.nixos.org/" ];
    };

    services.atticd.settings = {
      chunking = mkDefault {
        nar-size-threshold = 1;
        min-size = 1;
        avg-size = 1;
        max-size = 1;
      };
      database.url = mkDefault "sqlite:///stock/default.db";
      storage = mkDefault {
        type = "local";
        path = "/stock/default";
      };
    };

    systemd.services.atticd = mkIf config.services.atticd.enable {
      after = [ "network-online.target" ];
      wants = [ "network-online.target" ];
      serviceConfig = {
        EnvironmentFile = config.services.atticd.environmentFile;
        DynamicUser = true;
      };
    };
    systemd.services.garage = mkIf config.services.garage.enable {
      after = [ "network.target" "network-online.target" ];
      wants = [ "network.target" "network-online.target" ];
      serviceConfig = {
        DynamicUser = mkDefault true;
        EnvironmentFile = lib.optional (config.services.garage.environmentFile != null) config.services.garage.environmentFile;
      };
    };
    systemd.services.minio = mkIf config.services.minio.enable {
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      serviceConfig = { User = "minio"; Group = "minio"; };
    };
    systemd.services.gitlab-runner = mkIf config.services.gitlab-runner.enable {
      after = [ "network.target" ];
      environment.HOME = "/var/lib/gitlab-runner";
      reloadIfChanged = true;
      serviceConfig = {
        DynamicUser = true;
        ExecStartPre = "!/stock/gitlab-runner-configure";
        ExecReload = "!/stock/gitlab-runner-configure";
      };
    };
  };
}
