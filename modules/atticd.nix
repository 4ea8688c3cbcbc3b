# What the stock atticd module leaves to the host: bind and firewall, secrets that are checked before the server
# starts, the AWS SDK's environment, memory, and the order of units.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.atticd;
  inherit (lib) mkIf mkOption types;

  runtime = "kingpost-atticd";
  filled = "/run/${runtime}/secret.env";
  wildcard = lib.elem cfg.address [
    "0.0.0.0"
    "::"
    "[::]"
  ];
  onS3 = (cfg.settings.storage or { }).type or "" == "s3";

  checkSecret = pkgs.writeShellScript "kingpost-atticd-secret" (builtins.readFile ./atticd-secret.sh);
  check = pkgs.writeShellScript "kingpost-atticd-check" ''
    exec ${checkSecret} ${
      lib.escapeShellArgs (
        if cfg.secretFile != null then
          [
            cfg.secretFile
            cfg.algorithm
          ]
        else
          [ (toString cfg.environmentFile) ]
      )
    }
  '';

  # systemd.syntax(7), and systemd.unit(5) on specifiers.
  percent = builtins.replaceStrings [ "%" ] [ "%%" ];
  word = text: "\"${builtins.replaceStrings [ "\\" "\"" "%" ] [ "\\\\" "\\\"" "%%" ] text}\"";
  size =
    description: example:
    mkOption {
      type = types.nullOr (types.either types.int types.str);
      default = null;
      inherit description example;
    };
