/** The server's settings: what holds, where it comes from, and what it could be. */

import { h, table } from '../dom.js';
import { Live, section, view } from '../live.js';
import { button } from '../ui.js';

export function settings({ cloud, role }) {
  const list = new Live(async () => {
    const [config, known] = await Promise.all([cloud.get('config'), cloud.get('settings')]);
    return { ...config, ...known, inForce: config.settings };
  }, draw);

  function draw(its) {
    return [
      table(['Setting', 'In force', 'From', 'Holds', ''], Object.keys(its.inForce).map((name) => row(its, name))),
      h('p', { class: 'quiet' }, `Kept in ${its.directory}.`),
    ];
  }

  function row(its, name) {
    const value = its.inForce[name];
    const waiting = name in its.waiting ? ` (${JSON.stringify(its.waiting[name])} after a restart)` : '';
    const input = h('input', { value: typeof value === 'string' ? value : JSON.stringify(value), 'aria-label': name });
    return [
      h('code', {}, name),
      role === 'admin' ? h('span', {}, input, waiting) : JSON.stringify(value) + waiting,
      its.origins[name],
      its.atOnce.includes(name) ? 'at once' : 'after a restart',
      role === 'admin' && h('span', { class: 'row' },
        button('Save', () => change(its, name, valueOf(input.value, value))),
        button('Default', () => change(its, name, null))),
    ];
  }

  async function change({ revision }, name, value) {
    const { needsRestart, overridden } = await cloud.post('settings', { [name]: value }, { revision });
    await list.refresh();
    if (overridden[name]) return `${name} is saved, but ${overridden[name]} wins.`;
    return needsRestart.includes(name) ? `${name} holds after a restart.` : `${name} holds now.`;
  }

  return view('Settings', section('', list));
}

/** Reads what was typed as what stood there: text stays text, all else is JSON where it can be. */
function valueOf(text, before) {
  if (typeof before === 'string') return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the server says what it expected
  }
}
