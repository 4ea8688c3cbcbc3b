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
  pkgs = {
    writeShellScript = name: text: file name "0555" "#!/bin/bash\n${text}";
    writeText = name: text: file name "0444" text;
    coreutils = "/usr";
    diffutils = "/usr";
    openssh = "/usr";
    docker = "/usr";
    python3 = "/usr";
    formats.toml = _: { generate = name: value: file name "0444" (builtins.toJSON value); };
    gitlab-runner = "/opt/kingpost/gitlab-runner";
    attic-server = "/opt/kingpost/attic-server";
  };
  kingpost = {
    store-fix = "/opt/kingpost/store-fix";
    kingpost = "/opt/kingpost/kingpost";
  };

  self.nixosModules = builtins.listToAttrs (map (name: {
    name = builtins.head (builtins.match "(.*)\\.nix" name);
    value = modules + "/${name}";
  }) (builtins.filter (name: builtins.match ".*\\.nix" name != null) (builtins.attrNames (builtins.readDir modules))));
  test = import check { inherit self; lib = library; };

  evaluate = name: node:
    let
      config = (library.evalModules {
        modules = [
          (standIn + "/options.nix")
          ./options.nix
          node
          {
            networking.hostName = library.mkDefault name;
            _module.args.kingpost = kingpost;
          }
        ];
        specialArgs = { inherit pkgs kingpost; };
      }).config;
      broken = builtins.filter (assertion: !assertion.assertion) config.assertions;
      # nixos/lib/systemd-lib.nix: a script is a file that the unit runs.
      service = name: unit: unit // {
        serviceConfig = unit.serviceConfig // (
          if unit.script == "" then { }
          else { ExecStart = "${pkgs.writeShellScript "unit-script-${name}-start" "set -e\n${unit.script}"}"; }
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
      packages = map toString config.environment.systemPackages;
      nix = config.nix.settings;
      docker = {
        inherit (config.virtualisation.docker) enable;
        inherit (config.virtualisation.docker.daemon) settings;
      };
      firewall = {
        inherit (config.networking.firewall) enable interfaces;
      };
    };
  read = {
    inherit (test) name testScript;
    skipped = test.meta.kingpost.skippedWithoutNixOS or null;
    nodes = builtins.mapAttrs evaluate test.nodes;
  };
in
if read.skipped != null
then file "machines.json" "0444" (builtins.toJSON { inherit (read) name skipped; nodes = { }; testScript = ""; })
else file "machines.json" "0444" (builtins.toJSON read)
