"""``GET /management``: one page that needs nothing from elsewhere.

It lists what is deployed and says how to use ``p-cli``.  It is data: the script
in it speaks to the API as any client does.
"""

from __future__ import annotations

import base64
import hashlib

from ploinky.api.answers import Answer, as_html
from ploinky.api.endpoints import Endpoint
from ploinky.api.requests import Call

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid #8884;
  vertical-align: top; overflow-wrap: anywhere }
input, button { font: inherit; padding: .4rem .6rem }
input { width: 24rem; max-width: 100% }
pre { background: #8881; padding: .8rem; overflow-x: auto }
.trouble { color: #c22 } [hidden] { display: none }
"""

_SCRIPT = """
'use strict';
const $ = (id) => document.getElementById(id);
const show = (id, on) => { $(id).hidden = !on; };
const say = (text) => { $('said').textContent = text; };

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method, headers: body ? { 'Content-Type': 'application/json' } : {},
    body: body && JSON.stringify(body),
  });
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.message);
  return document;
}

function row(deployment) {
  const line = document.createElement('tr');
  const release = deployment.release ? '#' + deployment.release : '';
  const trouble = deployment.error ? deployment.error.message : deployment.step;
  for (const text of [deployment.domain + deployment.path, deployment.agent,
                      deployment.status, release, trouble || '']) {
    line.append(Object.assign(document.createElement('td'), { textContent: text }));
  }
  if (deployment.error) line.lastChild.className = 'trouble';
  return line;
}

async function look() {
  try {
    const who = await ask('GET', '/management/api/check-auth');
    show('in', !who.authenticated);
    show('out', who.authenticated);
    if (!who.authenticated) return;
    $('who').textContent = who.userId + ' (' + who.role + ')';
    const { deployments } = await ask('GET', '/management/api/deployments');
    $('rows').replaceChildren(...deployments.map(row));
    show('none', !deployments.length);
    say('');
  } catch (error) { say(error.message); }
}

$('login').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    await ask('POST', '/auth', { command: 'login', params: [$('key').value.trim()] });
    $('key').value = '';
    await look();
  } catch (error) { say(error.message); }
});
$('logout').addEventListener('click', async () => {
  try { await ask('POST', '/auth', { command: 'logout' }); } catch (error) { say(error.message); }
  await look();
});
look();
setInterval(() => { if (!$('out').hidden && !document.hidden) look(); }, 5000);
"""

_BODY = """
<h1>Ploinky Cloud</h1>
<p id="said" class="trouble" role="status"></p>
<form id="login">
  <div id="in" hidden>
    <p><label for="key">API key</label><br>
    <input id="key" type="password" autocomplete="current-password" required>
    <button>Log in</button></p>
    <p>No key yet? <code>p-cli cloud init</code> on the server's machine makes the first one.</p>
  </div>
</form>
<div id="out" hidden>
  <p>Logged in as <span id="who"></span>. <button id="logout" type="button">Log out</button></p>
  <h2>Deployments</h2>
  <table>
    <thead><tr><th>Where</th><th>Agent</th><th>Status</th><th>Release</th><th></th></tr></thead>
    <tbody id="rows"></tbody>
  </table>
  <p id="none" hidden>Nothing is deployed yet.</p>
</div>
<h2>From a terminal</h2>
<pre>p-cli cloud connect http://localhost:8000
p-cli cloud login &lt;API_KEY&gt;
p-cli cloud repo add Demo https://host/user/repository.git
p-cli cloud deploy localhost /demo demo
p-cli cloud call /demo hello World
p-cli cloud --help</pre>
<noscript><p>The list of deployments needs JavaScript; <code>p-cli cloud deployments</code>
does not.</p></noscript>
"""


class PageRoutes:
    """The page, and the way to it from ``/``."""

    def __init__(self) -> None:
        html = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>Ploinky Cloud</title><style>{_STYLE}</style></head>"
            f"<body>{_BODY}<script>{_SCRIPT}</script></body></html>\n"
        )
        policy = (
            f"default-src 'none'; script-src {digest(_SCRIPT)}; style-src {digest(_STYLE)};"
            " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )
        self._page = as_html(html, fields=(("Content-Security-Policy", policy),))

    def endpoints(self) -> list[Endpoint]:
        """Give the routes."""
        return [
            Endpoint("page", "GET", "/management", self._show, gives="text/html"),
            Endpoint("root", "GET", "/", self._lead, gives="text/html", statuses=(302,)),
        ]

    async def _show(self, call: Call) -> Answer:
        """Show the page."""
        return self._page

    async def _lead(self, call: Call) -> Answer:
        """Lead to the page, where nothing is deployed at ``/``."""
        return as_html("", status=302, fields=(("Location", "/management"),))


def digest(text: str) -> str:
    """Name an inline script or style for a ``Content-Security-Policy``."""
    encoded = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{encoded}'"
