# `legacyPackages.<system>`: derivations that really build, with the machine's shell and the tests' Python.
{ lib, system }:
let
  # The path of the Python that runs the tests; the test that copies this folder writes it there.
  testPython = import ./python.nix;
  shell = "/bin/bash";

  # A derivation whose script sees its arguments as variables, and its inputs' programs on PATH.
  run =
    {
      name,
      inputs ? [ ],
      meta ? { },
      passthru ? { },
      ...
    }@arguments:
    script:
    derivation (
      removeAttrs arguments [
        "inputs"
        "meta"
        "passthru"
      ]
      // {
        inherit name system script;
        builder = shell;
        args = [
          "-euc"
          "eval \"$script\""
        ];
        PATH = builtins.concatStringsSep ":" (map (input: "${input}/bin") inputs ++ [ "/usr/bin:/bin" ]);
      }
    )
    // passthru
    // {
      inherit meta;
    };

  # nixpkgs shows these to whoever looks for a package, and `nix run` needs the last one.
  described =
    meta:
    assert meta ? description && meta ? license && meta ? mainProgram;
    assert !lib.hasSuffix "." meta.description;
    meta;

  tool =
    name:
    run { inherit name; } ''
      mkdir -p $out/bin
      echo '#!${shell}' >$out/bin/${name}
      chmod +x $out/bin/${name}
    '';

  python3 = run { name = "python3"; passthru.interpreter = "${python3}/bin/python3"; } ''
    mkdir -p $out/bin
    printf '#!%s\nexec %s "$@"\n' ${shell} ${testPython} >$out/bin/python3
    chmod +x $out/bin/python3
  '';

  # A Python package is its name and version: what nixpkgs' pythonRuntimeDepsCheckHook compares.
  pythonPackage =
    pname: version:
    run {
      name = "python3-${pname}-${version}";
      passthru = { inherit pname version; };
    } "mkdir -p $out";
  # Versions as in nixos-26.05, or the oldest that a supported release was seen with.
  python3Packages = lib.mapAttrs pythonPackage {
    boto3 = "1.40.4";
    brotli = "1.1.0";
    cryptography = "46.0.6";
    hatchling = "1.27.0";
    httpx = "0.28.1";
    hypothesis = "6.136.9";
    jinja2 = "3.1.6";
    jsonschema = "4.25.0";
    kubernetes-validate = "1.31.0";
    pydantic = "2.12.5";
    pyjwt = "2.10.1";
    pytest-timeout = "2.4.0";
    pytest-xdist = "3.8.0";
    pytestCheckHook = "0";
    pyyaml = "6.0.2";
    rich = "14.3.3";
    sqlite-utils = "3.39";
    tomli = "2.2.1";
    tomlkit = "0.13.3";
    typer = "0.25.1";
    zstandard = "0.23.0";
  } // { inherit buildPythonApplication; };

  buildPythonApplication =
    {
      pname,
      version,
      pyproject,
      src,
      build-system,
      dependencies,
      nativeCheckInputs ? [ ],
      pytestFlags ? [ ],
      disabledTestMarks ? [ ],
      pythonImportsCheck,
      meta,
    }:
    assert pyproject;
    run {
      name = "${pname}-${version}";
      inherit pname version src pythonImportsCheck;
      shellPath = shell;
      requirements = map (package: "${package.pname}==${package.version}") (build-system ++ dependencies);
      meta = described meta;
      passthru = { inherit pname version dependencies nativeCheckInputs; };
    } "${testPython} ${./install_python.py}";

  mkDerivation =
    {
      pname,
      version,
      src,
      strictDeps,
      nativeBuildInputs ? [ ],
      buildInputs ? [ ],
      dontConfigure,
      buildPhase,
      doCheck,
      checkPhase,
      installPhase,
      meta,
    }:
    assert strictDeps && dontConfigure && doCheck;
    run {
      name = "${pname}-${version}";
      inherit src buildPhase checkPhase installPhase;
      inputs = nativeBuildInputs;
      meta = described meta;
      passthru = { inherit pname version; };
    } ''
      runHook() { :; }
      cp -r $src source && chmod -R u+w source && cd source
      eval "$buildPhase"; eval "$checkPhase"; eval "$installPhase"
    '';

  runCommand =
    name:
    {
      nativeBuildInputs ? [ ],
      ...
    }@arguments:
    script:
    run (removeAttrs arguments [ "nativeBuildInputs" ] // { inherit name; inputs = nativeBuildInputs; }) script;

  writeScript =
    { name, text, path ? name }:
    run { inherit name text; meta.mainProgram = name; } ''
      mkdir -p "$(dirname "$out${path}")"
      printf '%s' "$text" >"$out${path}"
      chmod +x "$out${path}"
    '';

  packages = {
    inherit lib python3 python3Packages runCommand;
    stdenv.hostPlatform = { inherit system; isLinux = lib.hasSuffix "-linux" system; };
    stdenvNoCC = { inherit shell mkDerivation; };
    writeShellScript = name: text: writeScript { inherit name; path = ""; text = "#!${shell}\n${text}"; };
    writeShellApplication =
      { name, runtimeInputs, text }:
      writeScript {
        inherit name;
        path = "/bin/${name}";
        text = "#!${shell}\nPATH=${builtins.concatStringsSep ":" (map (input: "${input}/bin") runtimeInputs)}:$PATH\n${text}";
      };
    mkShell =
      { inputsFrom, packages }:
      run { name = "shell"; inputs = inputsFrom ++ packages; } "mkdir $out";
    # Only what can be told without NixOS: that its modules are there and can be read.
    testers.runNixOSTest =
      { imports, ... }:
      assert builtins.all (file: builtins.isFunction (import file) || builtins.isAttrs (import file)) imports;
      run { name = "vm-test"; } "exit 1";
  }
  // lib.genAttrs [
    "gitMinimal"
    "mypy"
    "nixfmt"
    "ruff"
    "shellcheck"
    "treefmt"
    "versionCheckHook"
  ] tool;
in
packages
// {
  callPackage =
    function: overrides:
    function (builtins.intersectAttrs (builtins.functionArgs function) packages // overrides);
}
