"""The dashboard in a real browser: what a person sees, types and clicks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By

from tests.functional.conftest import SECRECY, Server, git_repository, until

pytestmark = [
    pytest.mark.program("chromium"),
    pytest.mark.program("chromedriver"),
    pytest.mark.program("node"),
]

MARKUP = "<img src=x onerror=\"document.title='taken over'\">"

AGENT = {
    "app/manifest.json": json.dumps({"engine": "python", "about": f"Greets {MARKUP}"}),
    "app/handlers/hello.py": f"""'''Greets whoever is named.'''
def handle(params, context):
    print({MARKUP!r}, "greets", params)
    return {{"message": f"Hello {{params[0]}}"}}
""",
    "app/handlers/counts.py": "def handle(params, context):\n    yield from ({'left': n} for n in params)\n",
    "app/handlers/throws.py": "def handle(params, context):\n    raise ValueError('no such luck')\n",
}


class Browser:
    """A browser, and somebody who looks for words rather than for elements."""

    def __init__(self, driver: webdriver.Chrome, server: Server) -> None:
        self.driver = driver
        self.server = server

    def open(self, place: str = "") -> None:
        """Open a place of the dashboard, as from a bookmark."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.server.url}/management#/{place}")

    def log_in(self, key: str) -> None:
        """Type a key at the door."""
        self.type("API key", key)
        self.click("Log in")

    @property
    def text(self) -> str:
        """All that can be read, also in what scrolls and in fields."""
        return str(
            self.driver.execute_script(
                "return document.body.innerText + [...document.querySelectorAll('pre, summary')]"
                ".map((each) => each.textContent).join('\\n')"
            )
        )

    def sees(self, words: str) -> bool:
        """Tell whether words are there."""
        return words in self.text

    def until(self, words: str) -> None:
        """Wait for words."""
        try:
            until(lambda: self.sees(words), f"{words!r} is shown")
        except AssertionError as error:
            raise AssertionError(f"{error}; there is: {self.text}") from None

    def visit(self, label: str) -> None:
        """Click one of the links at the top."""
        self._once_there(f"//nav/a[.='{label}']", lambda found: found.click())

    def click(self, label: str, within: str = "") -> None:
        """Click a button or link, perhaps of the row with certain words in it."""
        row = f"//tr[contains(., '{within}')]" if within else ""
        self._once_there(f"{row}{self._clickable(label)}", lambda found: found.click())

    def offers(self, label: str) -> bool:
        """Tell whether there is such a button or link."""
        return bool(self.driver.find_elements(By.XPATH, self._clickable(label)))

    def answer(self, label: str) -> None:
        """Click a button of the question that is asked."""
        self._once_there(f"//dialog[@open]//button[.='{label}']", lambda found: found.click())

    def type(self, label: str, text: str) -> None:
        """Fill in a field anew."""
        self._once_there(self._field(label), lambda found: (found.clear(), found.send_keys(text)))

    def tick(self, label: str) -> None:
        """Tick a box."""
        self._once_there(self._field(label), lambda found: found.click())

    def choose(self, label: str, option: str) -> None:
        """Choose from a list."""
        self._once_there(f"{self._field(label)}/option[.='{option}']", lambda found: found.click())

    def value(self, label: str) -> str:
        """What stands in a field."""
        return str(self._once_there(self._field(label), lambda found: found.get_property("value")))

    def complaints(self) -> list[str]:
        """What the browser itself found wrong: errors of scripts, broken policies."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE" and entry["source"] != "network"
        ]

    @staticmethod
    def _clickable(label: str) -> str:
        kinds = "self::button or (self::a and not(parent::nav))"
        return f"//*[({kinds}) and normalize-space(.)='{label}' and not(@disabled)]"

    @staticmethod
    def _field(label: str) -> str:
        kinds = "self::input or self::textarea or self::select"
        named = (
            f"@aria-label='{label}' or ancestor::label[starts-with(normalize-space(.), '{label}')]"
        )
        return f"//*[({kinds}) and ({named})]"

    def _once_there(self, path: str, act: Any) -> Any:
        """Act on the first that is shown; a view may be drawn anew under our hands."""
        done: list[Any] = []

        def tried() -> bool:
            try:
                for found in self.driver.find_elements(By.XPATH, path):
                    if found.is_displayed() or found.tag_name == "option":
                        done.append(act(found))
                        return True
            except StaleElementReferenceException:
                pass
            return False

        until(tried, f"{path} is there")
        return done[0]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests: it takes seconds to start."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run",
        "disable-component-update", "disable-sync", "disable-dev-shm-usage", "window-size=1280,1600",
        f"user-data-dir={tmp_path_factory.mktemp('browser')}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a repository that has an agent, which is not deployed."""
    server = Server(tmp_path_factory.mktemp("server"), "process")
    try:
        server.start()
        url = git_repository(tmp_path_factory.mktemp("repository") / "agents", AGENT)
        answer = server.api("POST", "repositories", {"name": "Agents", "url": url})
        assert answer.status_code == 200, answer.text
        yield server
    finally:
        server.destroy()


