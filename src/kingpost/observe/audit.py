"""Is what a cache promises of a path really there? One path at a time; many in `audit_run`."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kingpost.cache.compression import UnknownCompressionError, decompressor
from kingpost.cache.fetch import FetchError, Trouble, read_all
from kingpost.cache.narinfo import MAX_BYTES, NarInfo, NarInfoError, parse_narinfo
from kingpost.cache.zstd_frames import DecompressionError
from kingpost.observe import audit_codes as codes
from kingpost.observe.audit_body import Measured, hash_body, measure
from kingpost.observe.audit_judge import (
    fetch_code,
    fetch_evidence,
    judge_body,
    judge_signature,
    judge_store,
    looks_like,
    may_succeed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kingpost.base.codes import Code
    from kingpost.base.verdict import Verdict
    from kingpost.cache.fetch import BinaryCache, Hop
    from kingpost.cache.signatures import TrustedKeys

_MOST_WAIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """A store path to look at; `path` is empty when only its hash part is known."""

    hash_part: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A body that was read whole and found right before: the same bytes hold the same NAR.

    Attributes:
        nar_hash: Of the NAR in it, `sha256:HEX`.
        compression: Which it was taken out by.
        body_hash: Of the body as it came, likewise.
        body_bytes: Its size.
        seen: When, UTC.

    """

    nar_hash: str
    compression: str
    body_hash: str
    body_bytes: int
    seen: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What looking at one path gave.

    Attributes:
        target: What was looked at.
        subject: As in the verdicts.
        verdicts: One that is ok, or every one that is not.
        present: Whether the cache has a narinfo for it; None when that could not be told.
        references: Hash parts and paths of what it refers to, itself left out.
        nar_bytes: Uncompressed bytes read.
        body_bytes: Compressed bytes read.

    """

    target: Target
    subject: str
    verdicts: tuple[Verdict, ...]
    present: bool | None
    references: tuple[Target, ...] = ()
    nar_bytes: int = 0
    body_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Auditor:
    """Looks at paths of one cache. May be used by several threads.

    Attributes:
        cache: The cache.
        keys: Whose signatures count.
        credentials: Whether requests carry any: a 401 means something else then.
        upstreams: Caches in which a path may be instead.
        attempts: How often to try what may succeed.
        delay: Seconds before the second attempt; doubled for each one after.
        store: The store directory that the cache says it is for; empty when that was not asked.

    """

    cache: BinaryCache
    keys: TrustedKeys
    credentials: bool = False
    upstreams: tuple[BinaryCache, ...] = ()
    attempts: int = 3
    delay: float = 0.25
    store: str = ""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def subject(self, what: str) -> str:
        """Name something of this cache as verdicts do."""
        return subject(what, self.cache.url)

    def audit(self, target: Target, known: Known | None = None) -> Outcome:
        """Look at a path: narinfo, signature, body. A body that is `known` is hashed and not decompressed."""
        named = self.subject(target.path or target.hash_part)
        info = self._narinfo(target)
        if isinstance(info, _Problem):
            missing = info.code is codes.NARINFO_MISSING
            if missing and (upstream := self._upstream_of(target)):
                verdict = codes.UPSTREAM.verdict(
                    named, f"not here; {upstream} has it", {"upstream": upstream}
                )
                return Outcome(target, named, (verdict,), present=True)
            verdict = info.code.verdict(named, info.words, info.evidence)
            return Outcome(target, named, (verdict,), present=False if missing else None)
        named = self.subject(str(info.path))
        references = tuple(
            Target(reference.hash_part, str(reference))
            for reference in info.references
            if reference.hash_part != target.hash_part
        )
        if info.path.hash_part != target.hash_part:
            words = f"the narinfo of {target.hash_part} is that of {info.path}"
            verdict = codes.NARINFO_CORRUPT.verdict(named, words, {"store_path": str(info.path)})
            return Outcome(target, named, (verdict,), present=False)
        trust = self.keys.judge(info)
        verdicts = [
            verdict
            for verdict in (judge_store(self.store, info, named), judge_signature(trust, info, named))
            if verdict is not None
        ]
        body, got = self._same_body(info, known) or self._body(info)
        body.evidence.update(store_path=str(info.path), signature=str(trust))
        if not verdicts or body.code is not codes.BODY_OK:
            verdicts.append(body.code.verdict(named, body.words, body.evidence))
        nar_bytes, body_bytes = (got.nar_bytes, got.file_bytes) if got else (0, 0)
        return Outcome(target, named, tuple(verdicts), True, references, nar_bytes, body_bytes)

    def is_present(self, target: Target) -> Outcome:
        """Ask only whether the cache has a path; the outcome holds a verdict when that could not be told."""
        named = self.subject(target.path or target.hash_part)
        try:
            self._retried(lambda: self._small(f"{target.hash_part}.narinfo"))
        except FetchError as error:
            code = fetch_code(error, "narinfo", credentials=self.credentials)
            if code is codes.NARINFO_MISSING:
                return Outcome(target, named, (), present=bool(self._upstream_of(target)))
            verdict = code.verdict(named, _words(code, error), fetch_evidence(error))
            return Outcome(target, named, (verdict,), present=None)
        return Outcome(target, named, (), present=True)

    def check_cache(self) -> str | Verdict:
        """Ask for nix-cache-info; gives its StoreDir, or a verdict when there is no cache to be audited at all."""
        try:
            text = self._retried(lambda: self._small("nix-cache-info")).decode("utf-8", "replace")
        except FetchError as error:
            code = fetch_code(error, "cache-info", credentials=self.credentials)
            return code.verdict(self.cache.url, _words(code, error), fetch_evidence(error))
        # As Nix reads it (src/libstore/binary-cache-store.cc, `init`).
        lines = (line.partition(":") for line in text.split("\n"))
        if store := next((value.strip() for name, _, value in lines if name == "StoreDir"), ""):
            return store
        evidence = {"url": f"{self.cache.url}/nix-cache-info", "looks_like": looks_like(text.encode())}
        words = "what answers is no binary cache: its nix-cache-info has no StoreDir"
        return codes.NO_SUCH_CACHE.verdict(self.cache.url, words, evidence)

    def _narinfo(self, target: Target) -> NarInfo | _Problem:
        location = f"{target.hash_part}.narinfo"
        try:
            text = self._retried(lambda: self._small(location))
        except FetchError as error:
            code = fetch_code(error, "narinfo", credentials=self.credentials)
            return _Problem(code, f"narinfo: {_words(code, error)}", fetch_evidence(error))
        try:
            return parse_narinfo(text)
        except NarInfoError as error:
            evidence = {"url": f"{self.cache.url}/{location}", "looks_like": looks_like(text[:200])}
            return _Problem(codes.NARINFO_CORRUPT, f"that is no narinfo: {error}", evidence)

    def _upstream_of(self, target: Target) -> str:
        """Give the URL of the first upstream that has a path; empty when none has, or none could be asked."""
        for upstream in self.upstreams:
            with suppress(FetchError), upstream.get(f"{target.hash_part}.narinfo"):
                return upstream.url
        return ""

    def _small(self, location: str) -> bytes:
        with self.cache.get(location) as body:
            if not body.encoding:
                return read_all(body, MAX_BYTES)
            try:
                return decompressor(body.encoding.removeprefix("x-"), body).read(MAX_BYTES)
            except (DecompressionError, UnknownCompressionError) as error:
                raise FetchError(
                    Trouble.PROTOCOL, f"Content-Encoding: {error}", url=body.hops[-1].url
                ) from error

    def _same_body(self, info: NarInfo, known: Known | None) -> tuple[_Problem, Measured | None] | None:
        """Compare the body with the one that is known; None when it is another, or anything is wrong with it."""
        if known is None or (known.nar_hash, known.compression) != (info.nar_hash.hex(), info.compression):
            return None
        if info.file_hash is not None and info.file_hash.hex() != known.body_hash:
            return None
        try:
            with self.cache.get(info.url) as body:
                got = hash_body(body, info, known.body_bytes)
                hops = body.hops
        except (FetchError, DecompressionError):
            return None
        if got.file_hash.hex() != known.body_hash:
            return None
        code, _, evidence = judge_body(got, info, hops)
        evidence["same_body_as"] = known.seen
        words = f"{info.nar_size} bytes of NAR: the very body that was verified at {known.seen}"
        return (_Problem(code, words, evidence), got) if code is codes.BODY_OK else None

    def _body(self, info: NarInfo) -> tuple[_Problem, Measured | None]:
        """Fetch and judge the body, again when that may help."""
        attempt = 0
        while True:
            attempt += 1
            found, got, again = self._body_once(info)
            if attempt > 1:
                found.evidence["attempts"] = attempt
            if not again or attempt >= self.attempts:
                return found, got
            self.sleep(self._wait(attempt, None))

    def _body_once(self, info: NarInfo) -> tuple[_Problem, Measured | None, bool]:
        began = time.monotonic()
        hops: tuple[Hop, ...] = ()
        try:
            with self.cache.get(info.url) as body:
                hops = body.hops
                got = measure(body, info)
        except FetchError as error:
            code = fetch_code(error, "nar", credentials=self.credentials)
            problem = _Problem(code, f"body: {_words(code, error)}", fetch_evidence(error))
            return problem, None, may_succeed(error)
        except UnknownCompressionError as error:
            return _Problem(codes.COMPRESSION, str(error), {"url": info.url}), None, False
        code, words, evidence = judge_body(got, info, hops)
        evidence["seconds"] = round(time.monotonic() - began, 3)
        transient = isinstance(got.trouble, FetchError) and may_succeed(got.trouble)
        return _Problem(code, words, evidence), got, transient or code is codes.BODY_EMPTY

    def _retried(self, action: Callable[[], bytes]) -> bytes:
        for attempt in range(1, self.attempts):
            try:
                return action()
            except FetchError as error:
                if not may_succeed(error):
                    raise
                self.sleep(self._wait(attempt, error.retry_after))
        return action()

    def _wait(self, attempt: int, asked: float | None) -> float:
        return min(_MOST_WAIT, max(self.delay * float(2 ** (attempt - 1)), asked or 0.0))


@dataclass(frozen=True, slots=True)
class _Problem:
    """A code with its words and evidence, before it has a subject; the code may be that of a good body."""

    code: Code
    words: str
    evidence: dict[str, Any]


def _words(code: Code, error: FetchError) -> str:
    """Give a code's title with what the error adds to it."""
    return code.title if str(error) == code.title else f"{code.title}: {error}"


def subject(what: str, cache_url: str) -> str:
    """Name a path of a cache: the same path in another cache is another subject."""
    return f"{what} at {cache_url}"
