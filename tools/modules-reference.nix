# The options of modules/ as a value that prints as JSON: {module: [{name, type, description, default, example}]}.
#
#   lib       a nixpkgs `lib`, or a stand-in
#   base      a module with the options of NixOS that modules/ set
#   modules   {name: file}
{
  lib,
  base,
  modules,
}:

let
  text =
    value:
    if value._type or "" == "literalExpression" then
      { literal = value.text; }
    else if builtins.isString value || builtins.isAttrs value || builtins.isList value then
      { inherit value; }
    else
      { literal = builtins.toJSON value; };

  one =
    place: option:
    {
      name = lib.concatStringsSep "." place;
      type = option.type.description or option.type.name;
      inherit (option) description;
      # Where a text stands for it, the default is nothing that everybody has.
      default =
        if option ? defaultText then
          text option.defaultText
        else if option ? default then
          text option.default
        else
          null;
      example = if option ? example then text option.example else null;
    };

  all =
    place: options:
    lib.concatMap (
      name:
      let
        here = place ++ [ name ];
        option = options.${name};
      in
      if name == "_module" then
        [ ]
      else if option._type or "" == "option" then
        [ (one here option) ] ++ all here (option.type.getSubOptions here)
      else
        all here option
    ) (lib.attrNames options);
in
lib.mapAttrs (
  _: file:
  all [ "kingpost" ]
    (lib.evalModules {
      modules = [
        base
        file
      ];
      specialArgs.pkgs = { };
    }).options.kingpost
) modules
