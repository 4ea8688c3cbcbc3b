# What kingpost's flake uses of nixpkgs, and no more, written for the tests: a name that is not here fails as one that
# nixpkgs lacks would. Its builders run on the machine's own shell and Python, so packages and apps can be built and run.
{
  outputs =
    { self }:
    let
      lib = import ./lib.nix;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ] (system: import ./packages.nix { inherit lib system; });
    };
}
