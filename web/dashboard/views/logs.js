/** The server's own log and its access log: followed, and by the day. */

import { h } from '../dom.js';
import { Live, section, view } from '../live.js';
import { followed } from '../output.js';
import { choice } from '../ui.js';

const LEVELS = [['', 'everything'], 'info', 'warn', 'error', 'critical'];

export function logs({ cloud }) {
  const log = choice('log', [['server', 'Server'], ['access', 'Calls']], { 'aria-label': 'Log', change: () => turn() });
  const level = choice('level', LEVELS, { 'aria-label': 'Least level', change: () => turn() });
  const stage = h('div', {});
  let shown = null;

  function turn() {
    shown?.leave();
    level.disabled = log.value === 'access';
    shown = followed(cloud, 'logs', { log: log.value, lines: 300, level: level.disabled ? '' : level.value });
    stage.replaceChildren(shown.element);
    days.refresh();
  }

  const days = new Live(() => cloud.get('logs/list', { log: log.value }), ({ dates }) =>
    h('ul', { class: 'row plain' }, dates.map((date) => h('li', {},
      h('a', { href: cloud.address('logs/download', { date, log: log.value }), download: true }, date)))));
  turn();
  const made = view('Logs', h('p', { class: 'row' }, log, level), section('', stage), section('Whole days', days));
  return { ...made, leave: () => [shown, made].forEach((each) => each.leave()) };
}
