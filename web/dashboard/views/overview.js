/** All at a glance: what is served, how calls go, what was changed last. */

import { badge, h, link, panel, table } from '../dom.js';
import { ago, milliseconds, number, span } from '../format.js';
import { Live, section, view } from '../live.js';
import { callCharts } from '../metrics.js';
import { place } from '../router.js';

export function overview({ cloud, confined }) {
  const tiles = new Live(
    async () => {
      const [health, figures] = await Promise.all([
        cloud.get('health'), cloud.get('metrics', { range: '1h' }),
      ]);
      return { health, figures };
    },
    ({ health, figures }) => [drawTiles(health, figures), drawTroubles(health)],
    { on: ['deployment', 'instance', 'metrics'], every: 30000 },
  );
  const activity = !confined
    && new Live(() => cloud.get('overview'), drawActivity, { on: ['deployment'], every: 60000 });
  return view('Overview', tiles, callCharts(cloud), activity && section('Changed last', activity));
}

function drawTiles(health, figures) {
  const serving = health.deployments.filter((each) => each.status === 'running').length;
  const latest = figures.series.at(-1);
  const workers = health.workers.filter((each) => each.state === 'serving').length;
  return h('div', { class: 'tiles' },
    tile('Server', badge(health.status), `up for ${span(figures.uptime / 1000)}`),
    tile('Deployments', `${serving} of ${health.deployments.length}`, 'serve'),
    tile('Workers', `${workers} of ${health.workers.length}`, 'serve'),
    tile('Calls', number(figures.totalRequests), 'in the last hour'),
    tile('Errors', figures.errorRate, `${number(figures.unauthorizedRequests)} calls without a valid key`),
    tile('p95', milliseconds(latest?.p95), 'of the latest calls'));
}

function tile(name, value, more) {
  return h('div', { class: 'tile' }, h('span', {}, name), h('strong', {}, value), h('small', {}, more));
}

function drawTroubles(health) {
  const ill = health.deployments.filter(({ status }) => !['running', 'stopped'].includes(status));
  if (!ill.length) return h('span', {});
  return panel('Need a look', table(['Where', 'Status', 'Last failure'], ill.map((each) => [
    link(place('deployments', each.domain, each.path), each.domain + each.path),
    badge(each.status),
    each.lastFailure ? `${each.lastFailure.reason} (${ago(each.lastFailure.time)})` : '',
  ])));
}

function drawActivity({ recentActivity }) {
  return table(['When', 'What', 'Where', 'By', 'Outcome'],
    recentActivity.map((each) => [
      ago(each.time), each.action, each.subject, each.user, each.success ? 'done' : h('span', { class: 'trouble' }, each.error),
    ]), 'Nothing was changed since the server started.');
}
