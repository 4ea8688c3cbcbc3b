# ssh tunnels that notice when the other end is gone, and come back.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.kingpost.tunnels;
  inherit (lib) mkIf mkOption types;

  unit = name: "kingpost-tunnel-${name}";
  # systemd reads % in a path as the start of a specifier.
  percent = builtins.replaceStrings [ "%" ] [ "%%" ];
  isAddress = text: builtins.match "([^[:space:]:]+|\\[[0-9a-fA-F:]+]):[0-9]+" text != null;
  complaints =
    name: tunnel:
    lib.optional (builtins.match "[A-Za-z0-9:_.@-]+" name == null)
      "the name ${name} is none for a unit: use letters, digits, - and _"
    ++ lib.optional (!isAddress tunnel.listen)
      "listen of ${name} is ${tunnel.listen}: write ADDRESS:PORT, such as 127.0.0.1:9000"
    ++ lib.optional (!isAddress tunnel.to)
      "to of ${name} is ${tunnel.to}: write ADDRESS:PORT as the other end reaches it, such as 127.0.0.1:8080"
    ++ lib.optional (lib.hasPrefix "-" tunnel.login || tunnel.login == "")
      "login of ${name} is ${tunnel.login}: write user@host"
    ++ lib.optional (tunnel.identity != null && lib.hasPrefix "/nix/store/" tunnel.identity)
      "the private key of ${name} is in the Nix store, where everybody can read it: give the path of a secret as a string";

  service = name: tunnel: {
    description = if tunnel.description != "" then tunnel.description else "ssh tunnel ${name}";
    wantedBy = [ "multi-user.target" ];
    wants = [ "network-online.target" ] ++ tunnel.after;
    after = [ "network-online.target" ] ++ tunnel.after;
    # It fails while the other end restarts, and comes back by itself.
    unitConfig.StartLimitIntervalSec = 0;
    serviceConfig = {
      Restart = "always";
      RestartSec = lib.mkDefault 10;
      StateDirectory = unit name;
      DynamicUser = mkIf (tunnel.identity != null) true;
      LoadCredential = mkIf (tunnel.identity != null) "identity:${percent (toString tunnel.identity)}";
    };
    script = ''
      exec ${pkgs.openssh}/bin/ssh -N -T \
        -o BatchMode=yes \
        -o ExitOnForwardFailure=yes \
        -o ServerAliveInterval=${toString tunnel.keepalive} \
        -o ServerAliveCountMax=3 \
        ${
          if tunnel.hostKey == null then
            ''-o StrictHostKeyChecking=accept-new -o "UserKnownHostsFile=$STATE_DIRECTORY/known_hosts"''
          else
            "-o StrictHostKeyChecking=yes -o HostKeyAlias=${unit name} -o UserKnownHostsFile=${pkgs.writeText "known-hosts" "${unit name} ${tunnel.hostKey}\n"}"
        } \
        ${
          lib.optionalString (
            tunnel.identity != null
          ) ''-o IdentitiesOnly=yes -i "$CREDENTIALS_DIRECTORY/identity" ''
        }${
          lib.escapeShellArgs [
            "-L"
            "${tunnel.listen}:${tunnel.to}"
            tunnel.login
          ]
        }
    '';
  };
in
{
  key = "kingpost/tunnels";

  options.kingpost.tunnels = mkOption {
    default = { };
    example = {
      attic = {
        listen = "127.0.0.1:8083";
        to = "127.0.0.1:8083";
        login = "root@100.64.0.1";
      };
    };
    description = ''
      ssh tunnels from this host, by name. Each is a unit `kingpost-tunnel-NAME` that asks the other end every 15
      seconds whether it is there, ends when it is not, and is started again without a limit.
    '';
    type = types.attrsOf (
      types.submodule {
        options = {
          listen = mkOption {
            type = types.str;
            example = "127.0.0.1:9000";
            description = "Address and port on this host. Whatever reaches it gets through.";
          };
          to = mkOption {
            type = types.str;
            example = "127.0.0.1:8080";
            description = "Address and port as the other end reaches it.";
          };
          login = mkOption {
            type = types.str;
            example = "tunnel@100.64.0.1";
            description = "The other end, as ssh takes it.";
          };
          identity = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "/run/agenix/tunnel";
            description = ''
              The private key's file, which only root needs to be able to read. ssh then runs as a user of its own. null:
              root's own keys.
            '';
          };
          hostKey = mkOption {
            type = types.nullOr types.str;
            default = null;
            example = "ssh-ed25519 AAAAC3Nza…";
            description = "The other end's public host key. null: the one that it shows first is kept and then demanded.";
          };
          keepalive = mkOption {
            type = types.ints.positive;
            default = 15;
            description = "Seconds between questions whether the other end is there; the third without an answer ends ssh.";
          };
          after = mkOption {
            type = types.listOf types.str;
            default = [ ];
            example = [ "tailscaled.service" ];
            description = "Units that make its addresses.";
          };
          description = mkOption {
            type = types.str;
            default = "";
            example = "ssh tunnel to the cache on node1";
            description = "The unit's description.";
          };
        };
      }
    );
  };

  config = {
    assertions = map (message: {
      assertion = false;
      message = "kingpost.tunnels: ${message}";
    }) (lib.concatLists (lib.mapAttrsToList complaints cfg));
    systemd.services = lib.mapAttrs' (name: tunnel: lib.nameValuePair (unit name) (service name tunnel)) cfg;
  };
}
