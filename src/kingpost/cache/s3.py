"""S3, as far as a bucket has to be looked at and tried: boto3 with path-style addresses and short patience.

Credentials come from a file or from AWS_* variables, never from an instance's metadata service, a profile or
argv, and never show up in an error. boto3 is imported on first use.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from kingpost.base.errors import CannotLookError, InvalidInputError, KingpostError
from kingpost.cache.token_keys import read_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

#: S3 refuses parts below this size, but for the last one.
MIN_PART_BYTES: Final = 5 * 1024 * 1024

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CREDENTIAL: Final = re.compile(
    r"(?im)^\s*(?:export\s+)?aws_(access_key_id|secret_access_key|session_token)\s*=\s*(.*?)\s*$"
)


class S3Error(KingpostError):
    """The server answered a request with an error.

    Attributes:
        code: S3's name for it (`NoSuchBucket`), or the HTTP status where there is no body (HEAD).
        status: HTTP status.

    """

    def __init__(self, operation: str, endpoint: str, code: str, status: int, message: str) -> None:
        super().__init__(f"{operation} was answered with {code} (HTTP {status})", where=endpoint, why=message)
        self.operation = operation
        self.code = code
        self.status = status

    @property
    def absent(self) -> bool:
        """Tell whether the bucket or object is not there."""
        return self.status == 404 or self.code in ("NoSuchBucket", "NoSuchKey")

    @property
    def denied(self) -> bool:
        """Tell whether the credentials may not do this, or are not accepted."""
        return self.status in (401, 403)


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key. All empty: requests are not signed."""

    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Give what must not show up in evidence."""
        return tuple(part for part in (self.access_key, self.secret_key, self.session_token) if part)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an S3 server is and how to talk to it.

    Attributes:
        url: Base URL, without a bucket.
        region: Signed into every request.
        addressing: `path` puts the bucket into the path, `virtual` into the host name.
        credentials: The access key.

    """

    url: str
    region: str = "us-east-1"
    addressing: Literal["path", "virtual"] = "path"
    credentials: Credentials = Credentials()


@dataclass(frozen=True, slots=True)
class Object:
    """An object as a listing shows it; size in bytes."""

    key: str
    size: int


def is_bucket_name(text: str) -> bool:
    """Tell whether S3 allows this as a name: 3 to 63 characters, no path in it."""
    return _BUCKET.fullmatch(text) is not None and ".." not in text


def credentials_from_file(path: Path) -> Credentials:
    """Read AWS_ACCESS_KEY_ID and its twin from an environment file, or from an INI file with one profile."""
    return _credentials(dict(_pairs(read_secret(path), str(path))), str(path))


def credentials_from_environment() -> Credentials:
    """Read AWS_ACCESS_KEY_ID and its twin from the environment."""
    names = ("access_key_id", "secret_access_key", "session_token")
    return _credentials(
        {name: os.environ.get(f"AWS_{name.upper()}", "") for name in names}, "the environment"
    )


