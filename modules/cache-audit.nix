# Audits of binary caches by the clock: what a cache promises is fetched as a substituter does, and compared.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.cacheAudit;
  inherit (lib) mkOption types;

  timed = import ./lib/timed-check.nix {
    inherit lib pkgs;
    inherit (cfg) package ledger metricsDirectory;
    nix = config.nix.package;
  };
  unit = name: "kingpost-cache-audit-${name}";
  service =
    name: audit:
    timed.service {
      name = unit name;
      description = "Audit of the cache ${audit.url}";
      check = audit;
      words = [
        "cache"
        "audit"
        audit.url
      ]
      ++ lib.concatMap (path: [
        "--closure"
        path
      ]) audit.closures
      ++ lib.optional audit.everything "--all"
      ++ lib.concatMap (key: [
        "--key"
        key
      ]) audit.keys
      ++ lib.optionals (audit.sample != null) [
        "--sample"
        audit.sample
      ]
      ++ lib.optionals (audit.verifiedSince != null) [
        "--verified-since"
        audit.verifiedSince
      ]
      ++ lib.optionals (audit.bandwidth != null) [
        "--bandwidth"
        audit.bandwidth
      ]
      ++ audit.arguments;
      more = lib.optionalString (audit.tokenFile != null) ''--token-file "$CREDENTIALS_DIRECTORY/token"'';
      credentials = lib.optional (
        audit.tokenFile != null
      ) "token:${builtins.replaceStrings [ "%" ] [ "%%" ] (toString audit.tokenFile)}";
      environmentFile = audit.credentialsFile;
    };
  complaints =
    name: audit:
    lib.optional (!timed.wellNamed name) "the name ${name}: use letters, digits, - and _"
    ++ lib.optional (
      audit.closures == [ ] && !audit.everything && audit.arguments == [ ]
    ) "${name} looks at nothing: give closures, such as [ \"/run/current-system\" ], or everything = true"
    ++ lib.optional (lib.hasPrefix "-" audit.url) "${name}: ${audit.url} is no address of a cache"
    ++ lib.optional (
      audit.tokenFile != null && lib.hasPrefix "/nix/store/" audit.tokenFile
    ) "the token of ${name} is in the Nix store, where everybody can read it: give the path of a secret as a string";
  used = cfg.caches != { };
in
{
  key = "kingpost/cache-audit";

  options.kingpost.cacheAudit = {
    package = mkOption {
      type = types.nullOr types.package;
      default = config._module.args.kingpost.kingpost or pkgs.kingpost or null;
      defaultText = lib.literalExpression "kingpost, of its flake or its overlay";
      description = "The kingpost that audits.";
    };
    ledger = mkOption {
      type = types.path;
      default = "/var/lib/kingpost/ledger.sqlite";
      description = "Where every run is recorded: `kingpost history --ledger` reads it.";
    };
    metricsDirectory = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/var/lib/prometheus-node-exporter";
      description = ''
        The folder of node_exporter's textfile collector. Each audit writes `kingpost-cache-audit-NAME.prom`, after a
        failed or killed run too. Alert on `kingpost_exit_code` and on the age of `kingpost_finished_seconds`.
      '';
    };
    caches = mkOption {
      default = { };
      example = {
        main = {
          url = "http://127.0.0.1:8080/main";
          closures = [ "/run/current-system" ];
          keys = [ "main:0123…=" ];
        };
      };
      description = ''
        Audits by name. Each is a timer and a unit `kingpost-cache-audit-NAME`, which fails when a body is missing, is
        not what its narinfo says, or could not be looked at.
      '';
      type = types.attrsOf (
        types.submodule {
          options = timed.options // {
            url = mkOption {
              type = types.str;
              example = "https://cache.example.org/main";
              description = "The cache as this host dials it: `http(s)://…`, `file:///…`, `s3://BUCKET?endpoint=…`.";
            };
            closures = mkOption {
              type = types.listOf types.str;
              default = [ ];
              example = [ "/run/current-system" ];
              description = "Paths that are audited with all that they need.";
            };
            everything = mkOption {
              type = types.bool;
              default = false;
              description = "Whether to audit every path of a file:// or s3:// cache.";
            };
            keys = mkOption {
              type = types.listOf types.str;
              default = [ ];
              description = "Public keys, one of which must have signed each path.";
            };
            sample = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "5%";
              description = "Audit only so many of the paths, others each day.";
            };
            verifiedSince = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "7d";
              description = "Skip what the ledger says was verified within that time.";
            };
            bandwidth = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "20MB";
              description = "At most so much a second.";
            };
            tokenFile = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/run/agenix/pull-token";
              description = "The secret with a token that pulls. Only root needs to be able to read it.";
            };
            credentialsFile = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/run/agenix/bucket";
              description = "For s3://: a file of lines with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.";
            };
            arguments = mkOption {
              type = types.listOf types.str;
              default = [ ];
              example = [
                "--upstream"
                "https://cache.nixos.org"
              ];
              description = "What else `kingpost cache audit` is told.";
            };
          };
        }
      );
    };
  };

  config = lib.mkIf used {
    assertions = [
      {
        assertion = cfg.package != null;
        message = "kingpost.cacheAudit.package is not set: import this module from kingpost's flake (kingpost.nixosModules.cache-audit), add its overlay to nixpkgs.overlays, or set the option";
      }
    ]
    ++ map (message: {
      assertion = false;
      message = "kingpost.cacheAudit.caches: ${message}";
    }) (lib.concatLists (lib.mapAttrsToList complaints cfg.caches));

    systemd.services = lib.mapAttrs' (
      name: audit: lib.nameValuePair (unit name) (service name audit)
    ) cfg.caches;
    systemd.timers = lib.mapAttrs' (
      name: audit: lib.nameValuePair (unit name) (timed.timer audit)
    ) cfg.caches;
  };
}
