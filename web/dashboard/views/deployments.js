/** What is deployed, and how it does. */

import { badge, h, link, table } from '../dom.js';
import { milliseconds, number } from '../format.js';
import { Live, section, view } from '../live.js';
import { place } from '../router.js';

export function deployments({ cloud, deploys }) {
  const sought = h('input', {
    type: 'search', placeholder: 'Find by domain, path or agent', 'aria-label': 'Find', input: () => sieve(),
  });
  const list = new Live(
    async () => {
      const [all, figures] = await Promise.all([
        cloud.all('deployments'), cloud.get('metrics', { range: '1h' }),
      ]);
      return { all, figures };
    },
    ({ all, figures }) => draw(all, figures),
    { on: ['deployment', 'instance', 'metrics'], every: 30000 },
  );

  function draw(all, figures) {
    const drawn = table(
      ['Where', 'Agent', 'Status', 'Release', 'Instances', 'Calls (1 h)', 'Errors', 'p95', ''],
      all.map((each) => row(each, figures)),
      'Nothing is deployed yet.');
    queueMicrotask(sieve);
    return drawn;
  }

  function sieve() {
    const words = sought.value.toLowerCase().split(/\s+/);
    for (const line of list.element.querySelectorAll('tbody tr')) {
      line.hidden = !words.every((word) => line.textContent.toLowerCase().includes(word));
    }
  }

  const bar = h('p', { class: 'row' }, sought, deploys && link(place('deploy'), 'Deploy an agent'));
  return view('Deployments', bar, section('', list));
}

function row(each, figures) {
  const where = each.domain + each.path;
  const calls = figures.deployments[where] ?? {};
  const trouble = each.error?.message ?? each.warnings.join(' ');
  return [
    link(place('deployments', each.domain, each.path), where),
    each.agent,
    badge(each.status),
    each.release ? `#${each.release}` : '–',
    each.healthyInstances,
    number(calls.count),
    calls.errorRate,
    milliseconds(calls.p95),
    each.step ? `${each.step} …` : h('span', { class: each.error ? 'trouble' : 'quiet' }, trouble),
  ];
}
