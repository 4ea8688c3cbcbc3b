"""`kingpost cache audit` beside `nix store verify`, on caches that real Nix wrote. Prints ratios; > 1 is faster.

    python benchmarks/audit.py [zstd|xz|http|memory]...

zstd, xz: 2,000 small and 50 large NARs on disk, of programs, libraries and sources as they are in a store (zstd makes
    them about 3.5 times smaller). The peer checks NarHash only (`--no-trust`); kingpost also checks FileHash, sizes,
    the NAR's structure and references. `again` is an audit with the ledger of the first: every byte is read, hashed
    and found to be the same body. `bound` is what the decompressor and SHA-256 need for these bytes at the speed that
    each has alone, all processors busy all the time and everything else free: no audit with these libraries is faster.
    Compare processor seconds when the machine has other work.
http: 1,000 small paths with 50 ms added to each request.
memory: two NARs of 2 GiB at once, zstd and none; the most that kingpost's processes have together, each shared page
    counted once. The bound is 100 MB.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kingpost.cache.compression import decompressor
from kingpost.cache.fetch import open_cache
from kingpost.cache.narinfo import parse_narinfo
from kingpost.observe.audit_body import PIECE

ROOT = Path(__file__).parents[1]
ROUNDS = 3
LARGE_BYTES = 20 << 20
SMALL = (
    'builtins.genList (n: builtins.toFile "small-${toString n}" (builtins.concatStringsSep "\\n" '
    '(builtins.genList (k: builtins.hashString "sha256" "${toString n}-${toString k}") 50))) 2000'
)


def provided(name):
    done = subprocess.run([ROOT / "tests/real/provide"], capture_output=True, text=True, check=True)
    places = dict(line.split("=", 1) for line in done.stdout.splitlines())
    if name not in places:
        sys.exit(f"{name} is not here: run `make real` first")
    return Path(places[name])


class Nix:
    """A Nix with a private store."""

    def __init__(self, name, root):
        self.bin = provided(name)
        for part in ("store", "var", "log", "conf", "home", "tmp"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (root / "conf" / "nix.conf").write_text(
            "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command flakes\n"
        )
        self.env = {
            **os.environ,
            "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"), "NIX_STORE_DIR": str(root / "store"),
            "NIX_STATE_DIR": str(root / "var"), "NIX_LOG_DIR": str(root / "log"), "NIX_CONF_DIR": str(root / "conf"),
            "NIX_REMOTE": "local", "NIX_USER_CONF_FILES": "/dev/null", "NIX_PATH": "",
        }  # fmt: skip

    def run(self, *words):
        argv = [str(self.bin / words[0]), *map(str, words[1:])]
        return subprocess.run(argv, env=self.env, capture_output=True, text=True, check=True).stdout


def files_of_this_machine():
    """Give real contents to fill NARs with: programs, libraries, Python sources."""
    found = [p for p in Path("/usr/lib").rglob("*") if p.suffix in (".so", ".py", ".a") or ".so." in p.name]
    found += Path("/usr/bin").iterdir()
    random.Random(1).shuffle(found)
    for path in found:
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 8 << 20:
            yield path.read_bytes()


def fill(nix, root):
    """Put 2,000 small paths and 50 large ones into the store."""
    (root / "small.nix").write_text(SMALL)
    nix.run("nix-instantiate", "--eval", "--strict", "--read-write-mode", root / "small.nix")
    pool = list(files_of_this_machine())
    at = 0
    for number in range(50):
        tree = root / f"large-{number}"
        tree.mkdir()
        size = 0
        while size < LARGE_BYTES:
            data = pool[at % len(pool)]
            (tree / str(at)).write_bytes(data)
            size, at = size + len(data), at + 1
        nix.run("nix-store", "--add", tree)


def timed(action):
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def kingpost(*words, ledger=None):
    record = ["--ledger", str(ledger)] if ledger else ["--no-ledger"]
    argv = [sys.executable, "-m", "kingpost", "cache", "audit", *map(str, words), *record]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-2000:] + done.stderr)


def side_by_side(actions):
    """Run each in turn, several rounds; gives the best wall and processor time of each."""
    wall = dict.fromkeys(actions, float("inf"))
    cpu = dict(wall)
    for _ in range(ROUNDS):
        for name, action in actions.items():
            before = sum(os.times()[:4])
            wall[name] = min(wall[name], timed(action))
            cpu[name] = min(cpu[name], sum(os.times()[:4]) - before)
    return wall, cpu


def alone(cache, infos):
    """Give processor seconds of decompressing these NARs, of hashing them, and of hashing their files.

    Measured on the largest NARs, one after the other on one processor, and taken for all.
    """
    large = sorted(infos, key=lambda info: -info.nar_size)[:12]
    share = sum(info.nar_size for info in large) / sum(info.nar_size for info in infos)
    buffer = memoryview(bytearray(PIECE))
    decompressing = hashing = float("inf")
    source = open_cache(str(cache))
    for _ in range(ROUNDS):
        before = time.thread_time()
        count = 0
        for info in large:
            with source.get(info.url) as body:
                stream = decompressor(info.compression, body)
                while fresh := stream.readinto(buffer):
                    count += fresh
        decompressing = min(decompressing, time.thread_time() - before)
        before, digest = time.thread_time(), hashlib.sha256()
        for _ in range(count // PIECE):
            digest.update(buffer)
        hashing = min(hashing, time.thread_time() - before)
    files, nars = (sum(sizes) for sizes in zip(*((i.file_size, i.nar_size) for i in infos), strict=True))
    return decompressing / share, hashing / share, hashing / share * files / nars


def local(compression, root, new, old):
    nix = Nix(new, root / "nix")
    fill(nix, root)
    cache = root / compression
    nix.run("nix", "copy", "--all", "--to", f"file://{cache}?compression={compression}")
    infos = [parse_narinfo(file.read_text()) for file in cache.glob("*.narinfo")]
    total, files = sum(info.nar_size for info in infos), sum(info.file_size for info in infos)
    peers = {"nix 2.34": nix}
    if compression == "xz":  # as it is as fast as its liblzma: the one that has the liblzma of this Python
        peers["nix 2.8"] = Nix(old, root / "nix28")
        peers["nix 2.8"].env |= {"NIX_STORE_DIR": nix.env["NIX_STORE_DIR"]}
    verify = ("nix", "store", "verify", "--all", "--no-trust", "--store", f"file://{cache}")
    ledger = root / "ledger.sqlite"
    kingpost(cache, ledger=ledger)
    actions = {name: partial(peer.run, *verify) for name, peer in peers.items()}
    actions |= {"kingpost": partial(kingpost, cache), "again": partial(kingpost, cache, ledger=ledger)}
    best, cpu = side_by_side(actions)
    processors = len(os.sched_getaffinity(0))
    parts = alone(cache, infos)
    nars, megabytes = len(infos), total / 1e6
    print(
        f"{compression}: {nars} paths, {megabytes:.0f} MB of NAR in {files / 1e6:.0f} MB, {processors} processors"
    )
    alone_each = (
        f"{compression} {megabytes / parts[0]:.0f} MB/s of NAR, SHA-256 {megabytes / parts[1]:.0f} MB/s"
    )
    print(f"  alone, on one processor: {alone_each}")
    for name, seconds in best.items():
        print(
            f"  {name:14} {seconds:6.2f} s {megabytes / seconds:6.0f} MB/s, {cpu[name]:6.2f} s of processor",
            end="",
        )
        print(
            "".join(f"; {seen / seconds:.2f} times {peer}" for peer, seen in best.items() if peer in peers),
            end="",
        )
        print("".join(f", {cpu[peer] / cpu[name]:.2f} by processor" for peer in list(peers)[-1:]))
    for name, spent in (("bound", sum(parts)), ("  NarHash only", sum(parts[:2]))):
        print(f"  {name:14} {spent:6.2f} s of processor", end="")
        print("".join(f"; {cpu[peer] / spent:.2f} times {peer}" for peer in peers))


class Slow(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        time.sleep(0.05)
        super().do_GET()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def http(root, new, _old):
    nix = Nix(new, root / "nix")
    (root / "small.nix").write_text(SMALL.replace("2000", "1000"))
    nix.run("nix-instantiate", "--eval", "--strict", "--read-write-mode", root / "small.nix")
    cache = root / "cache"
    nix.run("nix", "copy", "--all", "--to", f"file://{cache}?compression=zstd")
    paths = sorted(parse_narinfo(file.read_text()).path.base for file in cache.glob("*.narinfo"))
    paths = [f"{nix.env['NIX_STORE_DIR']}/{base}" for base in paths]
    (root / "list").write_text("\n".join(paths))
    server = Server(("127.0.0.1", 0), partial(Slow, directory=str(cache)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    one = timed(lambda: kingpost(url, "--list", root / "list"))
    other = timed(lambda: nix.run("nix", "store", "verify", "--no-trust", "--store", url, *paths))
    server.shutdown()
    print(f"http: {len(paths)} small paths, 50 ms added to each request")
    print(f"  nix 2.34  {other:6.2f} s\n  kingpost  {one:6.2f} s   {other / one:.1f} times as fast")


def nar(contents):
    """Give the NAR of one file."""
    words = (b"nix-archive-1", b"(", b"type", b"regular", b"contents", contents, b")")
    return b"".join(len(w).to_bytes(8, "little") + w + bytes(-len(w) % 8) for w in words)


def memory_of(process):
    """Give the memory of a process and its children in bytes: each page divided by how many have it."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return sum(
        int(line.split()[1]) * 1024
        for one in (process, *children)
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )


