"""kill -9 in the middle of a training: of the server, and of the process that trains."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.e2e.explorer.growing import MORE, SETTINGS, fill_train_form, job_of, steps_of, wait_for_step, watch_steps
from tests.e2e.explorer.serving import Server, browsing, marks, serving, visiting, wait_for

pytestmark = [pytest.mark.slow, *marks]


@pytest.fixture(scope="module")
def own_server(new_home: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that only the tests here kill, on a home of its own."""
    with serving(new_home(), tmp_path_factory.mktemp("log") / "server.log") as started:
        yield started


@pytest.fixture(scope="module")
def browser(own_server: Server) -> Iterator[Browser]:
    """As elsewhere, without the other server."""
    with browsing() as opened:
        yield opened


def start_training(page: Page, name: str) -> str:
    """Queue a training of some seconds on stored activations and wait until it is seen to move.

    Returns:
        The job's id.
    """
    page.goto("/train")
    fill_train_form(page, SETTINGS | {"name": name, "epochs": "50"}, MORE | {"checkpoint every steps": "100"})
    page.get_by_label("Evaluate in the model afterwards").uncheck()
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/jobs/*")
    watch_steps(page)
    wait_for_step(page, 1)
    return job_of(page)


def once_in_the_library(server: Server, name: str) -> bool:
    return [one["id"] for one in server.get("/api/sae/list_models")["models"]].count(name) == 1


def pid_of(server: Server, job: str) -> int:
    """The process that works on a job."""
    return int(server.job(job)["worker"].rsplit(":", 1)[1])


def test_a_killed_server_is_noticed_and_the_job_goes_on_without_it(browser, own_server):
    with visiting(browser, own_server.address) as seen:
        page = seen.page
        job = start_training(page, "through-a-restart")
        pid = pid_of(own_server, job)
        own_server.kill()
        said = page.locator("#link")
        expect(said).to_contain_text("The server does not answer")
        last = steps_of(page)[-1]
        os.kill(pid, 0)  # it is still there
        own_server.start()
        expect(said).to_have_text("Live.")
        assert wait_for_step(page, last + 1) > last
        expect(said).to_have_text("It is finished.", timeout=120_000)
        expect(page.get_by_role("link", name="Open the SAE")).to_be_visible()
        ended = own_server.job(job)
        assert (ended["state"], ended["attempt"], pid_of(own_server, job)) == ("finished", 1, pid)
        assert once_in_the_library(own_server, "through-a-restart")
        assert all("net::" in fault for fault in seen.faults), seen.faults
        seen.faults.clear()


def test_a_killed_training_goes_on_from_its_checkpoint(browser, own_server):
    with visiting(browser, own_server.address) as seen:
        page = seen.page
        job = start_training(page, "through-a-kill")
        wait_for_step(page, 150)
        os.kill(pid_of(own_server, job), signal.SIGKILL)
        attempt = page.locator("#live .facts div", has=page.get_by_text("attempt", exact=True)).locator("dd")
        expect(attempt).to_have_text("2", timeout=60_000)
        assert wait_for_step(page, steps_of(page)[-1] + 1)
        expect(page.locator("#link")).to_have_text("It is finished.", timeout=120_000)
        ended = own_server.job(job)
        assert (ended["state"], ended["attempt"]) == ("finished", 2)
        assert any("step" in note and "esum" in note for note in ended["notes"]), ended["notes"]
        assert once_in_the_library(own_server, "through-a-kill")
        wait_for(lambda: own_server.get("/api/health")["status"] == "ok")
