"""From what came to what it means: the one place where fetch errors and measurements become verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kingpost.cache.fetch import FetchError, Trouble
from kingpost.cache.signatures import Trust
from kingpost.cache.zstd_frames import TrailingError, TruncatedError
from kingpost.observe import audit_codes as codes

if TYPE_CHECKING:
    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.cache.fetch import Hop
    from kingpost.cache.narinfo import NarInfo
    from kingpost.observe.audit_body import Measured

_BY_TROUBLE: Final = {
    Trouble.REFUSED: codes.REFUSED,
    Trouble.UNREACHABLE: codes.UNREACHABLE,
    Trouble.NAME: codes.UNREACHABLE,
    Trouble.TLS: codes.TLS,
    Trouble.CONNECT_TIMEOUT: codes.CONNECT_TIMEOUT,
    Trouble.STALLED: codes.STALLED,
    Trouble.LOST: codes.LOST,
    Trouble.CUT: codes.LOST,
    Trouble.PROTOCOL: codes.LOST,
    Trouble.REDIRECT: codes.REDIRECT_BROKEN,
    Trouble.BUCKET: codes.BUCKET_MISSING,
    Trouble.CREDENTIALS: codes.S3_CREDENTIALS,
    Trouble.BAD_URL: codes.NARINFO_CORRUPT,
}
_NO_WAY_THERE: Final = (
    Trouble.REFUSED, Trouble.UNREACHABLE, Trouble.NAME, Trouble.TLS, Trouble.CONNECT_TIMEOUT, Trouble.STALLED,
    Trouble.LOST, Trouble.PROTOCOL,
)  # fmt: skip
#: Codes that say nothing of a path and everything of the way to the cache.
NO_WAY_TO_THE_CACHE: Final = frozenset(
    code.name
    for code in (
        codes.REFUSED, codes.UNREACHABLE, codes.TLS, codes.CONNECT_TIMEOUT, codes.STALLED, codes.LOST,
        codes.BUCKET_MISSING, codes.S3_CREDENTIALS, codes.NEEDS_TOKEN,
    )
)  # fmt: skip
_SIGNATURE: Final = {
    Trust.UNSIGNED: codes.SIGNATURE_MISSING,
    Trust.OTHER_KEY: codes.SIGNATURE_UNTRUSTED,
    Trust.INVALID: codes.SIGNATURE_INVALID,
}


def may_succeed(error: FetchError) -> bool:
    """Tell whether asking again can help, as Nix's client sees it (src/libstore/filetransfer.cc)."""
    if error.trouble is Trouble.STATUS:
        return (error.status in (408, 429) or error.status >= 500) and error.server_error != "IncompleteNar"
    if error.trouble is Trouble.NAME:
        return "temporary" in str(error).lower()
    return error.trouble in (
        Trouble.REFUSED, Trouble.CONNECT_TIMEOUT, Trouble.STALLED, Trouble.LOST, Trouble.CUT,
    )  # fmt: skip


def fetch_code(error: FetchError, stage: str, *, credentials: bool) -> Code:
    """Give the code of a fetch that failed.

    Args:
        error: What happened.
        stage: `cache-info`, `narinfo` or `nar`.
        credentials: Whether the request carried any.

    """
    if error.hops and stage == "nar":
        return _redirect_code(error)
    if error.trouble is not Trouble.STATUS:
        return _BY_TROUBLE[error.trouble]
    missing = {
        "cache-info": codes.NO_SUCH_CACHE, "narinfo": codes.NARINFO_MISSING, "nar": codes.BODY_MISSING,
    }  # fmt: skip
    by_status = {
        401: codes.UNAUTHORIZED if credentials else codes.NEEDS_TOKEN,
        403: codes.FORBIDDEN,
        404: missing[stage],
        410: missing[stage],
        429: codes.RATE_LIMITED,
    }
    if error.status == 503 and error.server_error == "IncompleteNar":
        return codes.BODY_INCOMPLETE
    if error.status == 400 and "Host" in error.server_message:
        return codes.BAD_HOST
    return by_status.get(error.status, codes.SERVER_ERROR if error.status >= 500 else codes.OTHER_STATUS)


def _redirect_code(error: FetchError) -> Code:
    if error.trouble in _NO_WAY_THERE:
        return codes.REDIRECT_UNREACHABLE
    if error.trouble is Trouble.BUCKET or error.status in (404, 410):
        return codes.REDIRECT_MISSING
    if error.status in (401, 403):
        return codes.REDIRECT_DENIED
    if error.status == 429 or error.status >= 500:
        return codes.RATE_LIMITED if error.status == 429 else codes.SERVER_ERROR
    return codes.REDIRECT_BROKEN


def fetch_evidence(error: FetchError) -> dict[str, Any]:
    """Give what was seen of a fetch that failed; empty values are left out."""
    found = {
        "url": error.url,
        "http_status": error.status,
        "redirects": [f"{hop.status} {hop.url}" for hop in error.hops],
        "reason": str(error),
        "server_error": error.server_error,
        "server_message": error.server_message,
        "body_bytes": error.received,
    }
    return {key: value for key, value in found.items() if value}


def judge_signature(trust: Trust, info: NarInfo, subject: str) -> Verdict | None:
    """Give a verdict on a signature that Nix would not take; None for a good one."""
    code = _SIGNATURE.get(trust)
    if code is None:
        return None
    names = sorted({signature.partition(":")[0] for signature in info.signatures})
    evidence = {"signed_by": names, "store_path": str(info.path)}
    return code.verdict(subject, f"{code.title}{': ' + ', '.join(names) if names else ''}", evidence)


