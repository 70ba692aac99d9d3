"""The page of a distributed deployment: signed in by a key, photos straight to S3 and back from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import servers
from tests.e2e.cli.commands import captionfleet, command, environment
from tests.e2e.page.serving import Watch, choose, many, upload, wait_for_state
from tests.processes import Process, reserve_port, scratch_folder, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.servers import S3, Postgres, Redis


class Deployment:
    """API and worker processes on real servers, and keys to them."""

    def __init__(self, database_url: str, redis: Redis, s3: S3, port: int) -> None:
        self.url = f"http://localhost:{port}"
        self.s3 = s3
        self._folder = scratch_folder("page")
        self._settings = s3.environment | {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis.url,
            "CAPTIONFLEET_BUCKET": s3.bucket,
            "CAPTIONFLEET_API_WORKERS": "1",
        }
        variables = environment(self._folder, **self._settings)
        words = (["api", "--port", str(port)], ["worker"])
        self.processes = [
            Process([command(), *those], environment=variables, folder=self._folder) for those in words
        ]

    def run(self, *arguments: str) -> str:
        """Run a command with the deployment's settings and return what it prints."""
        ran = captionfleet(self._folder, *arguments, **self._settings)
        assert ran.status == 0, ran.complaints
        return ran.output.strip()


@pytest.fixture(scope="module")
def deployment(postgres: Postgres) -> Iterator[Deployment]:
    """A deployment whose bucket lets its page in."""
    port = reserve_port()
    with (
        postgres.database() as url,
        servers.run_redis() as redis,
        servers.run_s3("--allow-origin", f"http://localhost:{port}") as s3,
    ):
        deployment = Deployment(url, redis, s3, port)
        deployment.run("migrate")
        try:
            for process in deployment.processes:
                process.start()
            yield deployment
        finally:
            for process in deployment.processes:
                process.kill()


def test_a_key_opens_the_page_and_photos_go_straight_to_the_bucket(
    page: Page, watch: Watch, deployment: Deployment, photos: list[Path]
) -> None:
    watch.expected = ("status of 401",)
    key = deployment.run("keys", "create", "--owner", "ada").split()[-1]
    puts: list[str] = []
    page.on("request", lambda request: puts.append(request.url) if request.method == "PUT" else None)
    wait_until(lambda: _opens(page, deployment.url), 60, "the page")
    field = page.get_by_label("API key")
    field.wait_for()
    assert field.evaluate("field => field === document.activeElement")
    _sign_in(page, "wrong")
    page.get_by_role("alert").filter(has_text="This key was not accepted").wait_for()
    _sign_in(page, key)

    choose(page, *photos[:3], upload("name with spaces & ümläuts.jpg", many(1)[0]["buffer"]))
    wait_for_state(page, "Finished · 4 of 4 photos captioned")
    assert len(puts) == 4
    assert all(url.startswith(f"{deployment.s3.endpoint}/{deployment.s3.bucket}/uploads/") for url in puts)
    wait_until(lambda: page.locator(".card canvas").count() == 4, what="the photos, back from the bucket")
    cookies = page.context.cookies()
    assert [(c["httpOnly"], c["sameSite"]) for c in cookies] == [(True, "Strict")]
    assert key not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")

    page.get_by_label("Edit the caption of").first.click()
    page.get_by_label("Caption", exact=True).fill("Mine")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Caption saved.").wait_for()
    page.reload()
    page.locator(".card .badge").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download: CSV").click()
    assert b"Mine" in waiting.value.path().read_bytes()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.locator(".card").count() == 0
    assert page.context.cookies() == []
    watch.check(deployment.url, deployment.s3.endpoint)


def test_a_folder_of_a_bucket_is_typed_and_captioned(
    page: Page, watch: Watch, deployment: Deployment, photos: list[Path]
) -> None:
    watch.expected = ("status of 401", "status of 403")
    bucket, s3 = deployment.s3.new_bucket(), deployment.s3.client()
    for key in ("2024/dog.jpg", "2024/farm/cow.jpg", "2024-old/cat.jpg"):
        s3.upload_file(str(photos[0].with_name("dog.jpg")), bucket, key)
    s3.put_object(Bucket=bucket, Key="2024/notes.txt", Body=b"not a photo")
    s3.close()
    key = deployment.run("keys", "create", "--owner", "bob", "--grant", f"s3://{bucket}/2024/").split()[-1]
    wait_until(lambda: _opens(page, deployment.url), 60, "the page")
    _sign_in(page, key)

    _name(page, f"s3://{bucket}/2024-old")
    page.get_by_role("alert").filter(has_text="The server does not allow this.").wait_for()
    page.get_by_role("button", name="Never mind").click()
    _name(page, f"s3://{bucket}/2024")
    page.wait_for_url("**/#/jobs/*")
    wait_for_state(page, "Finished · 2 of 2 photos captioned")
    captions = [text.strip() for text in page.locator(".card .caption").all_text_contents()]
    assert captions == ["a brown and black dog is running through the grass"] * 2
    assert page.locator("h1").inner_text() == f"s3://{bucket}/2024"
    wait_until(lambda: page.locator(".card img").count() == 2, what="the photos, from their own bucket")
    watch.check(deployment.url, deployment.s3.endpoint)


def test_signing_out_ends_a_session_that_another_tab_began(
    page: Page, watch: Watch, deployment: Deployment
) -> None:
    watch.expected = ("status of 401",)
    key = deployment.run("keys", "create", "--owner", "eve").split()[-1]
    wait_until(lambda: _opens(page, deployment.url), 60, "the page")
    _sign_in(page, key)
    page.get_by_role("button", name="Sign out").wait_for()
    other = page.context.new_page()
    other.goto(deployment.url)
    other.get_by_role("button", name="Sign out").click()
    _sign_in(other, key)
    other.get_by_role("button", name="Sign out").wait_for()

    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.context.cookies() == []
    other.reload()
    other.get_by_label("API key").wait_for()
    other.close()
    watch.check(deployment.url)


def _name(page: Page, address: str) -> None:
    page.get_by_role("button", name="Web or S3 addresses").click()
    page.get_by_label("Addresses, one a line").fill(address)
    page.get_by_role("button", name="Caption them").click()


def _opens(page: Page, url: str) -> bool:
    from playwright.sync_api import Error

    try:
        return page.goto(url).ok
    except Error:
        return False


def _sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
