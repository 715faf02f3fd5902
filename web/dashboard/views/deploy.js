/** Deploys an agent: from a repository, as an image, or as a way to something that runs elsewhere. */

import { h } from '../dom.js';
import { section, view } from '../live.js';
import { go } from '../router.js';
import { choice, field, form } from '../ui.js';

/** What can be deployed: [value, label, the fields that it takes]. */
const SOURCES = [
  ['agent', 'An agent of a repository', ['agent', 'repository', 'branch', 'image']],
  ['image', 'A container image', ['image', 'port']],
  ['target', 'Something that runs elsewhere', ['target']],
];

export function deploy({ cloud }, agent = '') {
  const offered = h('datalist', { id: 'agents' });
  const domains = h('datalist', { id: 'domains' });
  fill(offered, cloud.all('agents').then((found) => found.map((each) => each.name)));
  fill(domains, cloud.all('domains').then((found) => found.map((each) => each.name)));
  const source = choice('source', SOURCES.map(([value, label]) => [value, label]), { change: () => sieve() });
  const fields = [
    field('Agent', 'agent', { list: 'agents', value: agent, hint: 'Its name, or repository/name.' }),
    field('Repository', 'repository', { hint: 'A URL, or the name of a registered one; empty: whichever has the agent.' }),
    field('Branch, tag or commit', 'branch', { hint: 'Empty: the repository’s own.' }),
    field('Image', 'image', { hint: 'Empty: the manifest’s own.' }),
    field('Port', 'port', { type: 'number', min: 1, max: 65535, hint: 'On which it serves; empty: the one that it declares.' }),
    field('Target', 'target', { placeholder: 'http://host:port', hint: 'Or unix:PATH.' }),
  ];

  function sieve() {
    const [, , wanted] = SOURCES.find(([value]) => value === source.value);
    for (const each of fields) {
      const input = each.querySelector('input');
      each.hidden = input.disabled = !wanted.includes(input.name);
    }
  }

  sieve();
  const steps = h('p', { class: 'quiet', role: 'status' });
  const part = section('', form([
    field('Domain', 'domain', { required: true, list: 'domains', value: 'localhost' }),
    field('Path', 'path', { required: true, value: agent ? `/${agent.split('/').pop()}` : '/' }),
    field('What', 'source', { control: source }),
    fields,
    field('Variables', 'variables', {
      control: h('textarea', { name: 'variables', rows: 3, placeholder: 'NAME=value', spellcheck: 'false' }),
      hint: 'One a line; they are stored sealed and never shown again.',
    }),
  ], 'Deploy', async ({ variables = '', source: _, port, ...wanted }) => {
    const environment = variablesOf(variables);
    const name = wanted.agent ?? wanted.path.replace(/\W+/g, '-').replace(/^-|-$/g, '') ?? 'app';
    await cloud.post('deployments', { ...wanted, agent: name || 'app', environment, ...(port && { port: Number(port) }) });
    go('deployments', wanted.domain, wanted.path);
    return `${wanted.domain}${wanted.path} serves.`;
  }), steps, offered, domains);
  return {
    ...view('Deploy', part),
    heard: (kind, said) => {
      if (kind === 'deployment') steps.textContent = said.step ? `${said.domain}${said.path}: ${said.step} …` : '';
    },
  };
}

async function fill(list, names) {
  try {
    list.append(...(await names).map((value) => h('option', { value })));
  } catch {
    // it is a help, no more: whoever may not list them types the name
  }
}

/** Reads lines of NAME=value. */
function variablesOf(text) {
  const lines = text.split('\n').filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf('=');
    if (at < 1) throw new Error(`${line}: expected NAME=value`);
    return [line.slice(0, at).trim(), line.slice(at + 1)];
  }));
}