def judge_store(store: str, info: NarInfo, subject: str) -> Verdict | None:
    """Give a verdict on a path of another store directory than the cache says it is for; None for a fitting one."""
    if not store or info.path.store == store:
        return None
    words = f"the cache says that it is for {store}, and this path is one of {info.path.store}"
    evidence = {"store_dir": store, "store_path": str(info.path)}
    return codes.OTHER_STORE.verdict(subject, words, evidence)


def judge_body(got: Measured, info: NarInfo, hops: tuple[Hop, ...]) -> tuple[Code, str, dict[str, Any]]:
    """Give code, sentence and evidence for a body that answered with 200."""
    evidence: dict[str, Any] = {
        "url": hops[-1].url,
        "http_status": 200,
        "redirects": [f"{hop.status} {hop.url}" for hop in hops[:-1]],
        "compression": info.compression,
        "body_bytes": got.file_bytes,
        "nar_bytes": got.nar_bytes,
        "nar_bytes_promised": info.nar_size,
    }
    if not evidence["redirects"]:
        del evidence["redirects"]
    if got.file_bytes == 0 and info.file_size != 0:
        return _empty(got, info, evidence)
    code, words = _damage(got, info, evidence) or _difference(got, info, evidence)
    if code is not codes.BODY_OK and (look := looks_like(got.head)) not in ("", info.compression):
        evidence["looks_like"] = look
        words += f"; the body looks like {look}"
    return code, words, evidence


def _empty(got: Measured, info: NarInfo, evidence: dict[str, Any]) -> tuple[Code, str, dict[str, Any]]:
    if isinstance(got.trouble, FetchError):
        evidence["reason"] = str(got.trouble)
        if got.trouble.trouble is Trouble.STALLED:
            words = "the server answers 200 and then sends nothing"
            return codes.STALLED, words, evidence
    words = (
        f"the narinfo promises {info.nar_size} bytes of NAR, and the body is HTTP 200 with zero bytes: "
        "the metadata is there and the storage behind it cannot be read"
    )
    return codes.BODY_EMPTY, words, evidence


def _damage(got: Measured, info: NarInfo, evidence: dict[str, Any]) -> tuple[Code, str] | None:
    """Tell what ended the reading early."""
    trouble = got.trouble
    if trouble is None:
        if got.nar_bytes >= info.nar_size or not got.structure:
            return None
        evidence.update(reason=got.structure, transfer="whole")
        return codes.BODY_TRUNCATED, f"the NAR ends after {got.nar_bytes} of {info.nar_size} bytes"
    evidence["reason"] = str(trouble)
    if isinstance(trouble, FetchError):
        if trouble.trouble is Trouble.CUT:
            evidence["transfer"] = "cut"
            return codes.BODY_TRUNCATED, f"the transfer broke after {got.file_bytes} bytes"
        return _BY_TROUBLE.get(
            trouble.trouble, codes.SERVER_ERROR
        ), f"after {got.file_bytes} bytes: {trouble}"
    if isinstance(trouble, TruncatedError):
        evidence["transfer"] = "whole"
        return codes.BODY_TRUNCATED, f"the body is short by itself: {trouble}"
    code = codes.BODY_TRAILING if isinstance(trouble, TrailingError) else codes.BODY_CORRUPT
    return code, f"the body is not just {info.compression}: {trouble}"


def _difference(got: Measured, info: NarInfo, evidence: dict[str, Any]) -> tuple[Code, str]:
    """Compare what came whole with what was promised."""
    if got.nar_bytes != info.nar_size:
        more = "more than " if got.overlong else ""
        words = f"the NAR has {more}{info.nar_size if got.overlong else got.nar_bytes} bytes"
        return codes.WRONG_SIZE, f"{words}, and {info.nar_size} were promised"
    if got.nar_hash != info.nar_hash:
        evidence.update(nar_hash=str(got.nar_hash), nar_hash_promised=str(info.nar_hash))
        evidence["structure"] = got.structure or "valid"
        what = "damaged" if got.structure else "an intact NAR of something else"
        return codes.WRONG_HASH, f"the NAR has the promised size and another hash: it is {what}"
    if got.structure:
        evidence["structure"] = got.structure
        return codes.NOT_A_NAR, f"the promised bytes came, and they are no NAR: {got.structure}"
    if info.file_size is not None and got.file_bytes != info.file_size:
        evidence["body_bytes_promised"] = info.file_size
        return (
            codes.FILE_WRONG,
            f"the NAR is right, but FileSize says {info.file_size} and the file has {got.file_bytes}",
        )
    if info.file_hash is not None and got.file_hash != info.file_hash:
        evidence.update(file_hash=str(got.file_hash), file_hash_promised=str(info.file_hash))
        return codes.FILE_WRONG, "the NAR is right, but the compressed file is not the one of FileHash"
    evidence.update(nar_hash=got.nar_hash.hex(), body_hash=got.file_hash.hex())
    return codes.BODY_OK, f"{info.nar_size} bytes of NAR, as promised"


def looks_like(head: bytes) -> str:
    """Name what a body is when it is plainly something else; empty when that is not plain."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"<?xml", b"<error")):
        return "an XML error of S3"
    if start.startswith(b'{"'):
        return "JSON"
    for magic, name in (
        (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x1f\x8b", "gzip"),
        (b"\r\0\0\0\0\0\0\0nix-arch", "an uncompressed NAR"),
    ):  # fmt: skip
        if head.startswith(magic):
            return name
    return ""
