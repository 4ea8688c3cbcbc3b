"""A newline at a token's end is dropped, Windows line ends are refused by name, a new token drops no job."""

# ruff: noqa: ANN001, ANN201, D103, F821, PT018, S101 - machines are names that the driver gives; asserts test

CONFIG = "/var/lib/gitlab-runner/.gitlab-runner/config.toml"
IDENTITY = "/var/lib/gitlab-runner/.gitlab-runner/.runner_system_id"


def token(text):
    machine.succeed(f"umask 077; printf '{text}' >/etc/runner-token")


def journal():
    return machine.succeed("journalctl --no-pager -b -o cat -u gitlab-runner.service")


def process():
    return machine.get_unit_info("gitlab-runner.service")["MainPID"]


start_all()
machine.wait_for_unit("multi-user.target")

with subtest("Windows line ends are refused, with the file's name and what to do"):
    token("glrt-windows\\r\\n")
    machine.fail("systemctl start gitlab-runner.service")
    said = journal()
    assert "carriage returns" in said and "/etc/runner-token" in said, said
    assert "glrt-windows" not in said, "the token is in the journal"
    machine.fail(f"test -e {CONFIG}")
    machine.succeed("systemctl stop gitlab-runner.service")

with subtest("one newline at its end is dropped"):
    token("glrt-first_1\\n")
    machine.succeed("systemctl start gitlab-runner.service")
    machine.wait_for_unit("gitlab-runner.service")
    machine.wait_for_file(IDENTITY)
    machine.succeed(f'grep -Eq \'"?token"? *[=:] *"glrt-first_1"\' {CONFIG}')
    mode = machine.succeed(f"stat -c %a {CONFIG}").strip()
    assert mode == "600", mode

with subtest("the token is nowhere else"):
    assert "glrt-first_1" not in journal()
    machine.fail("grep -rqs glrt-first_1 /etc/systemd/system /run/systemd /opt/kingpost")
    machine.fail(f"grep -qs glrt-first_1 /proc/{process()}/cmdline /proc/{process()}/environ")

with subtest("a new token is read at a reload, by the process that runs the jobs"):
    before, identity = process(), machine.succeed(f"cat {IDENTITY}")
    token("glrt-second_2")
    machine.succeed("systemctl reload gitlab-runner.service")
    machine.succeed(f"grep -q glrt-second_2 {CONFIG}")
    machine.fail(f"grep -q glrt-first_1 {CONFIG}")
    assert process() == before, "a reload ended the runner, and its jobs"

with subtest("a broken token at a reload leaves the runner as it is"):
    token("two\\nlines\\n")
    machine.execute("systemctl reload gitlab-runner.service")
    machine.succeed(f"grep -q glrt-second_2 {CONFIG}")
    assert process() == before

with subtest("a restart keeps the identity that GitLab knows"):
    token("glrt-third_3\\n")
    machine.succeed("systemctl restart gitlab-runner.service")
    machine.wait_for_unit("gitlab-runner.service")
    machine.succeed(f"grep -q glrt-third_3 {CONFIG}")
    assert machine.succeed(f"cat {IDENTITY}") == identity

with subtest("a job that eats more than the runner may take is killed alone"):
    before = process()
    group = f"/sys/fs/cgroup{machine.get_unit_info('gitlab-runner.service')['ControlGroup']}"
    # Shell jobs are processes of the runner's unit.
    eat = "x = bytes([1]) * (200 << 20)"
    status, _ = machine.execute(f"sh -c 'echo $$ >{group}/cgroup.procs; exec python3 -c \"{eat}\"'")
    assert status == 137, status
    machine.succeed(f"grep -qx 'oom_kill 1' {group}/memory.events")
    machine.sleep(3)
    machine.require_unit_state("gitlab-runner.service")
    assert process() == before, "the runner, and with it every other job, ended"
