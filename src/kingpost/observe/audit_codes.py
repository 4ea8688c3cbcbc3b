"""What `kingpost cache audit` can find. The table of facts behind it: Attic's error codes, Nix's own behaviour."""

from __future__ import annotations

from typing import Final

from kingpost.base.codes import Code
from kingpost.base.verdict import Status

_OK, _FAILED, _SKIPPED = Status.OK, Status.FAILED, Status.SKIPPED
_STORAGE: Final = (
    "look at the storage first: `kingpost bucket rca` compares what S3 says with what is on disk"
)
_REPUSH: Final = (
    "back Attic's database up, delete the path's rows in `nar` and `chunk`, then push again; a plain re-push is "
    "deduplicated against the database and heals nothing"
)

# --- the path is there -----------------------------------------------------------------------------------------------
BODY_OK: Final = Code(
    "KP-CACHE-BODY-OK", _OK, "the body is what the narinfo promises",
    "narinfo, signature, body, NarSize, NarHash, the NAR's structure and FileSize/FileHash (when given) all agree.",
    told_apart="The body came by the substituter's own path, redirects included, and was read to its last byte.",
)  # fmt: skip
VERIFIED_BEFORE: Final = Code(
    "KP-CACHE-VERIFIED-BEFORE", _OK, "verified by an earlier run",
    "The ledger has this path of this cache as verified within `--verified-since`; it was not fetched again.",
    told_apart="Counts on the ledger alone: what broke since then is not seen.",
)  # fmt: skip
UPSTREAM: Final = Code(
    "KP-CACHE-UPSTREAM", Status.EXPECTED, "not here, and an upstream has it",
    "The cache has no narinfo, and a cache given with `--upstream` has.",
    cause="`attic push` leaves out what is signed by an upstream's key (`upstream_cache_key_names`).",
    told_apart="KP-CACHE-NARINFO-MISSING: no upstream has it either.",
)  # fmt: skip

