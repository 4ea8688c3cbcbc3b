# One run of `kingpost` by the clock, as a unit and its timer: it fails when what it looked at failed, leaves metrics
# of each run, a killed one too, and records in the ledger.
#
#   package           kingpost
#   nix               Nix, for commands that ask it
#   ledger            the ledger's file
#   metricsDirectory  of node_exporter's textfile collector, or null
{
  lib,
  pkgs,
  package,
  nix,
  ledger,
  metricsDirectory,
}:

let
  runner = pkgs.writeShellScript "kingpost-timed-check" (builtins.readFile ./timed-check.sh);
in
{
  # What every check can be told, beside what it looks at.
  options = {
    onCalendar = lib.mkOption {
      type = lib.types.str;
      default = "daily";
      example = "*-*-* 04:00";
      description = "When, as systemd.time(7) writes it. What a host that is off misses is made up for.";
    };
    randomizedDelay = lib.mkOption {
      type = lib.types.str;
      default = "10min";
      description = "At most so much later, so that a fleet does not ask at once.";
    };
    timeout = lib.mkOption {
      type = lib.types.str;
      default = "6h";
      description = "After so long the run is ended, and has failed.";
    };
    memoryMax = lib.mkOption {
      type = lib.types.nullOr (lib.types.either lib.types.int lib.types.str);
      default = "1G";
      description = "Above it the run is killed, and has failed.";
    };
    onFailure = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "notify@%n.service" ];
      description = "Units that are started when it fails.";
    };
  };

  # Names are labels of metrics and parts of file names.
  wellNamed = name: builtins.match "[A-Za-z0-9_.-]+" name != null;

  # The unit NAME, which runs `kingpost WORDS`; `more` is what only a shell knows, such as a credential's place.
  service =
    {
      name,
      description,
      words,
      check,
      more ? "",
      credentials ? [ ],
      environmentFile ? null,
    }:
    {
      inherit description;
      inherit (check) onFailure;
      wants = [ "network-online.target" ];
      after = [ "network-online.target" ];
      path = [ nix ];
      # A switch starts no check, and ends none.
      restartIfChanged = false;
      serviceConfig = {
        Type = "oneshot";
        TimeoutStartSec = lib.mkDefault check.timeout;
        MemoryMax = lib.mkIf (check.memoryMax != null) (lib.mkDefault check.memoryMax);
        LoadCredential = lib.mkIf (credentials != [ ]) credentials;
        EnvironmentFile = lib.mkIf (environmentFile != null) environmentFile;
        RuntimeDirectory = name;
        NoNewPrivileges = true;
        PrivateTmp = true;
        ProtectSystem = "full";
        IOSchedulingClass = "idle";
        CPUSchedulingPolicy = lib.mkDefault "batch";
      };
      script = ''
        exec ${runner} ${
          lib.escapeShellArgs (
            [
              name
              (toString metricsDirectory)
              ledger
              "${package}/bin/kingpost"
            ]
            ++ words
          )
        } ${more}
      '';
    };

  timer = check: {
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = check.onCalendar;
      RandomizedDelaySec = check.randomizedDelay;
      Persistent = true;
    };
  };
}
