/** Edits what a deployment was made with: settings as JSON, variables one by one. */

import { h } from './dom.js';
import { Live } from './live.js';
import { button, field, form } from './ui.js';

/** What the form of settings leaves to others: the manifest's word, or fields of their own. */
const NOT_HERE = ['about', 'kind', 'env', 'image'];

/**
 * Makes the editor.  A change is a new release; the one before serves until it is ready.
 *
 * @param {Ploinky} cloud
 * @param {{domain: string, path: string}} key
 * @param {string} where Of the deployment, in the API.
 */
export function configuration(cloud, key, where) {
  const update = async (its, changes) => {
    if (!Object.keys(changes).length) return 'Nothing was changed.';
    const { deployment } = await cloud.post('deployments/update', { ...key, ...changes }, { revision: its.revision });
    editor.refresh();
    return `Release ${deployment.release} serves.`;
  };
  const editor = new Live(() => cloud.get(where), (its) => [
    settingsForm(its, (changes) => update(its, changes)),
    variablesForm(its, (changes) => update(its, changes)),
  ]);
  return editor;
}

function settingsForm(its, update) {
  const shown = Object.fromEntries(Object.entries(its.settings).filter(([name]) => !NOT_HERE.includes(name)));
  const text = h('textarea', { rows: 10, spellcheck: 'false', 'aria-label': 'Settings', value: JSON.stringify(shown, null, 2) });
  const image = h('input', { value: its.image ?? '', 'aria-label': 'Image' });
  const branch = h('input', { value: its.branch ?? '', placeholder: 'the repository’s own', 'aria-label': 'Branch' });
  return h('div', { class: 'fields' },
    its.kind !== 'static' && field('Image', 'image', { control: image }),
    its.commit && field('Branch, tag or commit', 'branch', { control: branch }),
    field('Settings', 'settings', {
      control: text,
      hint: 'As in manifest.json: replicas, timeout, concurrency, auth, rateLimit, resources, volumes … What is taken out goes back to the manifest.',
    }),
    h('p', { class: 'row' },
      button('Save as a new release', () => update({
        ...differences(shown, parsed(text.value)),
        ...(image.value !== (its.image ?? '') && { image: image.value }),
        ...(branch.value !== (its.branch ?? '') && { branch: branch.value }),
      }), { kind: 'main' })));
}

function variablesForm(its, update) {
  const known = Object.keys(its.environment).map((name) =>
    h('li', {}, h('code', {}, name), its.secrets.includes(name) && ' (secret) ',
      button('Remove', () => update({ environment: { [name]: null } }), { ask: `Remove ${name}?` })));
  const secret = h('input', { type: 'checkbox', name: 'secret' });
  return h('div', {},
    h('h3', {}, 'Variables'),
    known.length ? h('ul', { class: 'plain' }, known) : h('p', { class: 'quiet' }, 'None. Values are never shown.'),
    form([
      field('Name', 'name', { required: true, pattern: '[A-Za-z_][A-Za-z0-9_]*' }),
      field('Value', 'value', { type: 'password' }),
      h('label', { class: 'row' }, secret, 'Mask it in output, too'),
    ], 'Set', ({ name, value = '', secret: masked }) =>
      update({ [masked ? 'secrets' : 'environment']: { [name]: value } })));
}

function parsed(text) {
  try {
    const settings = JSON.parse(text || '{}');
    if (settings && typeof settings === 'object' && !Array.isArray(settings)) return settings;
  } catch (error) {
    throw new Error(`The settings are no JSON: ${error.message}`);
  }
  throw new Error('The settings are a JSON object, such as {"timeout": 5}.');
}

/** Gives what is other in `after`, with null for what is gone. */
function differences(before, after) {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  const changed = [...names].filter((name) => JSON.stringify(before[name]) !== JSON.stringify(after[name]));
  return Object.fromEntries(changed.map((name) => [name, after[name] ?? null]));
}