@pytest.fixture
def browser(chrome: webdriver.Chrome, served: Server) -> Iterator[Browser]:
    """Somebody before the door.  Nothing may have gone wrong that only the browser saw."""
    found = Browser(chrome, served)
    chrome.delete_all_cookies()
    chrome.get_log("browser")
    yield found
    assert found.complaints() == []


@pytest.fixture
def admin(browser: Browser) -> Browser:
    """An admin who has come in."""
    browser.open()
    browser.log_in(browser.server.key)
    browser.until("Log out")
    return browser


@pytest.fixture
def deployed(served: Server) -> Iterator[str]:
    """The agent, deployed; gives its path."""
    body = {"domain": "localhost", "path": "/app", "agent": "app"}
    answer = served.api("POST", "deployments", body)
    assert answer.status_code == 200, answer.text
    yield "/app"
    served.api("DELETE", "deployments", {"domain": "localhost", "path": "/app"})


def test_a_wrong_key_does_not_open_the_door(browser: Browser) -> None:
    """It says so, and asks again."""
    browser.open()
    browser.log_in("pk_wrong")
    browser.until("this API key is not valid")
    assert not browser.sees("Log out")


def test_an_agent_is_deployed_called_and_removed(admin: Browser) -> None:
    """The whole way, without a terminal."""
    admin.visit("Repositories")
    admin.click("Deploy", within="Agents")
    admin.until("Variables")
    assert admin.value("Agent") == "Agents/app"
    admin.type("Path", "/greets")
    admin.click("Deploy")
    admin.until("localhost/greets serves")
    admin.until("running")
    admin.choose("Command", "hello")
    admin.until("Greets whoever is named.")
    admin.type("Params", '["<b>World</b>"]')
    admin.click("Call")
    admin.until('"message": "Hello <b>World</b>"')
    admin.until("200 OK after")
    admin.until(f"{MARKUP} greets ['<b>World</b>']")  # what it printed, as it came
    admin.choose("Command", "counts")
    admin.type("Params", "[2, 1]")
    admin.click("Call")
    admin.until('"left": 1')
    admin.tick("Subscribe")
    admin.click("Call")
    admin.until("event: end")
    admin.click("Remove")
    admin.answer("Remove")
    admin.until("Nothing is deployed yet.")
    assert requests.post(f"{admin.server.url}/greets", json={}, timeout=10).status_code == 404


def test_markup_is_text(admin: Browser, deployed: str) -> None:
    """Of agents, their output and their errors: nothing of it runs."""
    for place in ("repositories", "deployments", f"deployments/localhost/%2F{deployed[1:]}"):
        admin.open(place)
        admin.until("app")
    admin.choose("Command", "hello")
    admin.click("Call")
    admin.until(f"{MARKUP} greets")
    assert "taken over" not in admin.driver.title


def test_what_fails_says_why(admin: Browser, deployed: str) -> None:
    """A call's error as the agent gave it; a deploy's with its step's own words."""
    admin.open("deployments/localhost/%2Fapp")
    admin.choose("Command", "throws")
    admin.click("Call")
    admin.until("no such luck")
    admin.until("500")
    admin.open("deploy")
    admin.type("Agent", "nobody")
    admin.type("Path", "/nobody")
    admin.click("Deploy")
    admin.until("nobody")
    admin.until("(request ")


def test_what_happens_is_shown_as_it_happens(admin: Browser) -> None:
    """Without a reload: what somebody else deploys, stops and calls."""
    admin.visit("Deployments")
    admin.until("Nothing is deployed yet.")
    server = admin.server
    key = {"domain": "localhost", "path": "/other"}
    assert server.api("POST", "deployments", {**key, "agent": "app"}).status_code == 200
    admin.until("localhost/other")
    admin.until("running")
    assert server.api("POST", "deployments/stop", key).status_code == 200
    admin.until("stopped")
    assert server.api("DELETE", "deployments", key).status_code == 200
    admin.until("Nothing is deployed yet.")


def test_a_configuration_is_edited(admin: Browser, deployed: str) -> None:
    """As a new release; a mistake changes nothing, and the one before can be served again."""
    admin.open("deployments/localhost/%2Fapp")
    admin.type("Settings", '{"timeout": "soon"}')
    admin.click("Save as a new release")
    admin.until("timeout")
    admin.type("Settings", '{"timeout": 7, ')
    admin.click("Save as a new release")
    admin.until("The settings are no JSON")
    admin.type("Settings", '{"engine": "python", "timeout": 7}')
    admin.click("Save as a new release")
    admin.until("Release 2 serves.")
    found = admin.server.api("GET", f"deployments/localhost/{'%2Fapp'}").json()
    assert (found["release"], found["settings"]["timeout"]) == (2, 7)
    admin.click("Roll back", within="#1")
    admin.until("Release 1 serves again.")


