# evaluate.nix: what a rendered host's configuration becomes, as a value that prints as JSON.
#
#   module    the rendered host's folder, or one of modules/
#   lib       a nixpkgs `lib`, or the stand-in beside this file
#   extra     what a host's own flake adds
#   packages  further packages, or others in place of those below
{ module, lib ? ./lib.nix, extra ? { }, shell ? "/bin/sh", packages ? { } }:

let
  # Real derivations, so that tests can build and run the scripts.
  file = name: mode: text: derivation {
    inherit name text mode;
    system = builtins.currentSystem;
    builder = shell;
    passAsFile = [ "text" ];
    args = [ "-c" "cat \"$textPath\" >\"$out\"; chmod \"$mode\" \"$out\"" ];
    PATH = "/usr/bin:/bin";
  };
  directory = name: path: text: derivation {
    inherit name path text;
    system = builtins.currentSystem;
    builder = shell;
    passAsFile = [ "text" ];
    args = [ "-c" "mkdir -p \"$(dirname \"$out/$path\")\"; cat \"$textPath\" >\"$out/$path\"" ];
    PATH = "/usr/bin:/bin";
  };
  pkgs = {
    writeShellScript = name: text: file name "0555" "#!/usr/bin/env bash\n${text}";
    writeText = name: text: file name "0444" text;
    writeTextDir = path: text: directory "text-dir" path text;
    coreutils = "/coreutils";
    openssh = "/usr";
    garage_2 = file "garage" "0444" "";
    git = file "git" "0444" "";
    attic-client = file "attic-client" "0444" "";
    cachix = file "cachix" "0444" "";
    nix = file "nix" "0444" "";
    python3 = derivation {
      name = "python3";
      system = builtins.currentSystem;
      builder = shell;
      args = [ "-c" "mkdir -p \"$out/bin\"; ln -s /usr/bin/python3 \"$out/bin/python3\"" ];
      PATH = "/usr/bin:/bin";
    };
    formats.toml = _: { generate = name: value: file name "0444" (toml value); };
  } // packages;

  # Inline tables say everything that TOML can.
  toml = value: builtins.concatStringsSep "" (builtins.attrValues (builtins.mapAttrs
    (name: member: "${builtins.toJSON name} = ${inline member}\n") value));
  inline = value:
    if builtins.isAttrs value then
      "{ ${builtins.concatStringsSep ", " (builtins.attrValues (builtins.mapAttrs
        (name: member: "${builtins.toJSON name} = ${inline member}") value))} }"
    else if builtins.isList value then "[ ${builtins.concatStringsSep ", " (map inline value)} ]"
    else builtins.toJSON value;

  config = ((import lib).evalModules {
    modules = [
      ./options.nix
      module
      extra
    ];
    specialArgs = { inherit pkgs; };
  }).config;
in
config
// {
  # As JSON a path would be copied to the store.
  age.secrets = builtins.mapAttrs (_: secret: secret // { file = toString secret.file; }) config.age.secrets;
  sops.secrets = builtins.mapAttrs
    (_: secret: secret // { sopsFile = if secret.sopsFile == null then null else toString secret.sopsFile; })
    config.sops.secrets;
  kingpost = null;
  _module = null;
}
