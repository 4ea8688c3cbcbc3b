"""Write NARs by hand, malformed ones too."""

MAGIC = "nix-archive-1"


def text(value, *, padding=b"\0"):
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(8, "little") + raw + padding * (-len(raw) % 8)


def tokens(*values):
    return b"".join(map(text, values))


def nar(node):
    return text(MAGIC) + node


def regular(contents=b"hello\n", *, executable=False):
    mark = ("executable", "") if executable else ()
    return tokens("(", "type", "regular", *mark, "contents", contents, ")")


def symlink(target):
    return tokens("(", "type", "symlink", "target", target, ")")


def entry(name, node):
    return tokens("entry", "(", "name", name, "node") + node + tokens(")")


def directory(*entries):
    """Make a directory node of (name, node) pairs, in the order given."""
    return tokens("(", "type", "directory") + b"".join(entry(*pair) for pair in entries) + tokens(")")
