# Memory and CPU bounds of units and containers, from one set: so that what eats memory dies alone.
#
# What is said here of a unit wins over what the unit's own module says; a host that must differ uses lib.mkForce.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.limits;
  inherit (lib) mkOption types;

  # Kinds of units whose resource directives NixOS has options for; others get a drop-in.
  configurable = {
    service = "services";
    slice = "slices";
    socket = "sockets";
  };
  # Kinds of units that start processes, and so have an OOM score and a slice that can be chosen.
  executing = [
    "service"
    "socket"
    "mount"
    "swap"
  ];

  parts = unit: builtins.match "(.+)\\.([a-z]+)" unit;
  kindOf = unit: builtins.elemAt (parts unit) 1;
  baseOf = unit: builtins.elemAt (parts unit) 0;
  wellNamed = unit: parts unit != null;

  directives = limit: lib.filterAttrs (_: value: value != null) {
    MemoryMin = limit.memoryMin;
    MemoryHigh = limit.memoryHigh;
    MemoryMax = limit.memoryMax;
    MemorySwapMax = limit.swapMax;
    CPUWeight = limit.cpuWeight;
    OOMScoreAdjust = limit.oomScore;
    ManagedOOMMemoryPressure = limit.oomd;
    Slice = limit.slice;
  };

  enabled = lib.filterAttrs (unit: _: wellNamed unit) cfg.units;
  ofKind = kind: lib.filterAttrs (unit: _: kindOf unit == kind) enabled;
  others = lib.filterAttrs (unit: _: !(configurable ? ${kindOf unit})) enabled;
  section =
    kind:
    lib.mapAttrs' (unit: limit: {
      name = baseOf unit;
      value."${kind}Config" = lib.mapAttrs (_: lib.mkOverride 90) (directives limit);
    }) (ofKind kind);
  capitalized = kind: {
    mount = "Mount";
    scope = "Scope";
    swap = "Swap";
  }.${kind} or null;
  dropIn =
    unit: limit:
    pkgs.writeTextDir "etc/systemd/system/${unit}.d/kingpost.conf" (
      "[${toString (capitalized (kindOf unit))}]\n"
      + lib.concatStringsSep "" (lib.mapAttrsToList (key: value: "${key}=${toString value}\n") (directives limit))
    );

  # docker run's; its CPU shares are 1024 where systemd's weight is 100.
  dockerOptions =
    limit:
    lib.optional (limit.memoryMax != null) "--memory=${toString limit.memoryMax}"
    ++ lib.optional (
      limit.memoryMax != null && limit.swapMax != null
    ) "--memory-swap=${toString (limit.memoryMax + limit.swapMax)}"
    ++ lib.optional (limit.memoryHigh != null) "--memory-reservation=${toString limit.memoryHigh}"
    ++ lib.optional (limit.oomScore != null) "--oom-score-adj=${toString limit.oomScore}"
    ++ lib.optional (
      limit.cpuWeight != null
    ) "--cpu-shares=${toString (let shares = limit.cpuWeight * 1024 / 100; in if shares < 2 then 2 else shares)}";

  above = high: max: builtins.isInt high && builtins.isInt max && high > max;
  complaints =
    unit: limit:
    if !(wellNamed unit) then
      [ "${unit} is no unit: write its kind too, such as ${unit}.service" ]
    else
      let
        kind = kindOf unit;
      in
      lib.optional (!(configurable ? ${kind}) && capitalized kind == null)
        "${unit}: units of the kind ${kind} have no memory of their own: name a service, slice, socket, scope, mount or swap"
      ++ lib.optional (limit.oomScore != null && !(lib.elem kind executing))
        "${unit}: a ${kind} starts no process, so it has no OOM score: set oomScore of the services in it"
      ++ lib.optional (limit.slice != null && !(lib.elem kind executing))
        "${unit}: a ${kind} has its place by its name: set slice of the services that belong in it"
      ++ lib.optional (limit.slice != null && !(lib.hasSuffix ".slice" limit.slice))
        "${unit}: ${limit.slice} is no slice: end its name with .slice"
      ++ lib.optional (above limit.memoryHigh limit.memoryMax)
        "${unit}: memoryHigh is above memoryMax, so it would be killed before it is slowed down: lower memoryHigh"
      ++ lib.optional (above limit.memoryMin limit.memoryMax)
        "${unit}: memoryMin is above memoryMax: lower memoryMin";

  size =
    description: example:
    mkOption {
      type = types.nullOr (types.either types.int types.str);
      default = null;
      inherit description example;
    };
  number =
    low: high: description: example:
    mkOption {
      type = types.nullOr (types.ints.between low high);
      default = null;
      inherit description example;
    };
  cpuWeight = number 1 10000 "Its share of the CPU when there is not enough; 100 is everybody's." 50;
  oomScore = number (-1000) 1000 ''
    Whom the kernel kills first when the whole host is out of memory: 1000 first, -1000 never.
  '' 250;
