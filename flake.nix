{
  description = "One typed topology for a self-hosted Nix platform: render it, observe it, repair it";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      packagesFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system};
      forAllSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      # `__version__` of the package is the only place that states it.
      version = builtins.head (
        builtins.match ".*__version__ = \"([^\"]+)\".*" (builtins.readFile ./src/kingpost/__init__.py)
      );

      # Sources of one derivation: what is not listed here can change without a rebuild.
      only =
        parts:
        lib.fileset.toSource {
          root = ./.;
          fileset = lib.fileset.unions parts;
        };
      program = [
        ./LICENSE
        ./README.md
        ./modules
        ./pyproject.toml
        ./src
        ./templates
      ];
      tested = program ++ [
        ./ARCHITECTURE.md
        ./CONTRIBUTING.md
        ./Makefile
        ./checks
        ./docs
        ./examples
        ./flake.lock
        ./flake.nix
        ./tests
        ./tools
      ];

      # The files NAME.nix of a folder, by NAME.
      nixFiles =
        folder:
        lib.mapAttrs' (file: _: lib.nameValuePair (lib.removeSuffix ".nix" file) (folder + "/${file}")) (
          lib.filterAttrs (file: kind: kind == "regular" && lib.hasSuffix ".nix" file) (
            lib.optionalAttrs (builtins.pathExists folder) (builtins.readDir folder)
          )
        );

      makeKingpost =
        {
          python3Packages,
          versionCheckHook,
          # The test suite's programs that are not Python's.
          gitMinimal,
          withTests ? false,
        }:
        python3Packages.buildPythonApplication {
          pname = "kingpost";
          inherit version;
          pyproject = true;
          src = only (if withTests then tested else program);

          build-system = [ python3Packages.hatchling ];
          dependencies = with python3Packages; [
            boto3
            brotli
            cryptography
            httpx
            jinja2
            pydantic
            pyjwt
            rich
            sqlite-utils
            tomli
            tomlkit
            typer
            zstandard
          ];

          nativeCheckInputs = [
            versionCheckHook
          ]
          ++ lib.optionals withTests (
            with python3Packages;
            [
              gitMinimal
              hypothesis
              jsonschema
              kubernetes-validate
              pytest-timeout
              pytest-xdist
              pytestCheckHook
              pyyaml
            ]
          );
          # nixpkgs has other versions than the tests were written with: what they deprecate is no failure here.
          pytestFlags = [ "-Wdefault" ];
          # These start real daemons, containers and network namespaces: `make test` runs them.
          disabledTestMarks = [
            "real"
            "vm"
          ];
          pythonImportsCheck = [ "kingpost" ];

          meta = {
            description = "Render, observe and repair a self-hosted Nix platform from one typed topology";
            license = lib.licenses.mit;
            mainProgram = "kingpost";
          };
        };

      # Python is the one that nixos-rebuild brings to every NixOS host anyway: the repair adds one small file.
      makeStoreFix =
        {
          python3,
          stdenvNoCC,
        }:
        stdenvNoCC.mkDerivation {
          pname = "kingpost-store-fix";
          inherit version;
          src = only [
            ./src/kingpost/storefix
            ./tools/build-pyz
          ];
          strictDeps = true;
          nativeBuildInputs = [ python3 ];
          buildInputs = [ python3 ];
          dontConfigure = true;
          buildPhase = ''
            runHook preBuild
            sh tools/build-pyz kingpost-store-fix.pyz
            runHook postBuild
          '';
          doCheck = true;
          checkPhase = ''
            runHook preCheck
            python3 -I kingpost-store-fix.pyz --help >/dev/null
            runHook postCheck
          '';
          installPhase = ''
            runHook preInstall
            install -D -m 0555 kingpost-store-fix.pyz $out/libexec/kingpost-store-fix.pyz
            mkdir -p $out/bin
            cat >$out/bin/kingpost-store-fix <<EOF
            #!${stdenvNoCC.shell}
            exec ${python3.interpreter} -I $out/libexec/kingpost-store-fix.pyz "\$@"
            EOF
            chmod 0555 $out/bin/kingpost-store-fix
            runHook postInstall
          '';
          meta = {
            description = "Bring a broken Nix store back, with nothing but Python's standard library";
            license = lib.licenses.mit;
            mainProgram = "kingpost-store-fix";
            platforms = lib.platforms.unix;
          };
        };
    in
    {
      packages = forAllSystems (pkgs: rec {
        default = kingpost;
        kingpost = pkgs.callPackage makeKingpost { };
        store-fix = pkgs.callPackage makeStoreFix { };
      });

      overlays.default = final: _prev: {
        kingpost = final.callPackage makeKingpost { };
        kingpost-store-fix = final.callPackage makeStoreFix { };
      };

      apps = forAllSystems (
        pkgs:
        let
          packages = packagesFor pkgs;
          command = name: description: {
            type = "app";
            program = toString (
              pkgs.writeShellScript "kingpost-${name}" ''
                exec ${lib.getExe packages.kingpost} ${name} "$@"
              ''
            );
            meta = { inherit description; };
          };
          whole = package: {
            type = "app";
            program = lib.getExe package;
            meta = { inherit (package.meta) description; };
          };
        in
        {
          default = whole packages.kingpost;
          store-fix = whole packages.store-fix;
          check = command "check" "Find every problem of a topology";
          generate = command "generate" "Render every file that follows from a topology";
          explain = command "explain" "Say at which address a context reaches a service, and why";
          matrix = command "matrix" "Show who reaches what at which address";
        }
      );

      # Each file of modules/ is one, and has kingpost's packages for its host's system as the argument `kingpost`.
      nixosModules =
        let
          packages = {
            key = "kingpost packages";
            imports = [ ({ pkgs, ... }: { _module.args.kingpost = packagesFor pkgs; }) ];
          };
          modules = lib.mapAttrs (_: file: {
            imports = [
              packages
              file
            ];
          }) (nixFiles ./modules);
        in
        modules // { default.imports = lib.attrValues modules; };

      checks = forAllSystems (
        pkgs:
        let
          packages = packagesFor pkgs;
          # Each checks/NAME.nix is a module of the NixOS test `vm-NAME`, with this flake as the argument `self`.
          machines = lib.mapAttrs' (
            name: file:
            lib.nameValuePair "vm-${name}" (
              pkgs.testers.runNixOSTest {
                imports = [ file ];
                _module.args.self = self;
              }
            )
          ) (nixFiles ./checks);
        in
        {
          inherit (packages) store-fix;
          kingpost = pkgs.callPackage makeKingpost { withTests = true; };

          lint =
            pkgs.runCommand "kingpost-lint"
              {
                src = only (tested ++ [ ./.ci ]);
                nativeBuildInputs = [
                  pkgs.ruff
                  pkgs.shellcheck
                ];
              }
              ''
                cd $src
                ruff check --no-cache
                ruff format --no-cache --check
                shebang='^#!.*[/ ](ba)?sh( |$)'
                grep -lrIE "$shebang" . | while read -r file; do
                  if head -1 "$file" | grep -qE "$shebang"; then
                    shellcheck --severity=warning "$file"
                  fi
                done
                touch $out
              '';

          # Every example renders, and what is rendered stays as it is when rendered again.
          examples = pkgs.runCommand "kingpost-examples" { nativeBuildInputs = [ packages.kingpost ]; } ''
            for topology in ${only [ ./examples ]}/examples/*/topology.toml; do
              name=$(basename "$(dirname "$topology")")
              kingpost generate "$topology" -o "$out/$name"
              kingpost generate "$topology" -o "$out/$name" --check
            done
          '';
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux machines
      );

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.checks.${pkgs.stdenv.hostPlatform.system}.kingpost ];
          packages = [
            pkgs.mypy
            pkgs.nixfmt
            pkgs.ruff
            pkgs.shellcheck
            self.formatter.${pkgs.stdenv.hostPlatform.system}
          ];
        };
      });

      formatter = forAllSystems (
        pkgs:
        pkgs.writeShellApplication {
          name = "treefmt";
          runtimeInputs = [
            pkgs.nixfmt
            pkgs.ruff
            pkgs.treefmt
          ];
          text = ''
            exec treefmt --tree-root-file flake.nix "$@"
          '';
        }
      );
    };
}