def _pairs(text: str, where: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for name, value in _CREDENTIAL.findall(text):
        if name.lower() in seen:
            raise InvalidInputError(
                f"AWS_{name.upper()} stands twice",
                where=where,
                fix="name a file with one access key (of an INI file with several profiles: extract one)",
            )
        seen.add(name.lower())
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        yield name.lower(), value[1:-1] if quoted else value


def _credentials(found: dict[str, str], where: str) -> Credentials:
    access, secret = found.get("access_key_id", ""), found.get("secret_access_key", "")
    if not access or not secret:
        missing = "AWS_SECRET_ACCESS_KEY" if access else "AWS_ACCESS_KEY_ID"
        raise CannotLookError(
            f"{where} has no {missing}",
            why="without an access key the bucket cannot be looked at; the metadata service is not asked",
            fix="give --credentials FILE, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass --anonymous",
        )
    return Credentials(access, secret, found.get("session_token", ""))


class S3:
    """An S3 server."""

    def __init__(self, endpoint: Endpoint, *, connect_timeout: float = 5, read_timeout: float = 30) -> None:
        import botocore  # noqa: PLC0415 - slow to import
        import botocore.session  # noqa: PLC0415 - likewise
        from botocore.config import Config  # noqa: PLC0415 - likewise

        self.endpoint = endpoint
        # Neither the user's profiles nor their surprises: a probe says itself what it uses.
        session = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
                "credentials_file": (None, None, os.devnull, None),
            }
        )
        anonymous = not endpoint.credentials.access_key
        config = Config(
            s3={"addressing_style": endpoint.addressing},
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            # One try: an intermittent error is a finding, not something to smooth over.
            retries={"total_max_attempts": 1},
            signature_version=botocore.UNSIGNED if anonymous else "s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        created: Any = session.create_client(
            "s3",
            region_name=endpoint.region,
            endpoint_url=endpoint.url,
            aws_access_key_id=endpoint.credentials.access_key or None,
            aws_secret_access_key=endpoint.credentials.secret_key or None,
            aws_session_token=endpoint.credentials.session_token or None,
            config=config,
        )
        self._client: S3Client = created

    @contextmanager
    def _asking(self, operation: str) -> Iterator[None]:
        from botocore import exceptions  # noqa: PLC0415 - slow to import

        try:
            yield
        except exceptions.ClientError as error:
            said: dict[str, Any] = dict(error.response.get("Error", {}))
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            code, message = str(said.get("Code", status)), str(said.get("Message", ""))
            raise S3Error(operation, self.endpoint.url, code, status, message) from None
        except (exceptions.BotoCoreError, OSError, ValueError) as error:
            raise CannotLookError(
                f"{operation} got no answer: {type(error).__name__}",
                where=self.endpoint.url,
                why=_without(self.endpoint.credentials.secrets, str(error)),
                fix="check the endpoint for this context with `kingpost explain`, and that the server runs",
            ) from None

    def buckets(self) -> list[str]:
        """List all buckets (ListBuckets)."""
        with self._asking("ListBuckets"):
            return [bucket["Name"] for bucket in self._client.list_buckets().get("Buckets", [])]

    def head(self, bucket: str) -> None:
        """Ask for a bucket (HeadBucket); raises S3Error when it is not there or may not be seen."""
        with self._asking("HeadBucket"):
            self._client.head_bucket(Bucket=bucket)

    def objects(self, bucket: str, limit: int = 10) -> list[Object]:
        """List the first objects (ListObjectsV2)."""
        with self._asking("ListObjectsV2"):
            page = self._client.list_objects_v2(Bucket=bucket, MaxKeys=limit)
            return [Object(found["Key"], found["Size"]) for found in page.get("Contents", [])]

    def get(self, bucket: str, key: str, limit: int = 8 * 1024 * 1024) -> bytes:
        """Read an object (GetObject), at most `limit` bytes of it."""
        with self._asking("GetObject"):
            body = self._client.get_object(Bucket=bucket, Key=key)["Body"]
            try:
                return body.read(limit)
            finally:
                body.close()

    def create(self, bucket: str) -> None:
        """Create a bucket (CreateBucket)."""
        with self._asking("CreateBucket"):
            self._client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object (PutObject)."""
        with self._asking("PutObject"):
            self._client.put_object(Bucket=bucket, Key=key, Body=data)

    def put_parts(self, bucket: str, key: str, parts: Sequence[bytes]) -> None:
        """Write an object in parts (multipart upload), each but the last of at least MIN_PART_BYTES.

        A failed upload is aborted, so that no parts stay behind.
        """
        with self._asking("CreateMultipartUpload"):
            upload = self._client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        try:
            done = []
            for number, part in enumerate(parts, 1):
                with self._asking("UploadPart"):
                    answer = self._client.upload_part(
                        Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=part
                    )
                done.append({"ETag": answer["ETag"], "PartNumber": number})
            with self._asking("CompleteMultipartUpload"):
                self._client.complete_multipart_upload(
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload={"Parts": done},  # type: ignore[typeddict-item]  # plain dicts are what it takes
                )
        except KingpostError:
            with self._asking("AbortMultipartUpload"):
                self._client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
            raise

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object (DeleteObject)."""
        with self._asking("DeleteObject"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def delete_bucket(self, bucket: str) -> None:
        """Delete an empty bucket (DeleteBucket)."""
        with self._asking("DeleteBucket"):
            self._client.delete_bucket(Bucket=bucket)


def _without(secrets: Sequence[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text
