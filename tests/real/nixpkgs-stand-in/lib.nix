# The functions of nixpkgs' lib that kingpost's flake uses, with their semantics.
let
  inherit (builtins)
    all
    any
    attrNames
    concatMap
    filter
    listToAttrs
    pathExists
    stringLength
    substring
    ;
in
rec {
  inherit (builtins) attrValues mapAttrs;

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
  mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
  filterAttrs =
    keep: set:
    listToAttrs (
      concatMap (name: if keep name set.${name} then [ (nameValuePair name set.${name}) ] else [ ]) (
        attrNames set
      )
    );
  optionalAttrs = condition: set: if condition then set else { };
  optionals = condition: list: if condition then list else [ ];

  hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
  hasSuffix =
    suffix: text:
    let
      rest = stringLength text - stringLength suffix;
    in
    rest >= 0 && substring rest (-1) text == suffix;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;

  getExe =
    package:
    "${package}/bin/${package.meta.mainProgram or (throw "getExe: ${package.name} has no mainProgram")}";

  licenses.mit.spdxId = "MIT";
  platforms.unix = [
    "x86_64-linux"
    "aarch64-linux"
    "aarch64-darwin"
  ];

  fileset = {
    unions =
      parts:
      let
        missing = filter (part: !pathExists part) parts;
      in
      if missing == [ ] then
        map toString parts
      else
        throw "lib.fileset.unions: ${toString (builtins.head missing)} does not exist";
    toSource =
      { root, fileset }:
      assert all (hasPrefix (toString root + "/")) fileset;
      builtins.path {
        path = root;
        name = "source";
        filter =
          path: _:
          any (
            part: path == part || hasPrefix (part + "/") path || hasPrefix (path + "/") part
          ) fileset;
      };
  };
}