# --- the body --------------------------------------------------------------------------------------------------------
BODY_EMPTY: Final = Code(
    "KP-CACHE-BODY-EMPTY", _FAILED, "narinfo fine, body empty (the NAR-index incident)",
    "The narinfo is answered, the body is HTTP 200, and not one byte of it comes.",
    cause="Attic answers narinfo from its database alone and sends 200 before it asks the storage for the first chunk. "
    "The chunks cannot be read: a bucket that S3 no longer lists, an expired object, storage down.",
    told_apart="TRUNCATED has some bytes. INCOMPLETE is Attic saying so itself. A health check and the narinfo stay "
    "green in all three, and builds survive by --fallback.",
    remedy=_STORAGE + "; Attic's log has the reason, for example NoSuchBucket",
)  # fmt: skip
BODY_TRUNCATED: Final = Code(
    "KP-CACHE-BODY-TRUNCATED", _FAILED, "body cut off",
    "The body ends early: in the middle of a transfer, of a compressed frame or of the NAR.",
    cause="With `transfer=cut` the connection broke below its announced length: a chunk could not be read, or a proxy "
    "gave up. With `transfer=whole` the stored file itself is short: an interrupted upload.",
    told_apart="EMPTY has no byte at all. WRONG-SIZE is a complete NAR of another size.",
    remedy=f"transfer=cut: {_STORAGE}. transfer=whole: upload the path again (Attic: {_REPUSH})",
)  # fmt: skip
BODY_CORRUPT: Final = Code(
    "KP-CACHE-BODY-CORRUPT", _FAILED, "body cannot be decompressed",
    "The bytes are not of the compression that the narinfo names.",
    cause="Damaged storage, an HTML page with HTTP 200 (`looks_like`), or a narinfo with the wrong Compression line.",
    told_apart="TRUNCATED would have been right as far as it goes.",
    remedy="delete the path from the cache and upload it again",
)  # fmt: skip
BODY_TRAILING: Final = Code(
    "KP-CACHE-BODY-TRAILING", _FAILED, "something follows the body",
    "The compressed stream is complete, and bytes that are no part of it follow.",
    cause="A file that was overwritten by a shorter one in place, or two uploads that ran into each other.",
    told_apart="CORRUPT is damaged before its end.",
    remedy="delete the path from the cache and upload it again",
)  # fmt: skip
WRONG_SIZE: Final = Code(
    "KP-CACHE-BODY-WRONG-SIZE", _FAILED, "body of another size",
    "A whole NAR came, and it is not NarSize bytes long.",
    cause="The narinfo and the body belong to different uploads, or the narinfo was changed.",
    told_apart="TRUNCATED ends in the middle of the NAR; here it is complete, or goes on too long.",
    remedy="delete the path from the cache and upload it again",
)  # fmt: skip
WRONG_HASH: Final = Code(
    "KP-CACHE-BODY-WRONG-HASH", _FAILED, "body with another hash",
    "The size agrees and NarHash does not.",
    cause="With `structure=valid` it is an intact NAR of something else: bodies were swapped, or the store path was "
    "damaged when it was pushed (Nix publishes such a path without a word). Otherwise the bytes were damaged.",
    told_apart="NOT-A-NAR has the promised hash.",
    remedy="delete the path from the cache and upload it again from a store that `nix-store --verify-path` accepts",
)  # fmt: skip
NOT_A_NAR: Final = Code(
    "KP-CACHE-BODY-NOT-A-NAR", _FAILED, "the promised bytes, and no NAR",
    "NarSize and NarHash agree, and the bytes are no Nix archive.",
    cause="The uploader hashed something that is no NAR. The transfer and the storage are fine.",
    told_apart="WRONG-HASH and CORRUPT are damage on the way; this was uploaded so.",
    remedy="fix the uploader, then delete the path from the cache and upload it again",
)  # fmt: skip
FILE_WRONG: Final = Code(
    "KP-CACHE-FILE-WRONG", _FAILED, "FileHash or FileSize does not agree",
    "The NAR inside is right, and the compressed file is not the one that the narinfo describes.",
    cause="The file was compressed again, or a damaged store path was pushed with compression=none.",
    told_apart="Nix never checks FileHash: it substitutes this path without complaint. Mirrors and `ncps` do check.",
    remedy="upload the path again so that narinfo and file are of one piece",
)  # fmt: skip
BODY_MISSING: Final = Code(
    "KP-CACHE-BODY-MISSING", _FAILED, "narinfo there, body 404",
    "The cache answers the narinfo and has no file at its URL.",
    cause="The NAR was collected or never uploaded while its narinfo stayed.",
    told_apart="With a redirect before it: KP-CACHE-REDIRECT-MISSING. Nix treats this as a miss and builds.",
    remedy="upload the path again, or delete the narinfo",
)  # fmt: skip
BODY_INCOMPLETE: Final = Code(
    "KP-CACHE-BODY-INCOMPLETE", _FAILED, "Attic knows that chunks are gone",
    "HTTP 503 with Attic's error `IncompleteNar`.",
    cause="A row of Attic's table `chunk` was deleted while the NAR refers to it.",
    told_apart="Any other 503 is KP-CACHE-SERVER-ERROR. Not retried: it cannot change by itself.",
    remedy=_REPUSH,
)  # fmt: skip