def test_two_editors_do_not_overwrite_each_other(admin: Browser, deployed: str) -> None:
    """Whoever comes second is told."""
    admin.open("deployments/localhost/%2Fapp")
    assert admin.value("Settings")
    key = {"domain": "localhost", "path": "/app"}
    assert admin.server.api("POST", "deployments/update", {**key, "timeout": 9}).status_code == 200
    admin.type("Settings", '{"engine": "python", "timeout": 7}')
    admin.click("Save as a new release")
    admin.until("has changed")


def test_a_key_is_made_and_taken_back(admin: Browser) -> None:
    """It is shown once, works, and then does not."""
    admin.visit("Keys")
    admin.type("Name", "ci")
    admin.choose("Role", "viewer")
    admin.click("Make a key")
    admin.until("it is not shown again")
    key = admin.driver.find_element(By.CSS_SELECTOR, "dialog code").text
    SECRECY.note("a key made in the dashboard", key)
    admin.answer("Close")
    fields, url = {"X-API-Key": key}, f"{admin.server.url}/management/api/deployments"
    assert requests.get(url, headers=fields, timeout=10).status_code == 200
    admin.click("Take back", within="ci")
    admin.answer("Take back")
    admin.until("ci opens nothing any more.")
    assert requests.get(url, headers=fields, timeout=10).status_code == 401


def test_a_setting_is_changed(admin: Browser) -> None:
    """At once, or it says that it takes a restart; what is no value is refused with the reason."""
    admin.visit("Settings")
    admin.type("releasesKept", "7")
    admin.click("Save", within="releasesKept")
    admin.until("releasesKept holds now.")
    admin.type("releasesKept", "many")
    admin.click("Save", within="releasesKept")
    admin.until("releasesKept: ")
    admin.click("Default", within="releasesKept")
    until(
        lambda: admin.server.api("GET", "settings").json()["settings"]["releasesKept"] == 5,
        "it is the default again",
    )


def test_every_view_has_something_to_show(admin: Browser, deployed: str) -> None:
    """And is shown without an error."""
    for place, words in {
        "": "Calls a second",
        "deployments": "localhost/app",
        "deploy": "Branch, tag or commit",
        "repositories": "Agents in them",
        "tasks": "There are none.",
        "logs": "the server answers on port",
        "keys": "Sessions",
        "settings": "taskTimeout",
        "audit": "deployments.deploy",
    }.items():
        admin.open(place)
        admin.until(words)
        assert not admin.driver.find_elements(
            By.CSS_SELECTOR, "main .live > .trouble:not([hidden])"
        )
    admin.click("Verify")
    admin.until("entries are as they were written")


def test_a_viewer_sees_and_changes_nothing(browser: Browser, deployed: str) -> None:
    """There is nothing to click that would be refused; a key with a scope sees no more than that."""
    wanted = {"name": "eve", "role": "viewer", "scope": ["localhost/app"]}
    key = browser.server.api("POST", "keys", wanted).json()["apiKey"]
    try:
        browser.open("deployments/localhost/%2Fapp")
        browser.log_in(key)
        browser.until("Releases")
        browser.until("running")
        links = [each.text for each in browser.driver.find_elements(By.CSS_SELECTOR, "nav a")]
        assert links == ["Overview", "Deployments", "Repositories", "Tasks"]
        for label in ("Restart", "Stop", "Scale", "Remove", "Save as a new release", "Roll back"):
            assert not browser.offers(label)
    finally:
        browser.server.api("DELETE", "keys/eve")
    browser.until("API key")  # with its key the session is over, and the door is shown


def test_a_restart_of_the_server_loses_nothing_that_was_typed(
    admin: Browser, deployed: str
) -> None:
    """The page goes on by itself once the server is there again."""
    admin.open("deployments/localhost/%2Fapp")
    admin.type("Params", '["still here"]')
    admin.server.stop()
    admin.server.start()
    key = {"domain": "localhost", "path": "/app"}
    assert admin.server.api("POST", "deployments/stop", key).status_code == 200
    admin.until("stopped")
    assert admin.value("Params") == '["still here"]'
    assert admin.server.api("POST", "deployments/start", key).status_code == 200
    admin.choose("Command", "hello")
    admin.click("Call")
    admin.until(f"{MARKUP} greets ['still here']")


def test_a_log_out_ends_the_session(admin: Browser) -> None:
    """For whoever has the cookie, not for this page alone."""
    cookie = admin.driver.get_cookie("authorizationToken")["value"]
    SECRECY.note("a session of the dashboard", cookie)
    admin.click("Log out")
    admin.until("API key")
    url = f"{admin.server.url}/management/api/deployments"
    cookies = {"authorizationToken": cookie}
    assert requests.get(url, cookies=cookies, timeout=10).status_code == 401
