"""What Fargate charges: arithmetic, the shipped table, and the Price List over a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapters.fargate import prices
from adapters.fargate.options import Options
from adapters.fargate.quote import quote
from adapters.fargate.sizes import Size
from bridge.errors import Unauthorized, Unavailable
from bridge.workload import Container, EmptyDir, HelperUse, Identity, Resources, Role, Workload

D = Decimal
OPTIONS = {
    "bucket": "a-bucket",
    "subnets": ["subnet-01234567"],
    "security_groups": ["sg-01234567"],
    "execution_role": "arn:aws:iam::123456789012:role/x",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("size", "machine", "storage", "public", "expected"),
    [
        (Size(256, 512), "amd64", 0, False, "0.0123425"),
        (Size(1024, 2048), "amd64", 0, False, "0.04937"),
        (Size(1024, 2048), "arm64", 0, False, "0.0395"),
        (Size(1024, 2048), "amd64", 21, False, "0.049481"),
        (Size(1024, 2048), "amd64", 200, True, "0.07435"),
        (Size(32768, 249856), "amd64", 0, False, "2.37994"),
    ],
)
def test_what_a_task_costs_in_virginia(
    size: Size, machine: str, storage: int, *, public: bool, expected: str
) -> None:
    table = prices.TABLE.known("us-east-1")
    assert table is not None
    assert table.hourly(size, machine, storage=storage, public_ip=public) == D(expected)


def test_what_has_no_price() -> None:
    assert prices.TABLE.known("eu-nowhere-1") is None
    table = prices.Prices(date(2026, 1, 1), "", {"amd64": D(1)}, {"amd64": D(1)})
    small = Size(256, 512)
    assert table.hourly(small, "arm64", storage=0, public_ip=False) is None
    assert table.hourly(small, "amd64", storage=30, public_ip=False) is None
    assert table.hourly(small, "amd64", storage=0, public_ip=True) is None
    assert table.hourly(small, "amd64", storage=0, public_ip=False) == D("0.75")


def pod(cpu: int = 100, memory: int = 2**20, disk: int = 0, **more: Any) -> Workload:
    one = Container("main", Role.MAIN, "busybox", ("true",), resources=Resources(
        {"cpu": cpu, "memory": memory}
    ))  # fmt: skip
    volumes = (EmptyDir("work", size_limit=disk),) if disk else ()
    return Workload(Identity("c", "n", "default", "p", "u"), (one,), volumes, **more)


def test_requested_is_not_billed() -> None:
    found = quote(pod(300, 2**31 + 1), Options(**OPTIONS, start_deadline=600), "us-east-1")
    assert (found.account, found.region) == ("123456789012", "us-east-1")
    assert found.requested == {"cpu": 300, "memory": 2**31 + 1}
    assert found.billed == {"cpu": 500, "memory": 3 * 2**30}
    assert found.hourly == D("0.033575")
    assert (found.least, found.around, found.priced_on) == (60, 660, date(2026, 11, 22))
    assert found.words == "Linux/x86"


def test_what_else_makes_up_the_price() -> None:
    options = Options(**OPTIONS, public_ip=True, architecture="arm64", capacity="spot")
    found = quote(pod(disk=30 * 2**30), options, "us-east-1")
    assert found.spot
    assert found.billed["ephemeral-storage"] == 30 * 2**30
    assert found.words.startswith(
        "Linux/ARM64, 10 GiB of storage beyond 20, a public IPv4 address, Spot, reckoned at"
    )
    assert found.hourly == D("0.03238") / 4 + D("0.00356") / 2 + 10 * D("0.000111") + D("0.005")


def test_a_pod_without_the_helper_needs_podbridge_for_its_end() -> None:
    for region in ("us-east-1", "eu-nowhere-1"):
        bare = quote(pod(helper=HelperUse.NEVER), Options(**OPTIONS), region)
        assert bare.words.endswith("; ends by itself only while podbridge runs")
        assert "ends by itself" not in quote(pod(), Options(**OPTIONS), region).words


def test_an_unknown_region_says_what_to_do() -> None:
    found = quote(pod(), Options(**OPTIONS), "eu-nowhere-1")
    assert found.hourly is None
    assert "podbridge plan --refresh-prices" in found.words


# The Price List.


def product(usage: str, price: str) -> str:
    """One product as the service gives it: a text of JSON."""
    dimension = {"unit": "hours", "beginRange": "0", "pricePerUnit": {"USD": price}}
    return json.dumps(
        {
            "product": {"productFamily": "Compute", "attributes": {"usagetype": usage}},
            "serviceCode": "AmazonECS",
            "terms": {"OnDemand": {"X.Y": {"priceDimensions": {"X.Y.Z": dimension}}}},
        }
    )


PAGES: dict[tuple[str, str], dict[str, Any]] = {
    ("AmazonECS", ""): {
        "PriceList": [
            product("EUC1-Fargate-vCPU-Hours:perCPU", "0.0465600000"),
            product("EUC1-Fargate-GB-Hours", "0.0051100000"),
            product("EUC1-Fargate-Windows-vCPU-Hours:perCPU", "9"),
            product("EUC1-SpotUsage-Fargate-vCPU-Hours:perCPU", "9"),
            product("EUC1-ECS-Anywhere-Instance-hours", "9"),
        ],
        "NextToken": "2",
    },
    ("AmazonECS", "2"): {
        "PriceList": [
            product("EUC1-Fargate-ARM-vCPU-Hours:perCPU", "0.0372500000"),
            product("EUC1-Fargate-ARM-GB-Hours", "0.0040900000"),
            product("EUC1-Fargate-EphemeralStorage-GB-Hours", "0.0001290000"),
        ],
    },
    ("AmazonVPC", ""): {
        "PriceList": [
            product("EUC1-PublicIPv4:IdleAddress", "9"),
            product("EUC1-PublicIPv4:InUseAddress", "0.0050000000"),
        ],
    },
}


class PriceList(BaseHTTPRequestHandler):
    """AWSPriceListService.GetProducts, in AWS's JSON 1.1."""

    answers: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = 200, {}
        self.answers["authorization"] = self.headers["Authorization"]
        if error := self.answers.get("error"):
            status, answer = 400, {"__type": error, "message": "no"}
        elif self.headers["X-Amz-Target"] != "AWSPriceListService.GetProducts":
            status, answer = 400, {"__type": "UnknownOperationException"}
        else:
            (only,) = asked["Filters"]
            assert (only["Type"], only["Field"]) == ("TERM_MATCH", "regionCode")
            answer = {"FormatVersion": "aws_v1", "PriceList": []}
            if only["Value"] == "eu-central-1":
                answer |= PAGES[asked["ServiceCode"], asked.get("NextToken", "")]
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def price_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The Price List on this host; what is put into it changes its answers."""
    answers: dict[str, Any] = {}
    handler = type("Handler", (PriceList,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    yield answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_prices_are_read_and_kept(price_list: dict[str, Any]) -> None:
    said = prices.refresh("eu-central-1")
    assert said.startswith("read 6 prices of eu-central-1 from the AWS Price List; kept in ")
    # Real keys are for AWS alone.
    assert "Credential=simulated/" in price_list["authorization"]
    table = prices.TABLE.known("eu-central-1")
    assert table is not None
    assert table.vcpu == {"amd64": D("0.04656"), "arm64": D("0.03725")}
    assert table.gigabyte == {"amd64": D("0.00511"), "arm64": D("0.00409")}
    assert (table.storage, table.address) == (D("0.000129"), D("0.005"))
    assert (table.read_on, table.source) == (datetime.now(UTC).date(), prices.PRICE_LIST)
    # Others stay as they are.
    virginia = prices.TABLE.known("us-east-1")
    assert virginia is not None
    assert virginia.read_on == date(2026, 11, 22)


def test_a_region_without_fargate(price_list: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match="has no prices of Fargate in eu-nowhere-1"):
        prices.refresh("eu-nowhere-1")
    assert not prices.TABLE.cache.exists()


def test_no_permission(price_list: dict[str, Any]) -> None:
    price_list["error"] = "AccessDeniedException"
    with pytest.raises(Unauthorized, match="pricing:GetProducts"):
        prices.refresh("eu-central-1")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"regions": {"us-east-1": {}}}', '{"regions": 1}']
)
def test_a_damaged_cache_is_none(text: str) -> None:
    prices.TABLE.cache.parent.mkdir(parents=True)
    prices.TABLE.cache.write_text(text)
    assert prices.TABLE.known("us-east-1") is not None


def test_the_newer_counts() -> None:
    table = {
        "read_on": "2026-01-01",
        "source": "old",
        "vcpu": {"amd64": "1"},
        "gigabyte": {"amd64": "1"},
    }
    prices.TABLE.cache.parent.mkdir(parents=True)
    prices.TABLE.cache.write_text(json.dumps({"regions": {"us-east-1": table}}))
    found = prices.TABLE.known("us-east-1")
    assert found is not None
    assert found.source != "old"
    table["read_on"] = "2027-01-01"
    prices.TABLE.cache.write_text(json.dumps({"regions": {"us-east-1": table}}))
    found = prices.TABLE.known("us-east-1")
    assert found is not None
    assert found.source == "old"
