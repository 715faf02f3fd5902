/** Calls a deployed agent, and shows what comes back. */

import { h } from './dom.js';
import { milliseconds } from './format.js';
import { button, choice, field } from './ui.js';

/**
 * Makes the form.  It speaks to the agent as any client does, so within this page's own host.
 *
 * @param {Ploinky} cloud Knows which commands there are.
 * @param {{domain: string, path: string}} key
 */
export function tryOut(cloud, { domain, path }) {
  if (domain !== location.hostname) return elsewhere(domain, path);
  const form = h('div', {});
  cloud.get('deployments/commands', { domain, path }).then(
    ({ commands }) => form.replaceChildren(commandForm(path, commands)),
    () => form.replaceChildren(requestForm(path)), // it has none: a service, files, or something elsewhere
  );
  return form;
}

function elsewhere(domain, path) {
  const curl = `curl -H 'Host: ${domain}' ${location.origin}${path} -d '{"command": "...", "params": []}'`;
  return h('p', { class: 'quiet' }, 'A page can call its own host alone. From a terminal: ', h('code', {}, curl));
}

function commandForm(path, commands) {
  const command = choice('command', commands.map(({ name }) => name));
  const about = h('small', {});
  const params = h('textarea', { name: 'params', rows: 3, spellcheck: 'false', value: '["World"]' });
  const streamed = h('input', { type: 'checkbox', name: 'streamed' });
  const tell = () => { about.textContent = commands.find(({ name }) => name === command.value)?.about ?? ''; };
  command.addEventListener('change', tell);
  tell();
  const asked = () => {
    const list = JSON.parse(params.value || '[]');
    if (!Array.isArray(list)) throw new Error('The params are a JSON array, such as ["World"].');
    if (streamed.checked) {
      const query = new URLSearchParams({ command: command.value, params: JSON.stringify(list) });
      return [`${below(path)}/subscribe?${query}`, { headers: { Accept: 'text/event-stream' } }];
    }
    const body = JSON.stringify({ command: command.value, params: list });
    return [path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body }];
  };
  return caller(asked, [
    field('Command', 'command', { control: command }), about,
    field('Params, a JSON array', 'params', { control: params }),
    h('label', { class: 'row' }, streamed, 'Subscribe: each item that it yields is an event'),
  ]);
}

function requestForm(path) {
  const method = choice('method', ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD']);
  const rest = h('input', { name: 'rest', placeholder: '/health?full=1' });
  const body = h('textarea', { name: 'body', rows: 3, spellcheck: 'false' });
  const asked = () => [below(path) + rest.value, { method: method.value, ...(body.value && { body: body.value }) }];
  return caller(asked, [
    field('Method', 'method', { control: method }),
    field(`What follows ${path}`, 'rest', { control: rest }),
    field('Body', 'body', { control: body }),
  ]);
}

/** What a path begins with that leads below it. */
function below(path) {
  return path.replace(/\/$/, '');
}

/** Makes the button, and shows the answer; `asked` gives what `fetch` takes. */
function caller(asked, fields) {
  const told = h('p', { class: 'quiet', role: 'status' });
  const answer = h('pre', { class: 'answer', hidden: true });
  let underWay = null;
  const call = button('Call', async () => {
    underWay = new AbortController();
    const began = performance.now();
    answer.textContent = '';
    answer.hidden = false;
    try {
      const [url, options] = asked();
      const got = await fetch(url, { ...options, signal: underWay.signal });
      const id = got.headers.get('X-Request-Id') ?? '';
      const status = () => `${got.status} ${got.statusText} after ${milliseconds(performance.now() - began)}, request ${id}`;
      told.textContent = status();
      await show(got, answer);
      told.textContent = status();
    } catch (error) {
      told.textContent = underWay.signal.aborted ? 'Given up.' : error.message;
    }
  }, { kind: 'main' });
  const stop = h('button', { type: 'button', click: () => underWay?.abort() }, 'Give up');
  return h('div', { class: 'fields' }, fields, h('p', { class: 'row' }, call, stop), told, answer);
}

async function show(got, answer) {
  const decoder = new TextDecoder();
  const reader = got.body?.getReader();
  for (let piece = await reader?.read(); piece && !piece.done; piece = await reader.read()) {
    answer.append(decoder.decode(piece.value, { stream: true }));
  }
  if (got.headers.get('Content-Type')?.startsWith('application/json')) {
    try {
      answer.textContent = JSON.stringify(JSON.parse(answer.textContent), null, 2);
    } catch {
      // it stays as it came
    }
  }
}