in
{
  key = "kingpost/limits";

  options.kingpost.limits = {
    units = mkOption {
      default = { };
      example = {
        "nix-daemon.service" = {
          slice = "builders.slice";
          oomScore = 250;
        };
        "builders.slice" = {
          memoryHigh = "5G";
          memoryMax = "6G";
          cpuWeight = 50;
        };
        "sshd.service".oomScore = -900;
      };
      description = ''
        Bounds by unit, with its kind: `atticd.service`, `builders.slice`. Builds run in the unit of nix-daemon, so its
        bounds are theirs; a slice bounds several units together.
      '';
      type = types.attrsOf (
        types.submodule {
          options = {
            memoryMin = size "So much is not reclaimed from it, whoever else needs memory." "64M";
            memoryHigh = size "Above it the unit is slowed down and its memory reclaimed; bytes, or as systemd writes it." "768M";
            memoryMax = size "Above it a process of the unit is killed, and nothing else." "1G";
            swapMax = size "The most of swap that it may take." 0;
            inherit cpuWeight oomScore;
            oomd = mkOption {
              type = types.nullOr (
                types.enum [
                  "auto"
                  "kill"
                ]
              );
              default = null;
              description = "`kill`: systemd-oomd ends the unit when it stalls for memory too long.";
            };
            slice = mkOption {
              type = types.nullOr types.str;
              default = null;
              example = "builders.slice";
              description = "The slice that it runs in, whose bounds hold for all that is in it together.";
            };
          };
        }
      );
    };
    containers = mkOption {
      default = { };
      example = {
        web.memoryMax = 536870912;
      };
      description = "Bounds by container of `virtualisation.oci-containers`; sizes in bytes.";
      type = types.attrsOf (
        types.submodule {
          options = {
            memoryMax = mkOption {
              type = types.nullOr types.int;
              default = null;
              description = "Above it a process in it is killed.";
            };
            memoryHigh = mkOption {
              type = types.nullOr types.int;
              default = null;
              description = "What it is pushed back to when the host is short of memory.";
            };
            swapMax = mkOption {
              type = types.nullOr types.int;
              default = null;
              description = "The most of swap that it may take; needs memoryMax.";
            };
            inherit cpuWeight oomScore;
          };
        }
      );
    };
  };

  config = {
    assertions = map (message: {
      assertion = false;
      message = "kingpost.limits.units: ${message}";
    }) (lib.concatLists (lib.mapAttrsToList complaints cfg.units));

    systemd.services = section "service";
    systemd.slices = section "slice";
    systemd.sockets = section "socket";
    # Units of other kinds have no options of their own in NixOS.
    systemd.packages = lib.mapAttrsToList dropIn others;
    systemd.oomd.enable = lib.mkIf (lib.any (limit: limit.oomd == "kill") (lib.attrValues cfg.units)) (
      lib.mkDefault true
    );

    virtualisation.oci-containers.containers = lib.mapAttrs (_: limit: {
      extraOptions = dockerOptions limit;
    }) cfg.containers;
  };
}
