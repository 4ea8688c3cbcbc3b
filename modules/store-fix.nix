# The recovery of a broken Nix store, kept where a broken store cannot take it away, and a look at the store at
# every boot before the daemon builds on it.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.storeFix;
  kept = "${cfg.directory}/store-fix.pyz";

  # The copy is replaced by what works and by nothing else: the store may be what is broken.
  keep = pkgs.writeShellScript "kingpost-store-fix-keep" ''
    set -eu
    directory=${lib.escapeShellArg cfg.directory}
    mkdir -p -- "$directory"
    put() {
      new=$(mktemp -- "$directory/.new.XXXXXX")
      cat -- "$1" >"$new"
      chmod -- "$3" "$new"
      if ! "$4" "$new"; then
        rm -f -- "$new"
        echo "kingpost: $1 does not work, so $directory/$2 stays as it was" >&2
        echo "  fix: $directory/store-fix scan" >&2
        exit 1
      fi
      sync -- "$new"
      mv -f -- "$new" "$directory/$2"
    }
    # An empty file is a program that succeeds.
    runs() { test -n "$(${lib.escapeShellArg "${cfg.python}/bin/python3"} -I "$1" --help)"; }
    reads() { test -s "$1" && "$BASH" -n "$1"; }
    rm -f -- "$directory"/.new.*
    put ${cfg.package}/libexec/kingpost-store-fix.pyz store-fix.pyz 0444 runs
    put ${./store-scan.py} store-scan.py 0444 runs
    put ${./store-fix.sh} store-fix 0555 reads
    printf '%s\n' ${lib.escapeShellArg "${cfg.python}/bin/python3"} >"$directory/python"
    roots=${lib.escapeShellArg cfg.gcroots}
    ln -sfn -- ${cfg.package} "$roots/kingpost-store-fix"
    ln -sfn -- ${cfg.python} "$roots/kingpost-store-fix-python"
  '';
in
{
  key = "kingpost/store-fix";

  options.kingpost.storeFix = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      example = true;
      description = ''
        Whether to keep `store-fix` on this host, outside the Nix store too, and to look at the store at every
        boot. The look only reads; `/var/lib/kingpost/store-fix repair` is what to run when it finds damage.
      '';
    };
    package = lib.mkOption {
      type = lib.types.nullOr lib.types.package;
      default = config._module.args.kingpost.store-fix or pkgs.kingpost-store-fix or null;
      defaultText = lib.literalExpression "kingpost's package store-fix, of its flake or its overlay";
      description = "The package with `libexec/kingpost-store-fix.pyz`: one file for any Python since 3.9.";
    };
    python = lib.mkOption {
      type = lib.types.package;
      default = pkgs.python3;
      defaultText = lib.literalExpression "pkgs.python3";
      description = ''
        The Python that runs it, with its sqlite3: by default the one that nixos-rebuild brings to every host. Where
        it is damaged itself, any other one is looked for: of the current system, in the store, in /usr/bin.
      '';
    };
    directory = lib.mkOption {
      type = lib.types.path;
      default = "/var/lib/kingpost";
      example = "/persist/kingpost";
      description = "Where it is kept outside the store, with the report of the last look, `store-scan.json`.";
    };
    gcroots = lib.mkOption {
      type = lib.types.path;
      default = "/nix/var/nix/gcroots";
      description = "Where links keep it from being collected as garbage, whatever generation is current.";
    };
    scanAtBoot = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether to compare the store with its database at boot, before nix-daemon starts. Connections to the daemon
        wait so long. What is found makes `kingpost-store-scan.service` fail; nothing else waits for it.
      '';
    };
    repair = lib.mkOption {
      type = lib.types.enum [
        "none"
        "safe"
      ];
      default = "none";
      example = "safe";
      description = ''
        What to do about damage at boot. `none`: report it. `safe`: repair it if that loses nothing, which is so when
        no step of the plan gives up a path that anything needs, a reference, a link or bytes on disk; no network and
        no build is used, a backup is made, and `store-fix undo` brings it back.
      '';
    };
    timeout = lib.mkOption {
      type = lib.types.str;
      default = "5min";
      description = "The longest that nix-daemon waits for the look, as systemd.time(7) writes it.";
    };
    textfile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/var/lib/prometheus-node-exporter/kingpost-store.prom";
      description = "Where to write metrics for node_exporter's textfile collector.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.package != null;
        message = "kingpost.storeFix.package is not set: import this module from kingpost's flake (kingpost.nixosModules.store-fix), add its overlay to nixpkgs.overlays, or set the option";
      }
      {
        assertion = !lib.hasPrefix "/nix/" cfg.directory;
        message = "kingpost.storeFix.directory is ${toString cfg.directory}, in the Nix store's own tree: choose a folder that is there when the store is not, such as /var/lib/kingpost";
      }
      {
        assertion = lib.all (path: builtins.match "[A-Za-z0-9/._-]+" (toString path) != null) (
          [ cfg.directory ] ++ lib.optional (cfg.textfile != null) cfg.textfile
        );
        message = "kingpost.storeFix: directory and textfile are part of a unit's command: use letters, digits, - . _ and / in them";
      }
      {
        assertion = cfg.textfile == null || lib.hasSuffix ".prom" cfg.textfile;
        message = "kingpost.storeFix.textfile is ${toString cfg.textfile}, which node_exporter does not read: end its name with .prom";
      }
    ];

    systemd.services.kingpost-store-fix = {
      description = "Keep the repair of the Nix store outside of it";
      wantedBy = [ "multi-user.target" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = keep;
      };
    };

    systemd.services.kingpost-store-scan = lib.mkIf cfg.scanAtBoot {
      description = "Compare the Nix store with its database";
      wantedBy = [ "multi-user.target" ];
      # The daemon's socket is there early; who connects waits for the daemon, and the daemon for this.
      after = [
        "local-fs.target"
        "kingpost-store-fix.service"
      ];
      before = [
        "nix-daemon.service"
        "nix-gc.service"
        "nix-optimise.service"
      ];
      # A switch must not look while it copies.
      restartIfChanged = false;
      unitConfig.ConditionPathExists = "${cfg.directory}/store-fix";
      serviceConfig = {
        Type = "oneshot";
        TimeoutStartSec = lib.mkDefault cfg.timeout;
        # Not from the store: this is for when the store is damaged.
        ExecStart = lib.concatStringsSep " " (
          [
            "/bin/sh ${cfg.directory}/store-fix --at-boot"
            "--repair ${cfg.repair}"
            "--report ${cfg.directory}/store-scan.json"
          ]
          ++ lib.optional (cfg.textfile != null) "--textfile ${cfg.textfile}"
        );
      };
    };
  };
}
