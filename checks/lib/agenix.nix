# The options of agenix that rendered modules set, for machines whose secrets a test writes itself.
{ lib, ... }:

let
  inherit (lib) mkOption types;
  text =
    default:
    mkOption {
      type = types.str;
      inherit default;
    };
in
{
  options.age.secrets = mkOption {
    default = { };
    type = types.attrsOf (
      types.submodule (
        { name, ... }:
        {
          options = {
            file = mkOption { type = types.path; };
            path = text "/run/agenix/${name}";
            owner = text "0";
            group = text "0";
            mode = text "0400";
          };
        }
      )
    );
  };
}