# --- the redirect ----------------------------------------------------------------------------------------------------
REDIRECT_UNREACHABLE: Final = Code(
    "KP-CACHE-REDIRECT-UNREACHABLE", _FAILED, "redirect target unreachable from here",
    "The cache answers with a redirect, and from here its target refuses, does not resolve, or times out.",
    cause="Attic redirects NARs of a single chunk to its S3 endpoint. That endpoint is an address of the server's "
    "network and not of this one. Larger NARs stream through Attic, so small paths fail and big ones work.",
    told_apart="The cache itself was reached. Run the same audit where the server runs: there it passes.",
    remedy="make the S3 `endpoint` of Attic's configuration reachable from every puller. No option turns the redirect "
    "off: with nar-size-threshold = 1, too, a NAR that fits into one chunk is redirected",
)  # fmt: skip
REDIRECT_MISSING: Final = Code(
    "KP-CACHE-REDIRECT-MISSING", _FAILED, "redirected, and the storage has nothing there",
    "The cache redirects to the storage, which answers 404: NoSuchKey or NoSuchBucket.",
    cause="The chunk is gone, or S3 no longer knows its bucket. Attic presigns addresses without asking the storage.",
    told_apart="`server_error` says whether the object or the whole bucket is missing.",
    remedy=_STORAGE,
)  # fmt: skip
REDIRECT_DENIED: Final = Code(
    "KP-CACHE-REDIRECT-DENIED", _FAILED, "redirected, and the storage refuses",
    "The cache redirects to the storage, which answers 401 or 403.",
    cause="The server's S3 credentials were rotated, its clock is off (the signature lives 600 s), or a proxy changed "
    "the Host that was signed.",
    told_apart="The cache accepted the token; this is between Attic and its storage.",
    remedy="check the S3 credentials and the clock of the cache's server",
)  # fmt: skip
REDIRECT_BROKEN: Final = Code(
    "KP-CACHE-REDIRECT-BROKEN", _FAILED, "redirect that leads nowhere",
    "A redirect without a usable address, more than 20 of them, or a target that answers like no storage.",
    cause="A login page in front of the cache, or http and https sending to each other.",
    told_apart="UNREACHABLE is a good address that cannot be reached.",
    remedy="look at the hops in the evidence; the last one is wrong",
)  # fmt: skip

# --- narinfo, signature, references ----------------------------------------------------------------------------------
NARINFO_MISSING: Final = Code(
    "KP-CACHE-NARINFO-MISSING", _FAILED, "the cache does not have the path",
    "The narinfo is 404 (Attic: NoSuchObject).",
    cause="It was never pushed, or garbage collection took it. Attic answers so too when the cache itself does not "
    "exist, or when the token has no permission on its name.",
    told_apart="KP-CACHE-UPSTREAM when an upstream has it. 401 would mean that it exists and a token is needed.",
    remedy="push the path, or give the cache that holds it with --upstream",
)  # fmt: skip
NARINFO_CORRUPT: Final = Code(
    "KP-CACHE-NARINFO-CORRUPT", _FAILED, "that is no narinfo",
    "HTTP 200 with something that Nix cannot read as a narinfo, or with the narinfo of another path.",
    cause="A login page or an error page with status 200, or an overwritten file.",
    told_apart="Nix 2.8 ends the whole build on this; 2.34 goes on to the next cache.",
    remedy="look at `looks_like` and at what stands between you and the cache",
)  # fmt: skip
SIGNATURE_MISSING: Final = Code(
    "KP-CACHE-SIGNATURE-MISSING", _FAILED, "unsigned",
    "The narinfo has no signature, its path is not content-addressed, and keys were given.",
    told_apart="SIGNATURE-UNTRUSTED has one, by another key.",
    remedy="sign the path: `nix store sign`, or the `secret-key` of the cache's URL",
)  # fmt: skip
SIGNATURE_UNTRUSTED: Final = Code(
    "KP-CACHE-SIGNATURE-UNTRUSTED", _FAILED, "signed by a key that is not trusted",
    "No signature's key name is among the keys given.",
    cause="The cache's key was regenerated under a new name, or the wrong key is declared.",
    told_apart="SIGNATURE-INVALID has the right name. Nix ignores the substitute and builds.",
    remedy="declare the key that the cache really signs with (`attic cache info`)",
)  # fmt: skip
SIGNATURE_INVALID: Final = Code(
    "KP-CACHE-SIGNATURE-INVALID", _FAILED, "signature does not verify",
    "A signature carries a trusted key's name and does not fit the path, hash, size and references.",
    cause="The keypair was regenerated under the same name (`attic cache configure --regenerate-keypair`), or the "
    "narinfo was changed after it was signed.",
    told_apart="If every path of the cache fails so, it is the key; if one does, it is the narinfo.",
    remedy="every path: declare the new public key. One path: upload it again",
)  # fmt: skip
REFERENCE_MISSING: Final = Code(
    "KP-CACHE-REFERENCE-MISSING", _FAILED, "a reference is in no cache",
    "The path is fine, and a path that it refers to is neither in this cache nor in an upstream given.",
    cause="Pushed without its closure, or garbage collection took the dependency first.",
    told_apart="`nix store verify` does not look at this. A client fails when it substitutes the path.",
    remedy="push the missing path, or give the cache that holds it with --upstream",
)  # fmt: skip

