"""S3: buckets and objects, path-style, and the configuration of a bucket as it was given."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from adapters.simulators.aws.errors import ApiError
from adapters.simulators.aws.names import Place
from adapters.simulators.aws.service import Handler
from adapters.simulators.aws.shapes import Json
from adapters.simulators.common.clock import Clock

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KEPT = (
    "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType",
    "Metadata", "SSEKMSKeyId", "BucketKeyEnabled", "WebsiteRedirectLocation",
)  # fmt: skip
"""Members of PutObject that GetObject answers with."""
_SUMS: Mapping[str, Callable[[bytes], bytes]] = {
    "ChecksumCRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "ChecksumSHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
    "ChecksumSHA256": lambda data: hashlib.sha256(data).digest(),
}
"""Checksums that are held against the content; others are kept and given back."""
_ALL_SUMS = (*_SUMS, "ChecksumCRC32C", "ChecksumCRC64NVME")


@dataclass(slots=True)
class Object:
    """One object."""

    body: bytes = field(repr=False)
    modified: float
    etag: str
    kept: Json
    sums: Json
    encryption: str


@dataclass(slots=True)
class Bucket:
    """One bucket."""

    name: str
    created: float
    objects: dict[str, Object] = field(default_factory=dict)
    configurations: dict[str, Json] = field(default_factory=dict)


def _error(code: str, message: str, status: int = 400) -> ApiError:
    return ApiError(code, message, status)


class S3:
    """All buckets of the account."""

    name: ClassVar[str] = "s3"
    invalid: ClassVar[str] = "InvalidArgument"

    def __init__(self, place: Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    @property
    def operations(self) -> Mapping[str, Handler]:
        """All that is simulated."""
        return {
            "CreateBucket": self._create_bucket,
            "DeleteBucket": self._delete_bucket,
            "DeleteBucketEncryption": self._dropping("encryption"),
            "DeleteBucketLifecycle": self._dropping("lifecycle"),
            "DeleteObject": self._delete,
            "DeleteObjects": self._delete_some,
            "DeletePublicAccessBlock": self._dropping("public access"),
            "GetBucketEncryption": self._reading(
                "encryption", "ServerSideEncryptionConfigurationNotFoundError"
            ),
            "GetBucketLifecycleConfiguration": self._reading(
                "lifecycle", "NoSuchLifecycleConfiguration"
            ),
            "GetBucketLocation": self._location,
            "GetBucketVersioning": self._versioning,
            "GetObject": self._get,
            "GetPublicAccessBlock": self._reading(
                "public access", "NoSuchPublicAccessBlockConfiguration"
            ),
            "HeadBucket": self._head_bucket,
            "HeadObject": self._head,
            "ListBuckets": self._list_buckets,
            "ListObjectsV2": self._list,
            "PutBucketEncryption": self._keeping("encryption", "ServerSideEncryptionConfiguration"),
            "PutBucketLifecycleConfiguration": self._lifecycle,
            "PutBucketVersioning": self._put_versioning,
            "PutObject": self._put,
            "PutPublicAccessBlock": self._keeping(
                "public access", "PublicAccessBlockConfiguration"
            ),
        }

    def content(self, bucket: str, key: str) -> bytes:
        """An object's content, for tasks. ApiError."""
        return self._object({"Bucket": bucket, "Key": key}).body

    def _bucket(self, given: Json) -> Bucket:
        found = self._buckets.get(given["Bucket"])
        if found is None:
            raise _error("NoSuchBucket", "The specified bucket does not exist", 404)
        owner = given.get("ExpectedBucketOwner", self._place.account)
        if owner != self._place.account:
            raise _error("AccessDenied", "Access Denied", 403)
        return found

    def _object(self, given: Json) -> Object:
        found = self._bucket(given).objects.get(given["Key"])
        if found is None:
            raise _error("NoSuchKey", "The specified key does not exist.", 404)
        return found

    def _create_bucket(self, given: Json) -> Json:
        name = given["Bucket"]
        if not _NAME.fullmatch(name) or ".." in name:
            raise _error("InvalidBucketName", "The specified bucket is not valid.")
        wanted = given.get("CreateBucketConfiguration", {}).get("LocationConstraint", "us-east-1")
        if wanted != self._place.region:
            raise _error(
                "IllegalLocationConstraintException",
                f"The {wanted} location constraint is incompatible for the region specific endpoint"
                " this request was sent to.",
            )
        if name in self._buckets and self._place.region != "us-east-1":
            raise _error(
                "BucketAlreadyOwnedByYou",
                "Your previous request to create the named bucket succeeded and you own it.",
                409,
            )
        # In us-east-1 creating one's own bucket again succeeds (API reference, CreateBucket).
        self._buckets.setdefault(name, Bucket(name, self._clock.now()))
        return {"Location": f"/{name}"}

    def _head_bucket(self, given: Json) -> Json:
        self._bucket(given)
        return {"BucketRegion": self._place.region, "AccessPointAlias": False}

    def _location(self, given: Json) -> Json:
        self._bucket(given)
        region = self._place.region
        return {} if region == "us-east-1" else {"LocationConstraint": region}

    def _delete_bucket(self, given: Json) -> Json:
        if self._bucket(given).objects:
            raise _error("BucketNotEmpty", "The bucket you tried to delete is not empty", 409)
        del self._buckets[given["Bucket"]]
        return {}

    def _list_buckets(self, given: Json) -> Json:
        shown = [
            {"Name": one.name, "CreationDate": one.created}
            for name, one in sorted(self._buckets.items())
            if name.startswith(given.get("Prefix", ""))
        ]
        return {"Buckets": shown, "Owner": {"ID": hashlib.sha256(b"simulated").hexdigest()}}

    def _put(self, given: Json) -> Json:
        bucket, body = self._bucket(given), given.get("Body", b"")
        if given.get("IfNoneMatch") == "*" and given["Key"] in bucket.objects:
            raise _error(
                "PreconditionFailed",
                "At least one of the pre-conditions you specified did not hold",
                412,
            )
        if "IfMatch" in given:
            # "How to prevent object overwrites with conditional writes": 404 where there is none.
            _conditions({"IfMatch": given["IfMatch"]}, self._object(given))
        if len(given["Key"].encode()) > 1024:
            raise _error("KeyTooLongError", "Your key is too long")
        sums = _checked(given, body)
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        kept = {name: given[name] for name in _KEPT if given.get(name) not in (None, {})}
        encryption = given.get("ServerSideEncryption") or _default_encryption(bucket)
        bucket.objects[given["Key"]] = Object(body, self._clock.now(), etag, kept, sums, encryption)
        key = {"SSEKMSKeyId": kept["SSEKMSKeyId"]} if "SSEKMSKeyId" in kept else {}
        return {"ETag": etag, "ServerSideEncryption": encryption, **sums, **key}

    def _head(self, given: Json) -> Json:
        one = self._object(given)
        _conditions(given, one)
        answer = {
            "AcceptRanges": "bytes",
            "LastModified": one.modified,
            "ContentLength": len(one.body),
            "ETag": one.etag,
            "ServerSideEncryption": one.encryption,
            "ContentType": "binary/octet-stream",
            **one.kept,
        }
        if given.get("ChecksumMode") == "ENABLED":
            answer |= one.sums
        return answer

    def _get(self, given: Json) -> Json:
        answer, body = self._head(given), self._object(given).body
        if "Range" in given:
            start, end = _range(given["Range"], len(body))
            answer["ContentRange"] = f"bytes {start}-{end - 1}/{len(body)}"
            body = body[start:end]
            # A checksum is of the whole.
            answer = {name: item for name, item in answer.items() if name not in _ALL_SUMS}
        return {**answer, "ContentLength": len(body), "Body": body}

    def _delete(self, given: Json) -> Json:
        self._bucket(given).objects.pop(given["Key"], None)
        return {}

    def _delete_some(self, given: Json) -> Json:
        bucket, wanted = self._bucket(given), given["Delete"]["Objects"]
        if not 1 <= len(wanted) <= 1000:
            raise _error("MalformedXML", "Between 1 and 1000 keys can be deleted with one call.")
        for one in wanted:
            bucket.objects.pop(one["Key"], None)
        quiet = given["Delete"].get("Quiet", False)
        return {} if quiet else {"Deleted": [{"Key": one["Key"]} for one in wanted]}

    def _list(self, given: Json) -> Json:
        bucket, prefix = self._bucket(given), given.get("Prefix", "")
        delimiter, most = given.get("Delimiter", ""), min(given.get("MaxKeys", 1000), 1000)
        keys = sorted(key for key in bucket.objects if key.startswith(prefix))
        after = _place(given["ContinuationToken"]) if "ContinuationToken" in given else ""
        keys = keys[bisect_right(keys, max(after, given.get("StartAfter", ""))) :]
        shown: list[Json] = []
        groups: list[str] = []
        last, cut = "", False
        for key in keys:
            rest = key[len(prefix) :]
            grouped = bool(delimiter) and delimiter in rest
            group = prefix + rest.partition(delimiter)[0] + delimiter if grouped else ""
            if grouped and (group in groups or (after and after.startswith(group))):
                last = key
                continue
            if len(shown) + len(groups) >= most:
                cut = True
                break
            last = key
            if grouped:
                groups.append(group)
            else:
                shown.append(_listed(key, bucket.objects[key]))
        answer: Json = {
            "Name": bucket.name,
            "Prefix": prefix,
            "MaxKeys": given.get("MaxKeys", 1000),
            "KeyCount": len(shown) + len(groups),
            "IsTruncated": cut,
        }
        for name in ("Delimiter", "StartAfter", "ContinuationToken"):
            if name in given:
                answer[name] = given[name]
        if shown:
            answer["Contents"] = shown
        if groups:
            answer["CommonPrefixes"] = [{"Prefix": one} for one in groups]
        if cut and last:
            answer["NextContinuationToken"] = base64.urlsafe_b64encode(last.encode()).decode()
        return answer

    def _lifecycle(self, given: Json) -> Json:
        rules = given.get("LifecycleConfiguration", {}).get("Rules", [])
        for one in rules:
            if one.get("Expiration", {}).get("Days", 1) < 1:
                raise _error(
                    "InvalidArgument", "'Days' for Expiration action must be a positive integer"
                )
            if one.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays", 1) < 1:
                raise _error(
                    "InvalidArgument",
                    "'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive"
                    " integer",
                )
        self._bucket(given).configurations["lifecycle"] = {"Rules": rules}
        return {}

    def _versioning(self, given: Json) -> Json:
        # A bucket that never had versions has no status at all (API reference).
        return self._bucket(given).configurations.get("versioning", {})

    def _put_versioning(self, given: Json) -> Json:
        wanted = given["VersioningConfiguration"]
        if "Status" not in wanted:
            raise _error(
                "IllegalVersioningConfigurationException",
                "The Versioning element must be specified",
            )
        self._bucket(given).configurations["versioning"] = wanted
        return {}

    def _keeping(self, what: str, member: str) -> Handler:
        def keep(given: Json) -> Json:
            self._bucket(given).configurations[what] = {member: given[member]}
            return {}

        return keep

    def _reading(self, what: str, missing: str) -> Handler:
        def read(given: Json) -> Json:
            found = self._bucket(given).configurations.get(what)
            if found is None:
                raise _error(missing, f"The bucket has no {what} configuration", 404)
            return found

        return read

    def _dropping(self, what: str) -> Handler:
        def drop(given: Json) -> Json:
            self._bucket(given).configurations.pop(what, None)
            return {}

        return drop