def memory(root, _new, _old):
    import zstandard

    size, block = 2 << 30, random.Random(9).randbytes(1 << 20)
    head, tail = nar(b"\0" * 8)[:-32] + size.to_bytes(8, "little"), nar(b"")[-16:]
    for compression in ("zstd", "none"):
        cache = root / compression
        (cache / "nar").mkdir(parents=True)
        (cache / "nix-cache-info").write_text("StoreDir: /nix/store\n")
        for number in range(2):
            name, digest = f"{number:032}", hashlib.sha256()
            with (cache / "nar" / name).open("wb") as file:
                into = zstandard.ZstdCompressor().stream_writer(file) if compression == "zstd" else file
                for piece in (head, *[block] * (size >> 20), tail):
                    into.write(piece)
                    digest.update(piece)
                into.close()
            lines = [f"StorePath: /nix/store/{name}-large", f"URL: nar/{name}", f"Compression: {compression}"]
            lines += [f"NarHash: sha256:{digest.hexdigest()}", f"NarSize: {len(head) + size + len(tail)}", ""]
            (cache / f"{name}.narinfo").write_text("\n".join(lines))
        argv = [sys.executable, "-m", "kingpost", "cache", "audit", cache, "--no-ledger", "--jobs", "2"]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        most = 0
        while running.poll() is None:
            with suppress(OSError, ValueError):  # it may end while we look
                most = max(most, memory_of(running.pid))
            time.sleep(0.02)
        if running.returncode:
            sys.exit(running.stdout.read())
        print(f"memory: two NARs of 2 GiB at once, {compression}: {most / 1e6:.0f} MB in all, of 100")
        shutil.rmtree(cache)


if __name__ == "__main__":
    kinds = {"zstd": partial(local, "zstd"), "xz": partial(local, "xz"), "http": http, "memory": memory}
    for chosen in sys.argv[1:] or kinds:
        with tempfile.TemporaryDirectory(prefix="kingpost-audit-") as directory:
            kinds[chosen](Path(directory), "nix234", "nix28")