in
{
  key = "kingpost/atticd";

  options.kingpost.atticd = {
    enable = mkOption {
      type = types.bool;
      default = false;
      example = true;
      description = ''
        Whether to run an Attic server, through `services.atticd`, with what that leaves to the host: the secret's
        format is checked before the server starts, and the unit says what is wrong with it and what to do; the port
        is open where callers come in and nowhere else; the AWS SDK does not wait for EC2's metadata service.
      '';
    };
    address = mkOption {
      type = types.str;
      default = "127.0.0.1";
      example = "172.17.0.1";
      description = ''
        The address that it listens on, as narrow as its callers allow: `127.0.0.1`, the address of a docker bridge, of
        the tailnet. With `0.0.0.0` only the firewall keeps others out, and has to be on.
      '';
    };
    port = mkOption {
      type = types.port;
      default = 8080;
      description = "Its TCP port.";
    };
    openOn = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [
        "docker0"
        "tailscale0"
      ];
      description = "Interfaces on which the firewall lets its callers in; it stays shut on every other.";
    };
    settings = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example = {
        storage = {
          type = "s3";
          region = "auto";
          bucket = "attic";
          endpoint = "https://s3.example.org";
        };
      };
      description = ''
        `services.atticd.settings` without `listen`. The stock module replaces `storage` and `chunking` as a whole, so
        each needs all of its keys. What is here is readable by everybody: no secret belongs in it.
      '';
    };
    environmentFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/agenix/atticd";
      description = ''
        A file of lines `NAME=value` with `ATTIC_SERVER_TOKEN_RS256_SECRET_BASE64` or
        `ATTIC_SERVER_TOKEN_HS256_SECRET_BASE64`, and whatever else is secret.
      '';
    };
    secretFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/agenix/attic-secret";
      description = ''
        Instead of `environmentFile`: a file with nothing but the secret in base64, on one line. Only root needs to be
        able to read it: systemd hands it to the unit as a credential.
      '';
    };
    algorithm = mkOption {
      type = types.enum [
        "RS256"
        "HS256"
      ];
      default = "RS256";
      description = "What the secret in `secretFile` signs with.";
    };
    credentialsFile = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/run/agenix/bucket";
      description = "A file of lines with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, where another one holds the token's secret.";
    };
    region = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "auto";
      description = "AWS_REGION, for storage on S3: without it the SDK asks EC2's metadata service.";
    };
    metadata = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether this host is on EC2 and gets its credentials from the metadata service. Elsewhere each attempt to ask it
        takes seconds, and every push with it.
      '';
    };
    checksums = mkOption {
      type = types.nullOr (
        types.enum [
          "when_supported"
          "when_required"
        ]
      );
      default = "when_required";
      description = ''
        When the AWS SDK adds CRC checksums, which storage other than AWS's own often refuses. null leaves it to the SDK.
      '';
    };
    database = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "atticd";
      description = ''
        A PostgreSQL database on this host, made if it is not there, with a role and a user of the unit by the same
        name, and the unit after PostgreSQL. null: what `settings.database` says; the stock module's is SQLite.
      '';
    };
    postgresqlUnit = mkOption {
      type = types.str;
      default = "postgresql.target";
      example = "postgresql.service";
      description = "The unit that says that `database` is there: `postgresql.service` up to NixOS 25.05.";
    };
    databaseInSecret = mkOption {
      type = types.bool;
      default = false;
      description = ''
        Whether the secret has `ATTIC_SERVER_DATABASE_URL`. The stock module's own database would otherwise win.
      '';
    };
    writablePaths = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "/srv/attic" ];
      description = "Folders outside /var/lib/atticd that it writes to, such as that of an SQLite database.";
    };
    after = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "docker.service" ];
      description = "Units that make the address that it listens on; they are wanted, and it starts after them.";
    };
    memoryHigh = size "Above it the unit is slowed down and its memory reclaimed." "768M";
    memoryMax = size "Above it the server is killed and started again, and nothing else is." "1G";
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = (cfg.environmentFile != null) != (cfg.secretFile != null);
        message = "kingpost.atticd: set one of environmentFile and secretFile: the server signs tokens with what is in it";
      }
      {
        assertion = !lib.any (file: file != null && lib.hasPrefix "/nix/store/" file) [
          cfg.environmentFile
          cfg.secretFile
          cfg.credentialsFile
        ];
        message = "kingpost.atticd: a secret is in the Nix store, where everybody can read it: give the path of a secret as a string, such as config.age.secrets.atticd.path";
      }
      {
        assertion = !(wildcard || cfg.openOn != [ ]) || config.networking.firewall.enable;
        message = "kingpost: attic listens on ${cfg.address}, and only this host's firewall keeps others out: leave networking.firewall.enable on, or listen on an address of its callers alone";
      }
      {
        assertion = !(cfg.settings ? listen);
        message = "kingpost.atticd.settings.listen would be ignored: set kingpost.atticd.address and port";
      }
      {
        assertion = !(cfg.database != null && cfg.databaseInSecret);
        message = "kingpost.atticd: database is one of this host, databaseInSecret says it is in the secret: take one of them out";
      }
    ];

    services.atticd = {
      enable = true;
      mode = lib.mkDefault "monolithic";
      environmentFile = if cfg.secretFile != null then filled else cfg.environmentFile;
      # PostgreSQL lets a user in over its socket whose name is the role's.
      user = mkIf (cfg.database != null) cfg.database;
      group = mkIf (cfg.database != null) cfg.database;
      settings = lib.mkMerge [
        (if cfg.databaseInSecret then removeAttrs cfg.settings [ "database" ] else cfg.settings)
        { listen = "${cfg.address}:${toString cfg.port}"; }
        (mkIf cfg.databaseInSecret { database = lib.mkForce { }; })
        (mkIf (cfg.database != null && !(cfg.settings ? database)) {
          # Named, for what sqlx takes for the user otherwise depends on a lookup of the unit's dynamic one.
          database.url = "postgresql:///${cfg.database}?host=/run/postgresql&user=${cfg.database}";
        })
      ];
    };

    systemd.services.atticd = {
      # Where its address is not there yet, the unit is started again and again.
      after = cfg.after ++ lib.optional (cfg.database != null) cfg.postgresqlUnit;
      wants = cfg.after;
      requires = lib.optional (cfg.database != null) cfg.postgresqlUnit;
      environment = mkIf onS3 {
        AWS_REGION = mkIf (cfg.region != null) cfg.region;
        AWS_EC2_METADATA_DISABLED = mkIf (!cfg.metadata) "true";
        AWS_REQUEST_CHECKSUM_CALCULATION = mkIf (cfg.checksums != null) cfg.checksums;
        AWS_RESPONSE_CHECKSUM_VALIDATION = mkIf (cfg.checksums != null) cfg.checksums;
      };
      unitConfig.StartLimitIntervalSec = lib.mkDefault 0;
      serviceConfig = {
        ExecStartPre = [ "${check}" ];
        # Read anew for each command of the unit, so ExecStart sees what ExecStartPre has written.
        EnvironmentFile = lib.mkMerge [
          (mkIf (cfg.secretFile != null) (lib.mkForce ([ "-${filled}" ] ++ lib.optional (cfg.credentialsFile != null) cfg.credentialsFile)))
          (mkIf (cfg.secretFile == null && cfg.credentialsFile != null) [ cfg.credentialsFile ])
        ];
        LoadCredential = mkIf (cfg.secretFile != null) "secret:${percent (toString cfg.secretFile)}";
        RuntimeDirectory = mkIf (cfg.secretFile != null) runtime;
        RuntimeDirectoryMode = mkIf (cfg.secretFile != null) "0700";
        ReadWritePaths = mkIf (cfg.writablePaths != [ ]) (map word cfg.writablePaths);
        MemoryHigh = mkIf (cfg.memoryHigh != null) (lib.mkDefault cfg.memoryHigh);
        MemoryMax = mkIf (cfg.memoryMax != null) (lib.mkDefault cfg.memoryMax);
      };
    };

    services.postgresql = mkIf (cfg.database != null) {
      enable = true;
      ensureDatabases = [ cfg.database ];
      ensureUsers = [
        {
          name = cfg.database;
          ensureDBOwnership = true;
        }
      ];
    };

    networking.firewall.interfaces = lib.mapAttrs (_: ports: { allowedTCPPorts = ports; }) (
      builtins.listToAttrs (map (name: lib.nameValuePair name [ cfg.port ]) cfg.openOn)
    );
  };
}