def _checked(given: Json, body: bytes) -> Json:
    """The checksums that came with the content. BadDigest where one is wrong."""
    sums = {name: given[name] for name in _ALL_SUMS if name in given}
    for name, make in _SUMS.items():
        if name in sums and sums[name] != base64.b64encode(make(body)).decode():
            raise _error("BadDigest", f"The {name} you specified did not match what we received.")
    md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    if given.get("ContentMD5", md5) != md5:
        raise _error("BadDigest", "The Content-MD5 you specified did not match what we received.")
    return sums


def _default_encryption(bucket: Bucket) -> str:
    rules = bucket.configurations.get("encryption", {}).get("ServerSideEncryptionConfiguration", {})
    for one in rules.get("Rules", ()):
        default = one.get("ApplyServerSideEncryptionByDefault", {})
        if "SSEAlgorithm" in default:
            return str(default["SSEAlgorithm"])
    return "AES256"


def _conditions(given: Json, one: Object) -> None:
    if "IfMatch" in given and given["IfMatch"].strip('"') != one.etag.strip('"'):
        raise _error(
            "PreconditionFailed",
            "At least one of the pre-conditions you specified did not hold",
            412,
        )
    if "IfNoneMatch" in given and given["IfNoneMatch"].strip('"') == one.etag.strip('"'):
        raise _error("NotModified", "Not Modified", 304)


def _range(text: str, size: int) -> tuple[int, int]:
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text)
    if found is None or found.groups() == ("", ""):
        return 0, size
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if start >= size:
        raise _error("InvalidRange", "The requested range is not satisfiable", 416)
    return start, end


def _listed(key: str, one: Object) -> Json:
    return {
        "Key": key,
        "LastModified": one.modified,
        "ETag": one.etag,
        "Size": len(one.body),
        "StorageClass": "STANDARD",
    }


def _place(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        raise _error("InvalidArgument", "The continuation token provided is incorrect") from None
