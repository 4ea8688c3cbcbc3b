"""What a comparison of declared and operational state can turn out to be. Evidence holds both values."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

SAME: Final = Code("KP-DRIFT-NONE", Status.OK, "as declared", "What runs is what the topology says.")
NOT_ASKED: Final = Code(
    "KP-DRIFT-NOT-ASKED", Status.SKIPPED, "could not be compared",
    "The host gave no answer to this question, so nothing is known about the item.",
    cause="A program is not there, or the way in has too few rights.",
    remedy="let the ssh user run `sudo -n`, or run this on the host as root",
)  # fmt: skip
TREE: Final = Code(
    "KP-DRIFT-TREE", Status.FAILED, "the generated files are not the topology's",
    "A file of the generated tree is missing, older than the topology, or edited by hand.",
    cause="The topology was changed without `kingpost generate`, or somebody edited a generated file.",
    told_apart="This compares files here; KP-DRIFT-FILE compares a host's file with what would be rendered.",
    remedy="see the difference with `kingpost generate --diff`, then generate",
)  # fmt: skip
FILE: Final = Code(
    "KP-DRIFT-FILE", Status.FAILED, "a file on the host differs",
    "A configuration file that a service reads has other values than the rendered one.",
    cause="The host was not deployed since, the service did not start again, or somebody edited the file there.",
    told_apart="Only declared keys are compared; a token in it is never read.",
    remedy="deploy the host; the service's unit writes the file anew when it starts or reloads",
)  # fmt: skip
FILE_MISSING: Final = Code(
    "KP-DRIFT-FILE-MISSING", Status.FAILED, "a file is not on the host",
    "A service's configuration file is not where the rendered modules put it.",
    cause="The host was never deployed with these modules, or the unit that writes the file failed.",
    told_apart="KP-DRIFT-FILE: it is there, with other values.",
    remedy="deploy the host, then read the unit's log",
)  # fmt: skip
UNIT: Final = Code(
    "KP-DRIFT-UNIT", Status.FAILED, "a unit's property differs",
    "`systemctl show` gives another value than the topology declares.",
    cause="Not deployed, or another module or a drop-in (`systemctl edit`) wins.",
    told_apart="KP-DRIFT-UNIT-STALE: the files are right, and systemd has not read them.",
    remedy="`systemctl cat UNIT` shows which file sets it; deploy, or remove the drop-in",
)  # fmt: skip
UNIT_MISSING: Final = Code(
    "KP-DRIFT-UNIT-MISSING", Status.FAILED, "a unit is not there",
    "systemd does not know a unit that the topology limits or renders.",
    cause="The host was not deployed, or the unit has another name there.",
    told_apart="KP-DRIFT-UNIT-DOWN: systemd knows it, and it does not run.",
    remedy="deploy the host, or correct the unit's name in the topology",
)  # fmt: skip
UNIT_DOWN: Final = Code(
    "KP-DRIFT-UNIT-DOWN", Status.FAILED, "a unit does not run",
    "A unit that should serve is not active.",
    cause="It failed, was stopped, or never started since the boot.",
    told_apart="The result says why it ended: `oom-kill` is for `kingpost pressure`, `exit-code` for its log.",
    remedy="`systemctl status UNIT` and `journalctl -u UNIT -e`",
)  # fmt: skip
UNIT_STALE: Final = Code(
    "KP-DRIFT-UNIT-STALE", Status.FAILED, "what runs is older than its unit",
    "The unit's files changed, and the running process still has the old ones.",
    cause="The window between activation and restart, or a restart that was held back.",
    told_apart="systemd says NeedDaemonReload, or the process was started with another file than its unit names.",
    remedy="`systemctl daemon-reload`, then restart the unit",
)  # fmt: skip
ENVIRONMENT: Final = Code(
    "KP-DRIFT-ENVIRONMENT", Status.FAILED, "a variable is missing or other",
    "The running process lacks a variable that it needs, or has another value. Values are compared on the host.",
    cause="The environment file lacks it, or the process was started before it was there.",
    told_apart="Read from /proc/PID/environ of what runs: the unit's file may be right already.",
    remedy="correct the secret's file or deploy, then restart the unit: a process keeps its environment",
)  # fmt: skip
BIND_WIDE: Final = Code(
    "KP-DRIFT-BIND-WIDE", Status.FAILED, "bound more widely than declared",
    "The service listens on more addresses than its callers need.",
    cause="Somebody set 0.0.0.0 by hand so that containers reach it, or the host was not deployed.",
    told_apart="The firewall may still shut it: KP-DRIFT-FIREWALL-WIDE says whether it does.",
    remedy="deploy the rendered `listen`; it covers every declared caller",
)  # fmt: skip
BIND_NARROW: Final = Code(
    "KP-DRIFT-BIND-NARROW", Status.FAILED, "bound more narrowly than declared",
    "The service does not listen on an address that callers use.",
    cause="It is bound to 127.0.0.1 or to one address: a promise to its own namespace only.",
    told_apart="KP-ROUTE-BIND-NARROW is the same, seen by a caller.",
    remedy="deploy the rendered `listen`, then restart the service",
)  # fmt: skip
NOT_LISTENING: Final = Code(
    "KP-DRIFT-NOT-LISTENING", Status.FAILED, "nothing listens",
    "No socket listens on the declared port.",
    cause="The service is down, or has another port.",
    told_apart="KP-DRIFT-UNIT-DOWN says whether it runs at all; KP-DRIFT-BIND-NARROW: it listens elsewhere.",
    remedy="`systemctl status` of the service; compare its port with the topology",
)  # fmt: skip
SUBSTITUTERS: Final = Code(
    "KP-DRIFT-NIX-SUBSTITUTERS", Status.FAILED, "other substituters are in effect",
    "`nix config show` gives other substituters than declared.",
    cause="`attic use` or `cachix use` wrote to ~/.config/nix/nix.conf, NIX_CONFIG is set, or nothing was deployed.",
    told_apart="The file /etc/nix/nix.conf is compared too: when only the effective value differs, a user's wins.",
    remedy="remove the setting from the file that the evidence names, or declare the cache; then deploy",
)  # fmt: skip
KEYS: Final = Code(
    "KP-DRIFT-NIX-KEYS", Status.FAILED, "other public keys are trusted",
    "A declared key is not trusted, or one is that nobody declared.",
    cause="Without its key a cache's paths are ignored silently; with one too many, its owner may feed this host.",
    told_apart="The key of cache.nixos.org is always there on NixOS, and is not counted.",
    remedy="declare the key with its cache or remove it from the host, then deploy",
)  # fmt: skip
RETIRED_KEY: Final = Code(
    "KP-DRIFT-NIX-RETIRED-KEY", Status.FAILED, "a retired key is still trusted",
    "The host trusts a key that the topology retired.",
    cause="The key was retired in the topology, and the host was not deployed since.",
    told_apart="KP-DRIFT-NIX-KEYS: a key that the topology never knew.",
    remedy="deploy the host now: whoever holds the old key can still sign for it",
)  # fmt: skip
NIX_IGNORED: Final = Code(
    "KP-DRIFT-NIX-IGNORED", Status.FAILED, "a user's substituter is ignored",
    "A user asks for a substituter, and the daemon ignores it, with one warning at most.",
    cause="The user is not trusted, and the URL is in neither `substituters` nor `trusted-substituters`.",
    told_apart="KP-DRIFT-NIX-SUBSTITUTERS: the daemon itself uses others.",
    remedy="declare the cache for this host, so that the daemon itself uses it",
)  # fmt: skip
NIX_SETTING: Final = Code(
    "KP-DRIFT-NIX-SETTING", Status.EXPECTED, "a default was overridden",
    "A setting that kingpost renders as a default has another value in effect.",
    cause="The host's own module decides, as it may; or the host was not deployed.",
    told_apart="Substituters and keys are no defaults: they have codes of their own.",
    remedy="nothing, if the host's module means it; else deploy",
)  # fmt: skip
NIX_VERSION: Final = Code(
    "KP-DRIFT-NIX-VERSION", Status.FAILED, "another version of Nix runs",
    "The topology declares another version, which decides what settings are rendered.",
    cause="The host was upgraded, or the topology was written for another release.",
    told_apart="Only the first two numbers count.",
    remedy="declare the version that the host has",
)  # fmt: skip
GATEWAY: Final = Code(
    "KP-DRIFT-DOCKER-GATEWAY", Status.FAILED, "docker's bridge has another address",
    "The bridge's gateway or subnet is not the declared one: every container's route to its host is wrong.",
    cause="`bip` is read when dockerd starts; it was not restarted, or its settings come from elsewhere.",
    told_apart="KP-DRIFT-DOCKER-POOLS is about networks that jobs make, not about docker0.",
    remedy="deploy, then restart docker.service while no job runs",
)  # fmt: skip
POOLS: Final = Code(
    "KP-DRIFT-DOCKER-POOLS", Status.FAILED, "docker's address pools differ",
    "Networks for jobs are made from other subnets than declared, or one is outside of them.",
    cause="dockerd was not restarted, or the network was made before the pools changed.",
    told_apart="`docker info` says what dockerd was started with; a network from before keeps its subnet.",
    remedy="restart docker.service while no job runs; remove networks that are outside of the pools",
)  # fmt: skip
CONTAINER_LIMIT: Final = Code(
    "KP-DRIFT-CONTAINER", Status.FAILED, "a container has another limit",
    "A running container's memory limit is not the declared one.",
    cause="It was made before the limit changed: limits are fixed when a container is made.",
    told_apart="Docker's own number (`HostConfig.Memory`), not what the container uses.",
    remedy="deploy, and let the container be made anew",
)  # fmt: skip
JOB_VOLUMES: Final = Code(
    "KP-DRIFT-JOB-VOLUMES", Status.FAILED, "a running job has other mounts",
    "A job's container mounts something else than the rendered config.toml says.",
    cause="The job began before the change, or the runner's live config.toml differs.",
    told_apart="Compared with the likest runner of the host, by image and mounts: labels do not tell.",
    remedy="see what is said about config.toml; restart the job after the runner has reloaded it",
)  # fmt: skip
JOB_NIX: Final = Code(
    "KP-DRIFT-JOB-NIX", Status.FAILED, "the job's Nix mounts hurt it",
    "All of /nix is mounted (the image's own programs are hidden: `command not found`), the store or database"
    " is writable (a job's garbage collection deletes the host's store), or the daemon's socket is read-only.",
    cause="Volumes set by hand (`/nix:/nix`), or a config.toml from before the rendered one.",
    told_apart="KP-DRIFT-JOB-VOLUMES: other mounts, which hurt nothing by themselves.",
    remedy="deploy the rendered config.toml: it mounts the store, the database and the socket each alone",
)  # fmt: skip
FIREWALL_SHUT: Final = Code(
    "KP-DRIFT-FIREWALL-SHUT", Status.FAILED, "the firewall lacks an opening",
    "A packet to the port, coming in by the interface of its callers, is dropped.",
    cause="The host was not deployed, or rules made by hand or by another program come first.",
    told_apart="The loaded rules are followed as the kernel does, not searched for a line.",
    remedy="deploy the rendered firewall.nix",
)  # fmt: skip
FIREWALL_WIDE: Final = Code(
    "KP-DRIFT-FIREWALL-WIDE", Status.FAILED, "the firewall is open wider than declared",
    "A packet to the port is accepted on an interface that no declared caller comes in by.",
    cause="A port opened by hand on every interface, a trusted interface, or no firewall at all.",
    told_apart="KP-DRIFT-FIREWALL-TAILNET is tailscaled's own opening. Rules are followed as the kernel does.",
    remedy="remove the rule, or declare the caller; check `networking.firewall.enable`",
)  # fmt: skip
FIREWALL_TAILNET: Final = Code(
    "KP-DRIFT-FIREWALL-TAILNET", Status.EXPECTED, "tailscaled opens its interface",
    "The port is open to the tailnet although no declared caller is there: tailscaled itself accepts all of it.",
    cause="Its chain `ts-input` comes before NixOS's and accepts whatever comes in by its interface.",
    told_apart="KP-DRIFT-FIREWALL-WIDE: any other interface, or no such rule of tailscaled's.",
    remedy="the tailnet's ACLs decide who gets here; `--netfilter-mode=nodivert` leaves it to the host's firewall",
)  # fmt: skip
SECRET_MISSING: Final = Code(
    "KP-DRIFT-SECRET-MISSING", Status.FAILED, "a secret's file is not there",
    "The file does not exist, or is no file.",
    cause="Its provider did not decrypt it: agenix only warns when an identity is missing.",
    told_apart="A file that is there and empty is KP-DRIFT-SECRET-SHAPE.",
    remedy="read the activation's log; check the host's key among the secret's recipients",
)  # fmt: skip
SECRET_ACCESS: Final = Code(
    "KP-DRIFT-SECRET-ACCESS", Status.FAILED, "a secret has another owner or mode",
    "The file's owner, group or mode is not the declared one.",
    cause="Declared otherwise in another module, or changed by hand until the next activation.",
    told_apart="`stat -L`: of the file itself, not of the link to it.",
    remedy="deploy the rendered secrets.nix",
)  # fmt: skip
SECRET_SHAPE: Final = Code(
    "KP-DRIFT-SECRET-SHAPE", Status.FAILED, "a secret has the wrong shape",
    "The file is empty, has Windows line ends, several lines where one value belongs, NAME=value where the bare"
    " value belongs or the reverse, or characters that no token has.",
    cause="An editor's or a clipboard's work, or a file of the other format.",
    told_apart="Counted on the host by a script; neither the value nor its length leaves it.",
    remedy="store it again, without a newline: `printf %s VALUE | agenix -e …`",
)  # fmt: skip
SECRET_VARIABLE: Final = Code(
    "KP-DRIFT-SECRET-VARIABLE", Status.FAILED, "a secret lacks a variable",
    "An `env` file has no line for a declared variable, or an empty value.",
    cause="The line was never added, is misspelt, or is commented out.",
    told_apart="KP-DRIFT-ENVIRONMENT: the running process lacks it, though the file may have it by now.",
    remedy="add the line NAME=value to the secret",
)  # fmt: skip
SECRET_NEWLINE: Final = Code(
    "KP-DRIFT-SECRET-NEWLINE", Status.EXPECTED, "a secret ends in a newline",
    "The bare value is followed by one newline.",
    cause="An editor adds it. The rendered units drop it; another reader may send it as part of the token.",
    told_apart="More than one newline is KP-DRIFT-SECRET-SHAPE.",
    remedy="better store it without: `printf %s VALUE`",
)  # fmt: skip
OBJECT: Final = Code(
    "KP-DRIFT-OBJECT", Status.FAILED, "an object in the cluster differs",
    "An image, a limit, the names of variables, a port, a quota or a configuration in the cluster is not the rendered "
    "one.",
    cause="The manifests were not applied since, or somebody changed it: `kubectl edit`, `kubectl set`, an operator.",
    told_apart="Amounts are compared as what they are: 1024Mi is 1Gi. What Kubernetes adds by itself is not compared.",
    remedy="`kubectl diff --recursive --filename clusters/NAME`, then apply; or declare what is there",
)  # fmt: skip
OBJECT_MISSING: Final = Code(
    "KP-DRIFT-OBJECT-MISSING", Status.FAILED, "an object is not in the cluster",
    "A rendered object, or a Secret that one refers to, is not there.",
    cause="The manifests were not applied, it was deleted, or nobody made the Secret.",
    told_apart="A pod that waits in CreateContainerConfigError is often one whose Secret is missing.",
    remedy="apply the manifests; each file says how its Secret is made",
)  # fmt: skip
OBJECT_EXTRA: Final = Code(
    "KP-DRIFT-OBJECT-EXTRA", Status.FAILED, "an object that is declared no more",
    "The cluster has an object with kingpost's label that the topology does not render.",
    cause="It was removed from the topology or renamed, and `kubectl apply` deletes nothing by itself.",
    told_apart="Objects without the label are not looked at: they are others'.",
    remedy="`kubectl delete` it, or apply with `--prune --selector app.kubernetes.io/managed-by=kingpost`",
)  # fmt: skip
OBJECT_NOT_READY: Final = Code(
    "KP-DRIFT-OBJECT-NOT-READY", Status.FAILED, "a workload is not ready",
    "Fewer pods of a Deployment are ready than declared.",
    cause="Its pod does not start, is killed for memory, or fails its readiness probe.",
    told_apart="`kingpost pressure` says whether it was killed for memory.",
    remedy="`kubectl describe pod` and `kubectl logs` of it",
)  # fmt: skip
ETCD_QUOTA: Final = Code(
    "KP-DRIFT-ETCD-QUOTA", Status.FAILED, "etcd has another quota",
    "etcd's quota in effect is not the declared one.",
    cause="k3s or etcd was not started again since it was set, or no quota is set: then it is 2 GiB.",
    told_apart="Asked of etcd's own metrics; at the quota it raises NOSPACE and the cluster takes no more writes.",
    remedy="deploy the rendered k3s module or kubeadm configuration, then restart k3s or etcd",
)  # fmt: skip
RUNNER_UNKNOWN: Final = Code(
    "KP-DRIFT-RUNNER-UNKNOWN", Status.FAILED, "GitLab has no such runner",
    "Neither the runner's id nor its name is among the runners that GitLab shows for this token.",
    cause="It was deleted, registered under another name, or the token may not see it.",
    told_apart="A token without the right to read runners is KP-DRIFT-NOT-ASKED.",
    remedy="name it with `--runner NAME=ID`; or create it and store its token",
)  # fmt: skip
RUNNER_AWAY: Final = Code(
    "KP-DRIFT-RUNNER-AWAY", Status.FAILED, "GitLab does not hear from the runner",
    "GitLab calls it offline, stale, paused, or was never contacted by it.",
    cause="gitlab-runner is down or cannot reach GitLab. GitLab goes on calling it online for two hours.",
    told_apart="Pausing is somebody's decision: the status then says paused.",
    remedy="`systemctl status gitlab-runner` on its host, and `kingpost doctor --to gitlab` from there",
)  # fmt: skip
RUNNER_SERVER: Final = Code(
    "KP-DRIFT-RUNNER-SERVER", Status.FAILED, "GitLab's side of the runner differs",
    "Tags, protection, locking or the timeout at GitLab are not the declared ones.",
    cause="With a glrt- token config.toml sets none of these: they are GitLab's, and were clicked or forgotten.",
    told_apart="A runner that is not protected gets no job of a protected branch; jobs without its tags wait for ever.",
    remedy="set it through GitLab's API or page of the runner, as the topology says",
)  # fmt: skip
RUNNER_SYSTEM_IDS: Final = Code(
    "KP-DRIFT-RUNNER-SYSTEM-IDS", Status.FAILED, "several machines under one token",
    "GitLab lists several system ids for the runner, and the topology declares one machine.",
    cause="gitlab-runner lost its `.runner_system_id` (an OOM kill, a new state directory) and came back as a"
    " new machine: GitLab may show the old one as online.",
    told_apart="The id in the host's own file says which one is alive.",
    remedy="keep /var/lib/gitlab-runner: `.runner_system_id` in it is the machine's identity; stop what else uses"
    " the token",
)  # fmt: skip
RUNNER_VERSION: Final = Code(
    "KP-DRIFT-RUNNER-VERSION", Status.FAILED, "GitLab saw another version",
    "The version that the host has is not the one that last contacted GitLab.",
    cause="The process was not restarted after an upgrade, or another machine uses the token.",
    told_apart="The version is asked of the running program, not of what is on PATH.",
    remedy="restart gitlab-runner on its host",
)  # fmt: skip
CACHE_VISIBLE: Final = Code(
    "KP-DRIFT-CACHE-PUBLIC", Status.FAILED, "public, though declared private",
    "Everybody can read a cache that the topology declares private.",
    cause="It was created with `--public`, or configured so by hand.",
    told_apart="KP-CACHE-NOT-PUBLIC is the reverse.",
    remedy="`attic cache configure --private`, or declare it public",
)  # fmt: skip
CACHE_KEY: Final = Code(
    "KP-DRIFT-CACHE-KEY", Status.FAILED, "the cache signs with another key",
    "The server's public key is not the declared one, so every reader refuses its paths.",
    cause="The cache was made anew, or its keypair was regenerated.",
    told_apart="Asked of the server's configuration; a reader only says `not signed by any of the keys`.",
    remedy="put the server's key into the topology (the old one under retired_keys), generate and deploy",
)  # fmt: skip
CACHE_SETTING: Final = Code(
    "KP-DRIFT-CACHE-SETTING", Status.FAILED, "the cache is configured otherwise",
    "Priority, retention, upstream keys or the API endpoint at the server are not the declared ones.",
    cause="`attic cache configure` without `--retention-period` resets a cache's own retention (attic issue 350).",
    told_apart="The key and whether it is public have codes of their own.",
    remedy="`attic cache configure`, always with `--retention-period` where the topology gives one",
)  # fmt: skip
GENERATION_OLD: Final = Code(
    "KP-DRIFT-GENERATION-OLD", Status.FAILED, "the newest generation does not run",
    "The running system is not what the system profile points to.",
    cause="A switch that was cut off after it had set the profile, `nixos-rebuild boot`, or `test`.",
    told_apart="KP-DRIFT-REBOOT: the newest generation runs, with an older kernel.",
    remedy="on the host: /nix/var/nix/profiles/system/bin/switch-to-configuration switch, in its own unit",
)  # fmt: skip
GENERATION_GONE: Final = Code(
    "KP-DRIFT-GENERATION-GONE", Status.FAILED, "a generation's path is gone",
    "A generation's link points to a store path that is not on disk: it cannot be rolled back to.",
    cause="A copy that was cut off, or a store that lost paths: its database may list more of them.",
    told_apart="Only links are looked at; `kingpost store-fix scan` looks at every registered path.",
    remedy="`kingpost store-fix scan` on the host before anything collects garbage",
)  # fmt: skip
REBOOT: Final = Code(
    "KP-DRIFT-REBOOT", Status.EXPECTED, "another kernel is booted",
    "The running system brings another kernel than the one that was booted.",
    cause="A switch installs a kernel for the next boot.",
    told_apart="KP-DRIFT-GENERATION-OLD: the running system itself is not the newest.",
    remedy="reboot when it suits",
)  # fmt: skip
