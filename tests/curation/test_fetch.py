from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from curation import fetch
from curation.download import DownloadConfig
from curation.fetch import FetchError, WebFetcher, is_public, is_transient


@pytest.fixture
def fetcher(request: pytest.FixtureRequest) -> Iterator[WebFetcher]:
    made = WebFetcher(DownloadConfig(**{"timeout_s": 1.0, "retries": 0, "threads": 4, **getattr(request, "param", {})}))
    yield made
    made.close()


def _cause(fetcher: WebFetcher, url: str) -> str:
    with pytest.raises(FetchError) as failed:
        fetcher(url)
    return failed.value.cause


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::1",
    ],
)
def test_addresses_inside_are_not_public(host: str) -> None:
    assert not is_public(host)


@pytest.mark.parametrize("host", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_addresses_of_the_internet_are_public(host: str) -> None:
    assert is_public(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_private_addresses_are_refused_by_number_and_by_name(fetcher: WebFetcher, web: Any, host: str) -> None:
    assert _cause(fetcher, f"http://{host}:{web.server_address[1]}/image/1") == "private_address"
    assert not web.asked


def test_redirect_to_a_private_address_is_refused(
    fetcher: WebFetcher, web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "is_public", lambda host: host == "127.0.0.1")
    assert fetcher(f"{web.url}/move/1") == fetcher(f"{web.url}/image/1")
    assert _cause(fetcher, f"{web.url}/inwards/1") == "private_address"


@pytest.mark.parametrize("url", ["ftp://1.1.1.1/a.jpg", "file:///etc/passwd", "no address", "http://", "http://1.2.3/"])
def test_what_is_no_web_address_is_refused(fetcher: WebFetcher, url: str) -> None:
    assert _cause(fetcher, url) == "bad_address"


@pytest.mark.parametrize("fetcher", [{"allow_private": True}], indirect=True)
def test_deadline_ends_an_answer_that_never_stops_coming(fetcher: WebFetcher, web: Any) -> None:
    start = time.monotonic()
    assert _cause(fetcher, f"{web.url}/drip/1") == "timeout"
    # The server sends a byte every 50 ms: a limit per read would never be reached.
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "retries": 2}], indirect=True)
def test_only_transient_failures_are_tried_again(fetcher: WebFetcher, web: Any) -> None:
    assert _cause(fetcher, f"{web.url}/missing/1") == "http_404"
    assert _cause(fetcher, f"{web.url}/broken/1") == "http_500"
    assert web.asked == {"/missing/1": 1, "/broken/1": 3}


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "user_agent": "OtherBot/2.0"}], indirect=True)
def test_opt_out_for_our_name_is_honoured(fetcher: WebFetcher, web: Any) -> None:
    assert _cause(fetcher, f"{web.url}/noai-others/1") == "opted_out"


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "per_host": 2, "threads": 16}], indirect=True)
def test_a_host_is_asked_for_few_images_at_a_time_and_waiting_does_not_time_out(fetcher: WebFetcher, web: Any) -> None:
    with ThreadPoolExecutor(16) as pool:
        # 60 answers of 50 ms, two at a time, take 1.5 s: more than the deadline of one image.
        images = list(pool.map(lambda number: fetcher(f"{web.url}/paced/{number}"), range(60)))
    assert len(images) == 60
    assert web.most_at_once == 2


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "host_failures": 3, "timeout_s": 0.3}], indirect=True)
def test_a_host_that_answers_nothing_is_left_alone_and_others_are_not(
    fetcher: WebFetcher, web: Any, other_web: Any
) -> None:
    assert [_cause(fetcher, f"{web.url}/hang/{number}") for number in range(4)] == [*["timeout"] * 3, "host_down"]
    assert fetcher(f"{other_web.url}/image/1")
    assert web.asked.total() == 3


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "retries": 2, "timeout_s": 5.0}], indirect=True)
def test_a_host_that_asks_for_silence_is_not_asked_before(fetcher: WebFetcher, web: Any) -> None:
    assert _cause(fetcher, f"{web.url}/silent/1") == "http_429"
    begun = time.monotonic()
    with pytest.raises(FetchError, match=r"the host wants 3\d\d\d s of silence") as refused:
        fetcher(f"{web.url}/image/1")
    assert refused.value.retry_after_s > 3500
    assert time.monotonic() - begun < 2
    assert web.asked.total() == 1


@pytest.mark.parametrize("fetcher", [{"allow_private": True, "shard_deadline_s": 0.5}], indirect=True)
def test_after_the_shards_deadline_no_request_begins(fetcher: WebFetcher, web: Any) -> None:
    time.sleep(0.6)
    assert _cause(fetcher, f"{web.url}/image/1") == "out_of_time"
    assert not web.asked


def test_retry_after_is_a_number_or_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90))
    assert fetch._seconds("120") == 120
    assert 80 < fetch._seconds(soon) <= 90
    assert [fetch._seconds(text) for text in ("", "soon", "Wed, 21 Oct 2015 07:28:00 GMT")] == [0, 0, 0]


def test_causes_that_may_pass_are_told_from_those_that_stay() -> None:
    transient = ("timeout", "dns", "connection", "truncated", "host_down", "http_429", "http_500", "http_503")
    assert all(map(is_transient, transient))
    assert not any(map(is_transient, ("http_404", "opted_out", "not_an_image", "private_address", "tls", "redirects")))
