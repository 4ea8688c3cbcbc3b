# Comparisons of buckets by the clock: what their S3 server shows with what is on its disk.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.bucketCheck;
  inherit (lib) mkOption types;

  timed = import ./lib/timed-check.nix {
    inherit lib pkgs;
    inherit (cfg) package ledger metricsDirectory;
    nix = config.nix.package;
  };
  unit = name: "kingpost-bucket-check-${name}";
  given =
    option: value:
    lib.optionals (value != null) [
      option
      value
    ];
  service =
    name: check:
    timed.service {
      name = unit name;
      description = "Comparison of the bucket ${name} with its server's disk";
      inherit check;
      words = [
        "bucket"
        "rca"
        (if check.bucket != null then check.bucket else name)
        "--endpoint"
        check.endpoint
      ]
      ++ given "--region" check.region
      ++ lib.concatMap (place: [
        "--disk"
        place
      ]) check.disks
      ++ given "--provider" check.provider
      ++ given "--server" check.server
      ++ lib.optional check.scratchProbe "--scratch-probe"
      ++ lib.optional (check.credentialsFile == null) "--anonymous"
      ++ check.arguments;
      more = lib.optionalString (
        check.credentialsFile != null
      ) ''--credentials "$CREDENTIALS_DIRECTORY/bucket"'';
      credentials = lib.optional (
        check.credentialsFile != null
      ) "bucket:${builtins.replaceStrings [ "%" ] [ "%%" ] (toString check.credentialsFile)}";
    };
  complaints =
    name: check:
    lib.optional (!timed.wellNamed name) "the name ${name}: use letters, digits, - and _, and set bucket"
    ++ lib.optional (
      builtins.match "https?://[^/].*" check.endpoint == null
    ) "endpoint of ${name} is ${check.endpoint}: write the S3 server's URL without the bucket"
    ++ lib.optional (
      check.scratchProbe && check.credentialsFile == null
    ) "${name}: scratchProbe makes a bucket of its own, which needs credentialsFile"
    ++ lib.optional (
      check.credentialsFile != null && lib.hasPrefix "/nix/store/" check.credentialsFile
    ) "the credentials of ${name} are in the Nix store, where everybody can read them: give the path of a secret as a string";
  used = cfg.buckets != { };
in
{
  key = "kingpost/bucket-check";

  options.kingpost.bucketCheck = {
    package = mkOption {
      type = types.nullOr types.package;
      default = config._module.args.kingpost.kingpost or pkgs.kingpost or null;
      defaultText = lib.literalExpression "kingpost, of its flake or its overlay";
      description = "The kingpost that compares.";
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
        The folder of node_exporter's textfile collector. Each comparison writes `kingpost-bucket-check-NAME.prom`,
        after a failed or killed run too.
      '';
    };
    buckets = mkOption {
      default = { };
      example = {
        attic = {
          endpoint = "http://127.0.0.1:9000";
          disks = [ "/var/lib/rustfs" ];
          provider = "rustfs";
          credentialsFile = "/run/agenix/bucket";
        };
      };
      description = ''
        Comparisons by name. Each is a timer and a unit `kingpost-bucket-check-NAME`, which fails when the bucket is
        gone, its two views differ, or it could not be looked at.
      '';
      type = types.attrsOf (
        types.submodule {
          options = timed.options // {
            bucket = mkOption {
              type = types.nullOr types.str;
              default = null;
              description = "The bucket; null if it has the name of the comparison.";
            };
            endpoint = mkOption {
              type = types.str;
              example = "http://127.0.0.1:9000";
              description = "The S3 server's URL, without the bucket.";
            };
            region = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "auto";
              description = "What requests are signed for; null is us-east-1.";
            };
            disks = mkOption {
              type = types.listOf types.str;
              default = [ ];
              example = [ "ssh:storage:/var/lib/rustfs" ];
              description = "The server's data directories: `PATH`, `ssh:HOST:PATH` or `kube:NAMESPACE/deployment/NAME:PATH`.";
            };
            provider = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "minio";
              description = "What server it is: `rustfs`, `minio`, or another that keeps no metadata there; null is rustfs.";
            };
            server = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "rustfs.service";
              description = "The server's unit, for evidence: `UNIT`, `ssh:HOST:UNIT` or `kube:NAMESPACE/deployment/NAME`.";
            };
            scratchProbe = mkOption {
              type = types.bool;
              default = false;
              description = "Whether to make, use and delete a bucket of its own each time: it finds a server that takes no writes.";
            };
            credentialsFile = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "/run/agenix/bucket";
              description = ''
                A file of lines with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Only root needs to be able to read it.
                null: requests are not signed.
              '';
            };
            arguments = mkOption {
              type = types.listOf types.str;
              default = [ ];
              description = "What else `kingpost bucket rca` is told.";
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
        message = "kingpost.bucketCheck.package is not set: import this module from kingpost's flake (kingpost.nixosModules.bucket-check), add its overlay to nixpkgs.overlays, or set the option";
      }
    ]
    ++ map (message: {
      assertion = false;
      message = "kingpost.bucketCheck.buckets: ${message}";
    }) (lib.concatLists (lib.mapAttrsToList complaints cfg.buckets));

    systemd.services = lib.mapAttrs' (
      name: check: lib.nameValuePair (unit name) (service name check)
    ) cfg.buckets;
    systemd.timers = lib.mapAttrs' (
      name: check: lib.nameValuePair (unit name) (timed.timer check)
    ) cfg.buckets;
  };
}
