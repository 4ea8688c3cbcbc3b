# Rendered by kingpost from the topology: change that, then run `kingpost generate` again.
{
  imports = [ ../../modules/limits.nix ];

  kingpost.limits = {
    units."atticd.service" = {
      memoryHigh = 805306368; # 768MiB
      memoryMax = 1073741824; # 1GiB
    };
    units."nix-daemon.service" = {
      memoryHigh = 1073741824; # 1GiB
      memoryMax = 1610612736; # 1536MiB
      cpuWeight = 50;
      oomScore = 250;
    };
    units."sshd.service" = {
      oomScore = -900;
    };
  };
}
