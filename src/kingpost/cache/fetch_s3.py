"""A binary cache in an S3 bucket, addressed as Nix does: `s3://BUCKET?endpoint=…&region=…&profile=…&scheme=…`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from kingpost.base.errors import CannotLookError, UsageError
from kingpost.cache.fetch import BinaryCache, Body, FetchError, Hop, Trouble
from kingpost.cache.storepath import is_hash_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kingpost.cache.fetch import Access

_CREDENTIALS = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "Unauthorized")


class S3Cache(BinaryCache):
    """A bucket with `*.narinfo` and `nar/` at its root."""

    def __init__(self, url: str, access: Access) -> None:
        parts = urlsplit(url)
        self.bucket = parts.netloc
        if not self.bucket:
            raise UsageError(
                "the S3 address names no bucket", fix="write s3://BUCKET?endpoint=HOST&region=REGION"
            )
        options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        endpoint = options.get("endpoint", "")
        if endpoint and "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        self.url = f"s3://{self.bucket}" + (f" on {endpoint}" if endpoint else "")
        self._throttle = access.throttle
        self._client = _client(endpoint, options, access)

    def get(self, location: str) -> Body:
        """Ask for an object."""
        url = f"s3://{self.bucket}/{location}"
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=location)
        except Exception as error:  # noqa: BLE001 - botocore's and urllib3's errors share no class
            _translate(error, url)
        return _S3Body(answer, url, self._throttle)

    def hashes(self) -> Iterator[str]:
        """List the bucket, page by page."""
        try:
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
                for entry in page.get("Contents", ()):
                    hash_part, dot, ending = entry["Key"].partition(".")
                    if dot and ending == "narinfo" and is_hash_part(hash_part):
                        yield hash_part
        except Exception as error:  # noqa: BLE001 - likewise
            try:
                _translate(error, self.url)
            except FetchError as known:
                raise CannotLookError(
                    f"the bucket cannot be listed: {known}", where=self.url, why=known.server_message,
                    fix="`kingpost bucket rca` tells a lost index from a missing bucket",
                ) from error  # fmt: skip


class _S3Body(Body):
    def __init__(self, answer: Any, url: str, throttle: Any) -> None:
        self._stream = answer["Body"]
        self._throttle = throttle
        self.announced = answer.get("ContentLength")
        self.encoding = (answer.get("ContentEncoding") or "").strip().lower()
        self.hops = (Hop(url, 200),)

    def read(self, size: int, /) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except Exception as error:  # noqa: BLE001 - likewise
            _translate(error, self.hops[0].url, received=self.received)
        self.received += len(data)
        if self._throttle is not None:
            self._throttle.take(len(data))
        return data

    def close(self) -> None:
        self._stream.close()


def _client(endpoint: str, options: dict[str, str], access: Access) -> Any:
    # Without this the credential chain waits for a metadata service that only EC2 has.
    os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    import boto3  # noqa: PLC0415 - slow to import
    import botocore.exceptions  # noqa: PLC0415 - likewise
    from botocore.config import Config  # noqa: PLC0415 - likewise

    try:
        session = boto3.Session(profile_name=options.get("profile"))
        return session.client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=options.get("region") or session.region_name or "us-east-1",
            config=Config(
                connect_timeout=access.connect_timeout,
                read_timeout=access.stall_timeout,
                max_pool_connections=access.connections,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise UsageError(f"the S3 address cannot be used: {error}") from error


def _translate(error: Exception, url: str, *, received: int = 0) -> NoReturn:
    from botocore import exceptions as s3  # noqa: PLC0415 - slow to import

    status, name, message = 0, "", str(error)[:300]
    if isinstance(error, s3.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        name = str(error.response.get("Error", {}).get("Code", ""))[:80]
        if name == "NoSuchBucket":
            trouble = Trouble.BUCKET
        else:
            trouble = Trouble.CREDENTIALS if name in _CREDENTIALS else Trouble.STATUS
    elif isinstance(error, (s3.NoCredentialsError, s3.PartialCredentialsError, s3.ProfileNotFound)):
        trouble = Trouble.CREDENTIALS
    elif isinstance(error, s3.ConnectTimeoutError):
        trouble = Trouble.CONNECT_TIMEOUT
    elif isinstance(error, s3.ReadTimeoutError):
        trouble = Trouble.STALLED
    elif isinstance(error, s3.SSLError):
        trouble = Trouble.TLS
    elif isinstance(error, s3.EndpointConnectionError):
        trouble = Trouble.REFUSED
    elif received or isinstance(error, (s3.IncompleteReadError, s3.ResponseStreamingError)):
        trouble = Trouble.CUT
    elif isinstance(error, s3.HTTPClientError):
        trouble = Trouble.LOST
    else:
        raise error
    raise FetchError(
        trouble, f"S3 says {name}" if name else message, url=url, status=status,
        server_error=name, server_message=message if name else "", received=received,
    ) from error  # fmt: skip
