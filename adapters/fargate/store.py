"""Orders and payloads as objects in S3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from adapters.fargate import names, order
from adapters.fargate.clients import Clients
from adapters.fargate.errors import Conflict
from adapters.fargate.names import Json
from adapters.fargate.options import Options
from adapters.fargate.order import Order
from bridge.errors import NotFound, Unavailable
from bridge.groups.pods import mark

_PAGE = 1000
"""Objects that can be deleted with one call."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An order as it is stored."""

    order: Order
    tag: str
    """Of its content: a change names the one that it changes."""


class Store:
    """One owner's objects in the bucket. Errors as of the clients' calls."""

    def __init__(self, clients: Clients, options: Options) -> None:
        self._clients = clients
        self._owner = options.owner
        self._bucket = options.bucket
        self._encryption: Json = {}
        if options.kms_key:
            self._encryption = {
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": options.kms_key,
                "BucketKeyEnabled": True,
            }

    async def open(self) -> None:
        """Whether the bucket is there, and is ours to use."""
        await self._clients.call("s3", "head_bucket", Bucket=self._bucket)

    async def create(self, made: Order) -> Kept | None:
        """Keeps a new order; None: the pod has one already."""
        try:
            return await self._put_order(made, IfNoneMatch="*")
        except Conflict:
            return None

    async def change(self, kept: Kept, made: Order) -> Kept:
        """Puts `made` in its place. Conflict: somebody else has changed it."""
        return await self._put_order(made, IfMatch=kept.tag)

    async def _put_order(self, made: Order, **condition: str) -> Kept:
        key = names.order_key(self._owner, mark(made.identity.key))
        tag = await self._put(key, order.dump(made), **condition)
        return Kept(made, tag)

    async def read(self, mark_: str) -> Kept | None:
        """The order of that mark; None: there is none."""
        key = names.order_key(self._owner, mark_)
        try:
            answer = await self._clients.read_object(Bucket=self._bucket, Key=key)
        except NotFound:
            return None
        return Kept(order.load(answer.content), answer.tag)

    async def marks(self) -> set[str]:
        """The marks of all orders."""
        prefix = names.order_prefix(self._owner)
        return {one.removeprefix(prefix).removesuffix(".json") async for one in self._keys(prefix)}

    async def payloads(self) -> set[str]:
        """The keys of all payloads."""
        return {one async for one in self._keys(names.payload_prefix(self._owner))}

    async def put_payloads(self, payloads: Mapping[str, bytes]) -> None:
        """Stores environments."""
        async with asyncio.TaskGroup() as tasks:
            for key, content in payloads.items():
                tasks.create_task(self._put(key, content))

    async def forget_order(self, mark_: str) -> None:
        """Removes an order, which may be gone."""
        await self._remove([names.order_key(self._owner, mark_)])

    async def forget_payloads(self, keys: Iterable[str]) -> None:
        """Removes environments, which may be gone."""
        await self._remove(list(keys))

    async def _put(self, key: str, content: bytes, **condition: str) -> str:
        answer = await self._clients.call(
            "s3",
            "put_object",
            Bucket=self._bucket,
            Key=key,
            Body=content,
            **self._encryption,
            **condition,
        )
        return str(answer.get("ETag", ""))

    async def _remove(self, keys: list[str]) -> None:
        for at in range(0, len(keys), _PAGE):
            some = [{"Key": key} for key in keys[at : at + _PAGE]]
            answer = await self._clients.call(
                "s3",
                "delete_objects",
                Bucket=self._bucket,
                Delete={"Objects": some, "Quiet": True},
            )
            for one in answer.get("Errors") or ():
                words = f"{one.get('Key')}: {one.get('Code')}: {one.get('Message')}"
                raise Unavailable(f"s3:DeleteObjects: {words}")

    async def _keys(self, prefix: str) -> AsyncIterator[str]:
        more: dict[str, str] = {}
        while True:
            answer = await self._clients.call(
                "s3", "list_objects_v2", Bucket=self._bucket, Prefix=prefix, **more
            )
            for one in answer.get("Contents") or ():
                yield str(one["Key"])
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}