# --- the cache as a whole --------------------------------------------------------------------------------------------
UNAUTHORIZED: Final = Code(
    "KP-CACHE-UNAUTHORIZED", _FAILED, "401 in spite of a token",
    "The cache answers 401 to a request with credentials.",
    cause="Attic ignores a token that is expired, malformed or signed with another key and treats the request as "
    "anonymous.",
    told_apart="NEEDS-TOKEN: no token was given. FORBIDDEN: the token is good and lacks the permission.",
    remedy="`kingpost token inspect` and `kingpost token check` say what is wrong with it",
)  # fmt: skip
NEEDS_TOKEN: Final = Code(
    "KP-CACHE-NEEDS-TOKEN", _SKIPPED, "private cache, no token",
    "The cache answers 401, and no token was given. That is what a private cache should answer.",
    told_apart="No failure, and no proof of anything either: nothing was looked at.",
    remedy="give a token that may pull with --token-file or --netrc-file",
)  # fmt: skip
FORBIDDEN: Final = Code(
    "KP-CACHE-FORBIDDEN", _FAILED, "403: the token may not pull",
    "The cache answers 403.",
    cause="The token is valid and lacks `r` on this cache. Attic picks one pattern of a token and never merges two.",
    told_apart="UNAUTHORIZED: the token itself is not accepted. Plain S3 answers 403 for a missing key, "
    "too, to who may not list the bucket.",
    remedy="`kingpost token inspect` shows the permissions; mint one with pull on this cache",
)  # fmt: skip
NO_SUCH_CACHE: Final = Code(
    "KP-CACHE-NO-SUCH-CACHE", _FAILED, "no cache at this address",
    "There is no nix-cache-info, or it is none (Attic: NoSuchCache).",
    cause="A wrong name or path, a cache that was deleted, or a web page.",
    told_apart="Every path of it would be missing; this is said once for all.",
    remedy="compare the address with `attic cache info`",
)  # fmt: skip
OTHER_STORE: Final = Code(
    "KP-CACHE-OTHER-STORE", _FAILED, "nix-cache-info is for another store directory",
    "The StoreDir in nix-cache-info is not the directory of this narinfo's StorePath.",
    cause="Caches of two stores merged, a nix-cache-info written by hand or by a test, a mirror's rewritten.",
    told_apart="Nix refuses a cache whose StoreDir is not its own (`binary cache … is for Nix stores with prefix …`), "
    "and a narinfo outside its own store: with either directory this path cannot be had, however sound its body.",
    remedy="correct nix-cache-info, or take the paths of the other store out of the cache",
)  # fmt: skip
BAD_HOST: Final = Code(
    "KP-CACHE-BAD-HOST", _FAILED, "Attic does not accept this host name",
    "HTTP 400 RequestError, `Bad Host`.",
    cause="Attic's `allowed-hosts` compares the whole Host header, port included.",
    remedy="add the address as it is dialled from here to allowed-hosts",
)  # fmt: skip
BUCKET_MISSING: Final = Code(
    "KP-CACHE-BUCKET-MISSING", _FAILED, "S3 does not know the bucket",
    "NoSuchBucket.",
    cause="A wrong name, or an index that lost the bucket while its data is on disk (the NAR-index incident).",
    remedy=_STORAGE,
)  # fmt: skip
S3_CREDENTIALS: Final = Code(
    "KP-CACHE-S3-CREDENTIALS", _SKIPPED, "S3 credentials missing or refused",
    "S3 does not accept the credentials found here, or there are none.",
    told_apart="Says nothing about the data.",
    remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or profile= in the address",
)  # fmt: skip
SERVER_ERROR: Final = Code(
    "KP-CACHE-SERVER-ERROR", _FAILED, "the server fails (5xx)",
    "HTTP 500 (Attic: InternalServerError), 502, 503 or 504, also when asked again.",
    cause="Attic: the database or the storage; only its log says which. 502 to 504: what stands before it.",
    told_apart="BODY-INCOMPLETE is the one 503 that is about a single path.",
    remedy="read the server's log of this minute; " + _STORAGE,
)  # fmt: skip
RATE_LIMITED: Final = Code(
    "KP-CACHE-RATE-LIMITED", _FAILED, "429, also when asked again",
    "The server asks to come back later.",
    remedy="lower --jobs, or run the audit less often",
)  # fmt: skip
OTHER_STATUS: Final = Code(
    "KP-CACHE-STATUS", _FAILED, "an answer that a cache does not give",
    "An HTTP status that no binary cache gives for this request.",
    remedy="look at what stands between you and the cache",
)  # fmt: skip
REFUSED: Final = Code(
    "KP-CACHE-REFUSED", _FAILED, "connection refused",
    "The host answers, and nothing listens on the port.",
    cause="The server is down, or the address is another network namespace's: 127.0.0.1 in a container is the "
    "container itself.",
    told_apart="UNREACHABLE: no host answers. CONNECT-TIMEOUT: packets are dropped.",
    remedy="`kingpost explain` gives the address for this context",
)  # fmt: skip
UNREACHABLE: Final = Code(
    "KP-CACHE-UNREACHABLE", _FAILED, "no way to the host",
    "The name does not resolve, there is no route, or a proxy refuses.",
    cause="A tailnet's or a cluster's name outside of it.",
    remedy="`kingpost explain` gives the address for this context",
)  # fmt: skip
TLS: Final = Code(
    "KP-CACHE-TLS", _FAILED, "TLS handshake fails",
    "The certificate is not accepted, or the port does not speak TLS.",
    cause="An expired certificate, a private authority that is not installed here, or https:// for a plain port.",
    told_apart="Not retried: it cannot change by itself.",
    remedy="read `reason`; install the authority's certificate, or correct the scheme",
)  # fmt: skip
CONNECT_TIMEOUT: Final = Code(
    "KP-CACHE-CONNECT-TIMEOUT", _FAILED, "connecting times out",
    "No answer at all to the attempt to connect.",
    cause="A firewall drops the packets, or the host is off.",
    told_apart="STALLED was connected.",
    remedy="open the firewall for this context's network, or correct the address",
)  # fmt: skip
STALLED: Final = Code(
    "KP-CACHE-STALLED", _FAILED, "stalled",
    "Connected, and then less than one byte a second within --stall-timeout.",
    cause="The server waits for its storage or its database; a proxy holds the connection.",
    told_apart="TRUNCATED: the connection ended.",
    remedy="look at the server's load and at its storage",
)  # fmt: skip
LOST: Final = Code(
    "KP-CACHE-CONNECTION-LOST", _FAILED, "connection lost before an answer",
    "The server closed the connection, or spoke something that is not HTTP.",
    cause="The server crashed or was restarted, or the port belongs to another service. For a body whose narinfo is "
    "answered, and again at each attempt: Attic could not read the chunks and ended before its headers had left.",
    told_apart="EMPTY is the same of an Attic whose headers came out first: which of both it is, is chance.",
    remedy=f"look at the server's log of this minute; for a body alone: {_STORAGE}",
)  # fmt: skip

# --- could not look --------------------------------------------------------------------------------------------------
NOT_LOOKED: Final = Code(
    "KP-CACHE-NOT-LOOKED", _SKIPPED, "not looked at",
    "The cache stopped answering, and what was left was not tried.",
    told_apart="The verdict before it says what happened to the cache.",
    remedy="run again with --verified-since 1d: what is verified is not fetched again",
)  # fmt: skip
COMPRESSION: Final = Code(
    "KP-CACHE-COMPRESSION-UNKNOWN", _SKIPPED, "a compression that kingpost cannot read",
    "The narinfo names a compression other than none, zstd, xz, lzma, bzip2, br and gzip.",
    remedy="verify the path with `nix store verify --store`",
)  # fmt: skip
SHARD_MISSING: Final = Code(
    "KP-CACHE-SHARD-MISSING", _FAILED, "a shard's report is not there",
    "`cache merge` got reports of some shards and not of all.",
    cause="A job of the pipeline failed before it wrote its report.",
    remedy="run the missing shard with the same inputs and merge again",
)  # fmt: skip
