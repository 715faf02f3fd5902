/** Who may do what: keys, and the sessions that were begun with them. */

import { badge, h, table } from '../dom.js';
import { ago, moment } from '../format.js';
import { Live, section, view } from '../live.js';
import { button, choice, field, form, tell } from '../ui.js';

const DAY_SECONDS = 86400;

export function keys({ cloud, role: ours }) {
  const list = new Live(() => cloud.all('keys'), drawKeys);
  const sessions = new Live(() => cloud.all('sessions'), drawSessions);

  function drawKeys(found) {
    return table(['Name', 'Role', 'Scope', 'Expires', 'Last used', ''], found.map((key) => [
      key.name,
      badge(key.role),
      key.scope.join(', ') || 'everything',
      key.endsWith ? `with ${key.endsWith}` : moment(key.expiresAt),
      ago(key.lastUsedAt),
      button('Take back', async () => {
        await cloud.delete('keys', { name: key.name });
        await Promise.all([list.refresh(), sessions.refresh()]);
        return `${key.name} opens nothing any more.`;
      }, { ask: `Take back ${key.name}, with its sessions and all keys made with it?`, kind: 'danger' }),
    ]));
  }

  function drawSessions(found) {
    return table(['Key', 'Role', 'Since', 'Last used', 'Ends', ''], found.map((one) => [
      one.key + (one.isThisOne ? ' (this one)' : ''), badge(one.role), moment(one.createdAt), ago(one.lastUsedAt),
      moment(one.expiresAt),
      !one.isThisOne && button('End', async () => {
        await cloud.delete(`sessions/${one.id}`);
        await sessions.refresh();
      }),
    ]));
  }

  const roles = ours === 'admin' ? ['caller', 'viewer', 'deployer', 'admin'] : ['caller', 'viewer', 'deployer'];
  const making = form([
    field('Name', 'name', { required: true, hint: 'Calls are made in this name.' }),
    field('Role', 'role', { control: choice('role', roles) }),
    field('Scope', 'scope', { placeholder: 'localhost/api, example.com', hint: 'Domains or domain/path; empty: all that you have.' }),
    field('Days', 'days', { type: 'number', min: 1, max: 3660, hint: 'For which it is valid; empty: as long as yours.' }),
  ], 'Make a key', async ({ name, role, scope = '', days }, made) => {
    const { apiKey } = await cloud.post('keys', {
      name, role,
      scope: scope.split(/[\s,]+/).filter(Boolean),
      ...(days && { expiresIn: Number(days) * DAY_SECONDS }),
    });
    made.reset();
    await list.refresh();
    await tell(`The key ${name}`, h('p', {}, h('code', { class: 'secret' }, apiKey)),
      h('p', {}, 'Keep it: it is not shown again.'));
  });
  return view('Keys', section('', list), section('A new key', making), section('Sessions', sessions));
}
