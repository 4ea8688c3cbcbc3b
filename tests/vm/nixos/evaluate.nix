# evaluate.nix: what the machines of a NixOS test become in a Debian guest.
#
#   check    a file of checks/, which is a module of a NixOS test
#   modules  kingpost's modules/
#   standIn  the small module system of tests/real/nixos-stand-in, with its options
#   lib      a nixpkgs `lib`, or the stand-in's
#
# Gives a derivation whose output is JSON, with every script that the units run in its closure.
{ check, modules, standIn, lib ? standIn + "/lib.nix" }:

let
  library = import lib;
  file = name: mode: text: derivation {
    inherit name text mode;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    passAsFile = [ "text" ];
    args = [ "-c" "cat \"$textPath\" >\"$out\"; chmod \"$mode\" \"$out\"" ];
    PATH = "/usr/bin:/bin";
  };

  # Where Debian, or the driver, has what is in the Nix store of a NixOS machine: each path on purpose.
  packages = builtins.mapAttrs (name: outPath: { type = "derivation"; inherit name outPath; }) {
    coreutils = "/usr";
    diffutils = "/usr";
    docker = "/usr";
    openssh = "/usr";
    python3 = "/usr";
    gitlab-runner = "/opt/kingpost/gitlab-runner";
    attic-server = "/opt/kingpost/attic-server";
    garage_2 = "/opt/kingpost/garage";
    attic-client = "/opt/kingpost/attic-client";
    k3s = "/opt/kingpost/k3s";
    kingpost = "/opt/kingpost/kingpost";
    kingpost-store-fix = "/opt/kingpost/store-fix";
  };

  # Its options of agenix are the stand-in's.
  self.nixosModules = { agenix = { }; } // builtins.listToAttrs (map (name: {
    name = builtins.head (builtins.match "(.*)\\.nix" name);
    value = modules + "/${name}";
  }) (builtins.filter (name: builtins.match ".*\\.nix" name != null) (builtins.attrNames (builtins.readDir modules))));
  test = import check { inherit self; lib = library; };

  evaluate = name: node:
    let
      config = import (standIn + "/evaluate.nix") {
        inherit lib packages;
        module = node;
        extra = {
          imports = [ ./options.nix ];
          networking.hostName = library.mkDefault name;
        };
      };
      broken = builtins.filter (assertion: !assertion.assertion) config.assertions;
      # nixos/lib/systemd-lib.nix: a script is a file that the unit runs.
      service = name: unit: unit // {
        serviceConfig = unit.serviceConfig // (
          if unit.script == "" then { }
          else { ExecStart = "${file "unit-script-${name}-start" "0555" "#!/bin/bash\nset -e\n${unit.script}"}"; }
        );
      };
    in
    if broken != [ ] then throw "\nFailed assertions:\n- ${(builtins.head broken).message}"
    else {
      inherit (config.networking) hostName;
      inherit (config.virtualisation) memorySize;
      services = builtins.mapAttrs service config.systemd.services;
      inherit (config.systemd) slices timers sockets;
      tmpfiles = config.systemd.tmpfiles.rules;
      etc = builtins.mapAttrs (_: etc: etc.text) config.environment.etc;
      packages = map (package: { inherit (package) name; path = toString package; }) config.environment.systemPackages;
      nix = config.nix.settings;
      oomd = config.systemd.oomd.enable;
      docker = {
        inherit (config.virtualisation.docker) enable;
        inherit (config.virtualisation.docker.daemon) settings;
      };
      firewall = {
        inherit (config.networking.firewall) enable interfaces allowedTCPPorts;
      };
      users = builtins.mapAttrs (name: user: if user.isNormalUser then "/home/${name}" else user.home) config.users.users;
    };
  read = {
    inherit (test) name testScript;
    nodes = builtins.mapAttrs evaluate test.nodes;
  };
in
file "machines.json" "0444" (builtins.toJSON read)
