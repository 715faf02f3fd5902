/** Durable tasks: those that wait, run, and are over. */

import { badge, h, link, table } from '../dom.js';
import { moment, span } from '../format.js';
import { Live, section, view } from '../live.js';
import { place } from '../router.js';
import { button, choice, pager, tell } from '../ui.js';

const PER_PAGE = 50;
const STATES = [['', 'all'], 'queued', 'running', 'succeeded', 'failed', 'cancelled', ['dead', 'dead letters']];

export function tasks({ cloud, deploys }) {
  let page = 1;
  const state = choice('state', STATES, { 'aria-label': 'State', change: () => turn(1) });
  const list = new Live(
    () => cloud.get(state.value === 'dead' ? 'tasks/dead' : 'tasks', {
      page, perPage: PER_PAGE, status: state.value === 'dead' ? '' : state.value,
    }),
    draw,
    { on: ['task'], every: 30000 },
  );

  function turn(to) {
    page = to;
    list.refresh();
  }

  function draw({ tasks: found, total }) {
    return [
      table(['Task', 'Where', 'Command', 'State', 'Begun', 'Made', 'Took', ''], found.map(row), 'There are none.'),
      pager(page, total, PER_PAGE, turn),
    ];
  }

  function row(task) {
    const over = ['succeeded', 'failed', 'cancelled'].includes(task.status);
    const act = (label, verb) => button(label, async () => {
      await cloud.post(`tasks/${task.taskId}/${verb}`);
      list.refresh();
    });
    return [
      h('code', {}, task.taskId.slice(0, 12)),
      link(place('deployments', task.domain, task.path), task.domain + task.path),
      task.command,
      badge(task.status),
      `${task.attempts} times`,
      moment(task.createdAt),
      task.finishedAt && task.startedAt ? span((Date.parse(task.finishedAt) - Date.parse(task.startedAt)) / 1000) : '–',
      h('span', { class: 'row' },
        button('Show', async () => {
          const whole = await cloud.get(`tasks/${task.taskId}`);
          await tell(`Task ${task.taskId}`, h('pre', {}, JSON.stringify(whole, null, 2)));
        }),
        deploys && !over && act('Cancel', 'cancel'),
        deploys && ['failed', 'cancelled'].includes(task.status) && act('Try again', 'retry')),
    ];
  }

  return view('Tasks', section('', state, list));
}
