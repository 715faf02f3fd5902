/** How calls go, over time: of one deployment, or of all. */

import { chart, steady } from './chart.js';
import { h } from './dom.js';
import { milliseconds, number } from './format.js';
import { Live, section } from './live.js';
import { choice } from './ui.js';

const SPANS = [['1h', 'the last hour'], ['24h', 'the last day'], ['7d', 'the last week']];

/**
 * Makes charts of calls per second and of how long they took, with a choice of the time.
 *
 * @param {Ploinky} cloud
 * @param {string} [agent] `domain/path`; all without.
 */
export function callCharts(cloud, agent = '') {
  const range = choice('range', SPANS, { 'aria-label': 'Time', change: () => charts.refresh() });
  const charts = new Live(
    () => cloud.get('metrics', { range: range.value, agent }),
    draw,
    { on: ['metrics'], of: (said) => !agent || said.domain + said.path === agent, every: 60000 },
  );
  return section('Calls', range, charts);
}

function draw({ series, since, until, resolution }) {
  const frame = { since: Date.parse(since), until: Date.parse(until), step: resolution * 1000 };
  const rate = (name) => (point) => point[name] / resolution;
  const rated = (name, of) => ({
    name, points: steady(series, frame, rate(of)),
  });
  const took = (name) => ({
    name, points: series.filter((each) => each[name] !== null).map((each) => [Date.parse(each.time), each[name]]),
  });
  return h('div', { class: 'charts' },
    chart('Calls a second', [rated('all', 'count'), rated('errors', 'errors')], { ...frame, format: number }),
    chart('How long they took', [took('p50'), took('p95')], { ...frame, format: milliseconds }));
}
