# A small module system with the names and semantics of nixpkgs' lib, for tests on machines without nixpkgs.
#
# It knows what rendered modules use: options, priorities, order, mkIf, mkMerge, imports, and the types below.
# Like the real one it refuses options that nobody declares, conflicting definitions and values of a wrong type.
# Point NIXPKGS_LIB at a real nixpkgs `lib` and the same tests use that instead.
let
  inherit (builtins)
    all any attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl' hasAttr head
    isAttrs isBool isFloat isFunction isInt isList isPath isString length listToAttrs map mapAttrs partition
    replaceStrings sort stringLength substring toJSON typeOf;

  showOption = concatStringsSep ".";
  optional = condition: value: if condition then [ value ] else [ ];
  unique = foldl' (found: value: if elem value found then found else found ++ [ value ]) [ ];
  last = list: elemAt list (length list - 1);
  minimum = foldl' (left: right: if left < right then left else right) 9999;

  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  isType = type: value: isAttrs value && value._type or null == type;
  isOption = isType "option";

  # A definition without its wrappers: a list of { value, priority, order }.
  discharge = { value, priority ? 100, order ? 1000 }@definition:
    let again = change: discharge (definition // change); in
    if isType "override" value then again { value = value.content; inherit (value) priority; }
    else if isType "order" value then again { value = value.content; order = value.priority; }
    else if isType "if" value then if value.condition then again { value = value.content; } else [ ]
    else if isType "merge" value then concatMap (content: again { value = content; }) value.contents
    else [ { inherit value priority order; } ];

  # The definitions that count, in order: those of the strongest priority.
  strongest = definitions:
    let
      discharged = concatMap discharge definitions;
      priority = minimum (map (definition: definition.priority) discharged);
      kept = filter (definition: definition.priority == priority) discharged;
    in
    map (definition: { inherit (definition) value; file = "stand-in"; })
      (sort (left: right: left.order < right.order) kept);

  mergeDefinitions = loc: type: definitions:
    let
      found = strongest definitions;
      wrong = filter (definition: !(type.check definition.value)) found;
    in
    if found == [ ] then throw "The option `${showOption loc}' is used but not defined"
    else if wrong != [ ] then
      throw "A definition for option `${showOption loc}' is not of type `${type.name}', but a ${typeOf (head wrong).value}"
    else type.merge loc found;

  mergeEqualOption = loc: definitions:
    let first = (head definitions).value; in
    if all (definition: definition.value == first) definitions then first
    else throw "The option `${showOption loc}' has conflicting definition values";

  mkOptionType = { name, check ? _: true, merge ? mergeEqualOption, getSubOptions ? _: { } }: {
    _type = "option-type";
    description = name;
    inherit name check merge getSubOptions;
  };

  # A set without wrappers around it: its members wear them, so that no condition is looked at before its member.
  pushDown = value:
    let each = wrap: map (mapAttrs (_: wrap)) (pushDown value.content); in
    if isType "merge" value then concatMap pushDown value.contents
    else if isType "if" value then each (mkIf value.condition)
    else if isType "override" value then each (mkOverride value.priority)
    else if isType "order" value then each (mkOrder value.priority)
    else [ value ];

  # Merge definitions of a whole set against a tree of options.
  mergeTree = loc: freeform: options: definitions:
    let
      sets = concatMap
        (definition: map (value: { priority = 100; order = 1000; } // definition // { inherit value; }) (pushDown definition.value))
        definitions;
      names = unique (concatMap (found: attrNames found.value) sets);
      under = name: concatMap
        (found: if hasAttr name found.value
          then [ { value = found.value.${name}; inherit (found) priority order; } ] else [ ])
        sets;
      unknown = filter (name: !(hasAttr name options)) names;
      declared = mapAttrs
        (name: option:
          let here = loc ++ [ name ]; in
          if isOption option then
            option.apply or (value: value) (mergeDefinitions here option.type
              (under name ++ (if option ? default then [ { value = option.default; priority = 1500; } ] else [ ])))
          else mergeTree here null option (under name))
        options;
      free = listToAttrs (map
        (name: { inherit name; value = mergeDefinitions (loc ++ [ name ]) freeform.element (under name); })
        (filter (name: strongest (under name) != [ ]) unknown));
    in
    if unknown == [ ] then declared
    else if freeform != null then declared // free
    else throw "The option `${showOption (loc ++ [ (head unknown) ])}' does not exist";

  mergeOptions = left: right:
    if isOption left || isOption right then throw "an option is declared twice"
    else left // mapAttrs (name: value: if hasAttr name left then mergeOptions left.${name} value else value) right;

  # A module and all that it imports, each as { options, config }.
  collect = args: module:
    let
      loaded = if isPath module || isString module then import module else module;
      value = if isFunction loaded then loaded args else loaded;
      structured = value ? options || value ? config;
      strange = filter (name: !(elem name [ "imports" "options" "config" "_file" "key" ])) (attrNames value);
    in
    if structured && strange != [ ] then throw "a module with `options' or `config' has `${head strange}' beside them"
    else
      concatMap (collect args) (value.imports or [ ])
      ++ [
        {
          key = value.key or (if isPath module || isString module then toString module else null);
          options = value.options or { };
          config = if structured then value.config or { } else removeAttrs value [ "imports" "_file" "key" ];
        }
      ];

  evalModules = { modules, specialArgs ? { } }:
    let
      # What is imported twice counts once.
      found = foldl'
        (kept: module: if module.key != null && any (one: one.key == module.key) kept then kept else kept ++ [ module ])
        [ ]
        (concatMap (collect ({ inherit lib config options; } // specialArgs)) modules);
      own._module.args = lib.mkOption { type = types.attrsOf types.anything; default = { }; };
      options = foldl' mergeOptions own (map (module: module.options) found);
      config = mergeTree [ ] null options (map (module: { value = module.config; }) found);
    in
    { inherit config options; };

  types = {
    anything = mkOptionType { name = "anything"; };
    bool = mkOptionType { name = "bool"; check = isBool; };
    int = mkOptionType { name = "int"; check = isInt; };
    ints = {
      between = low: high: mkOptionType {
        name = "integer between ${toString low} and ${toString high}";
        check = value: isInt value && low <= value && value <= high;
      };
      positive = mkOptionType { name = "positive integer"; check = value: isInt value && value > 0; };
    };
    float = mkOptionType { name = "float"; check = isFloat; };
    str = mkOptionType { name = "str"; check = isString; };
    package = mkOptionType { name = "package"; };
    path = mkOptionType {
      name = "path";
      check = value: isPath value || (isString value && substring 0 1 value == "/");
    };
    port = mkOptionType { name = "port"; check = value: isInt value && value >= 0 && value <= 65535; };
    lines = mkOptionType {
      name = "lines";
      check = isString;
      merge = _: definitions: concatStringsSep "\n" (map (definition: definition.value) definitions);
    };
    enum = values: mkOptionType { name = "one of ${concatStringsSep ", " (map toJSON values)}"; check = value: elem value values; };
    nullOr = type: mkOptionType {
      inherit (type) getSubOptions;
      name = "null or ${type.name}";
      check = value: value == null || type.check value;
      merge = loc: definitions:
        if all (definition: definition.value == null) definitions then null else type.merge loc definitions;
    };
    either = left: right: mkOptionType {
      name = "${left.name} or ${right.name}";
      check = value: left.check value || right.check value;
      merge = loc: definitions:
        (if all (definition: left.check definition.value) definitions then left else right).merge loc definitions;
    };
    oneOf = options: foldl' types.either (head options) options;
    listOf = type: mkOptionType {
      name = "list of ${type.name}";
      check = isList;
      getSubOptions = prefix: type.getSubOptions (prefix ++ [ "*" ]);
      merge = loc: definitions: concatMap
        (definition: map (value: mergeDefinitions loc type [ { inherit value; } ]) definition.value)
        definitions;
    };
    attrsOf = type: mkOptionType {
      name = "attribute set of ${type.name}";
      check = isAttrs;
      getSubOptions = prefix: type.getSubOptions (prefix ++ [ "<name>" ]);
      # A name whose every definition is under a false mkIf is not there.
      merge = loc: definitions:
        let
          under = name: map (definition: { value = definition.value.${name}; })
            (filter (definition: hasAttr name definition.value) definitions);
          names = attrNames (foldl' (found: definition: found // definition.value) { } definitions);
        in
        listToAttrs (map
          (name: { inherit name; value = mergeDefinitions (loc ++ [ name ]) type (under name); })
          (filter (name: strongest (under name) != [ ]) names));
    } // { element = type; };
    submodule = module: mkOptionType {
      name = "submodule";
      check = isAttrs;
      merge = loc: definitions:
        let value = if isFunction module then module { name = last loc; inherit lib; } else module; in
        mergeTree loc (value.freeformType or null) (value.options or { })
          (map (definition: { inherit (definition) value; }) definitions);
    };
  };

  escapeShellArg = value:
    let text = toString value; in
    if builtins.match "[[:alnum:],._+:@%/-]+" text != null then text
    else "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";

  lib = {
    inherit evalModules mkIf mkOptionType mkOverride mkOrder optional types unique escapeShellArg isOption;
    inherit (builtins) all any attrNames attrValues concatLists concatMap concatStringsSep elem filter mapAttrs;
    mkEnableOption = what: lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
    mkOption = attributes: attributes // { _type = "option"; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    mkMerge = contents: { _type = "merge"; inherit contents; };
    optionals = condition: values: if condition then values else [ ];
    optionalAttrs = condition: values: if condition then values else { };
    optionalString = condition: text: if condition then text else "";
    concatMapStringsSep = separator: each: values: concatStringsSep separator (map each values);
    mapAttrsToList = each: values: map (name: each name values.${name}) (attrNames values);
    mapAttrs' = each: values: listToAttrs (map (name: each name values.${name}) (attrNames values));
    nameValuePair = name: value: { inherit name value; };
    filterAttrs = keep: values:
      listToAttrs (map (name: { inherit name; value = values.${name}; })
        (filter (name: keep name values.${name}) (attrNames values)));
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let start = stringLength text - stringLength suffix; in
      start >= 0 && substring start (-1) text == suffix;
    removeSuffix = suffix: text:
      if lib.hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    escapeShellArgs = values: concatStringsSep " " (map escapeShellArg values);
  };
in
lib
