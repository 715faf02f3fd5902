/** Where agents come from, and the domains that they may be deployed to. */

import { badge, h, link, table } from '../dom.js';
import { Live, section, view } from '../live.js';
import { place } from '../router.js';
import { button, choice, field, form } from '../ui.js';

export function repositories({ cloud, role, deploys, confined }) {
  const everywhere = deploys && !confined;
  const list = new Live(() => cloud.all('repositories'), (found) => drawRepositories(found));
  const agents = new Live(() => cloud.get('agents', { perPage: 1000 }), (found) => drawAgents(found, deploys));
  const domains = new Live(() => cloud.all('domains'), (found) => drawDomains(found));
  const both = () => Promise.all([list.refresh(), agents.refresh()]);

  function drawRepositories(found) {
    return table(['Name', 'Address', 'Branch', 'Credential', ''], found.map(({ name, url, branch, hasCredential }) => [
      name, url, branch || '–', hasCredential ? 'yes' : 'none',
      everywhere && h('span', { class: 'row' },
        button('Sync', async () => {
          const { commit } = await cloud.post(`repositories/${encodeURIComponent(name)}/sync`);
          await both();
          return `${name} is at ${commit.slice(0, 12)}.`;
        }),
        button('Remove', async () => {
          await cloud.delete('repositories', { name });
          await both();
        }, { ask: `Remove ${name}? What was deployed from it goes on serving.`, kind: 'danger' })),
    ]), 'No repository is known yet.');
  }

  function drawDomains(found) {
    return table(['Domain', 'State', ''], found.map(({ name, enabled }) => {
      const turn = enabled ? 'disable' : 'enable';
      return [name, badge(enabled ? 'enabled' : 'disabled'), role === 'admin' && h('span', { class: 'row' },
        button(enabled ? 'Disable' : 'Enable', async () => {
          await cloud.post(`domains/${encodeURIComponent(name)}/${turn}`);
          await domains.refresh();
        }, { ask: enabled ? `Take all of ${name} off the air?` : '' }),
        name !== 'localhost' && button('Remove', async () => {
          await cloud.delete('domains', { name });
          await domains.refresh();
        }, { ask: `Remove ${name}?`, kind: 'danger' }))];
    }));
  }

  return view('Repositories',
    section('', list),
    section('Agents in them', agents),
    everywhere && section('Add a repository', adding(cloud, both)),
    section('Domains', domains),
    role === 'admin' && section('Add a domain', form([field('Domain', 'name', { required: true })], 'Add',
      async ({ name }, made) => {
        await cloud.post('domains', { name });
        made.reset();
        await domains.refresh();
        return `${name} is added.`;
      })));
}

function drawAgents({ agents, problems }, deploys) {
  return [
    ...problems.map(({ repository, message }) => h('p', { class: 'trouble' }, `${repository}: ${message}`)),
    table(['Agent', 'Repository', 'What it does', ''], agents.map((each) => [
      each.name, each.repository, each.problem ? h('span', { class: 'trouble' }, each.problem) : each.about,
      deploys && link(place('deploy', `${each.repository}/${each.name}`), 'Deploy'),
    ])),
  ];
}

/** Adds a repository; what opens it goes to the server and is never shown again. */
function adding(cloud, added) {
  const kind = choice('kind', [['', 'everybody'], ['token', 'a token'], ['sshKey', 'an SSH key']], { change: () => sieve() });
  const user = field('User', 'username', { placeholder: 'git' });
  const token = field('Token or password', 'token', { type: 'password' });
  const key = field('Private key', 'sshKey', { control: h('textarea', { name: 'sshKey', rows: 4, spellcheck: 'false' }) });
  const hosts = field('Known hosts', 'knownHosts', { control: h('textarea', { name: 'knownHosts', rows: 2, spellcheck: 'false' }) });

  function sieve() {
    user.hidden = token.hidden = kind.value !== 'token';
    key.hidden = hosts.hidden = kind.value !== 'sshKey';
  }

  sieve();
  return form([
    field('Name', 'name', { required: true }),
    field('Address', 'url', { required: true, placeholder: 'https://host/user/repository.git' }),
    field('Branch', 'branch', { hint: 'Empty: its own.' }),
    field('Open to', 'kind', { control: kind }), user, token, key, hosts,
  ], 'Add', async ({ name, url, branch, kind: opens, ...given }, made) => {
    const of = { token: ['username', 'token'], sshKey: ['sshKey', 'knownHosts'] }[opens] ?? [];
    const credential = Object.fromEntries(Object.entries(given).filter(([each]) => of.includes(each)));
    await cloud.post('repositories', { name, url, ...(branch && { branch }), ...(opens && { credential }) });
    made.reset();
    sieve();
    await added();
    return `${name} is added.`;
  });
}
