/** One deployment: what it is, how it does, its output, its history; and a place to try it. */

import { configuration } from '../configuration.js';
import { badge, facts, h, table } from '../dom.js';
import { ago, bytes, moment } from '../format.js';
import { Live, section, view } from '../live.js';
import { callCharts } from '../metrics.js';
import { output } from '../output.js';
import { go } from '../router.js';
import { tryOut } from '../tryout.js';
import { button, tell } from '../ui.js';

export function deployment({ cloud, deploys }, domain, path) {
  const key = { domain, path };
  const where = `deployments/${encodeURIComponent(domain)}/${encodeURIComponent(path)}`;
  const of = (said) => said.domain === domain && said.path === path;
  const standing = new Live(() => cloud.get(where), drawStanding, { on: ['deployment', 'instance'], of });
  const instances = new Live(() => cloud.get('deployments/stats', key), drawInstances,
    { on: ['deployment', 'instance'], of, every: 10000 });
  const releases = new Live(() => cloud.all('deployments/releases', key),
    (found) => drawReleases(found, deploys ? (number) => rollBack(cloud, key, number) : null),
    { on: ['deployment'], of });
  return view(domain + path,
    deploys && actions(cloud, key, where),
    section('', standing),
    section('Try it', tryOut(cloud, key)),
    callCharts(cloud, domain + path),
    section('Instances', instances),
    section('Output', output(cloud, key)),
    section('Releases', releases),
    deploys && section('Configuration', configuration(cloud, key, where)));
}

function actions(cloud, key, where) {
  const act = (verb, said, options) =>
    button(verb[0].toUpperCase() + verb.slice(1), async () => {
      await cloud.post(`deployments/${verb}`, key);
      return `${key.domain}${key.path} ${said}.`;
    }, options);
  const scale = h('input', { type: 'number', min: 1, max: 1000, 'aria-label': 'Instances' });
  cloud.get(where).then(({ settings }) => { scale.value = settings.replicas ?? 1; }, () => {});
  return h('p', { class: 'row' },
    act('sync', 'serves the newest commit'),
    act('restart', 'runs on new instances'),
    act('stop', 'is stopped', { ask: `Stop ${key.domain}${key.path}? Calls are refused until it is started again.` }),
    act('start', 'serves'),
    h('span', { class: 'pair' }, scale, button('Scale', async () => {
      await cloud.post('deployments/scale', { ...key, replicas: Number(scale.value) });
      return `It runs on ${scale.value} instances.`;
    })),
    button('Webhook', async () => {
      const made = await cloud.post('deployments/hook', key);
      await tell('Enter this at the Git host', facts([
        ['URL', h('code', {}, made.url)], ['Secret', h('code', {}, made.secret)],
      ]), h('p', {}, 'The secret is not shown again.'));
    }, { ask: 'Make a new webhook? One that was made before stops working.' }),
    button('Remove', async () => {
      await cloud.delete('deployments', key);
      go('deployments');
      return `${key.domain}${key.path} is removed.`;
    }, { ask: `Remove ${key.domain}${key.path} with all its releases?`, kind: 'danger' }));
}

async function rollBack(cloud, key, release) {
  await cloud.post('deployments/rollback', { ...key, release });
  return `Release ${release} serves again.`;
}

function drawStanding(its) {
  return [
    its.error && h('pre', { class: 'trouble' }, [its.error.message, its.error.output].filter(Boolean).join('\n')),
    its.warnings.map((warning) => h('p', { class: 'warning' }, warning)),
    facts([
      ['Status', [badge(its.status), its.step && ` ${its.step} …`]],
      ['Address', h('a', { href: `//${its.domain}${location.port && `:${location.port}`}${its.path}` }, its.domain + its.path)],
      ['Agent', its.agent],
      ['Kind', its.kind],
      ['Release', its.release && `#${its.release}`],
      ['Commit', its.commit && h('code', {}, its.commit.slice(0, 12))],
      ['Image', its.image],
      ['Target', its.target],
      ['Repository', [its.repository, its.branch].filter(Boolean).join(' @ ')],
      ['Variables', Object.keys(its.environment).join(', ')],
      ['Since', moment(its.updatedAt)],
    ]),
  ].flat().filter(Boolean);
}

function drawInstances({ instances, inFlight, waiting }) {
  const rows = instances.map((each) => [
    h('code', {}, each.instance),
    `#${each.release}`,
    badge(each.running ? 'running' : 'stopped'),
    each.restarts,
    each.cores === null ? '–' : `${Math.round(each.cores * 100)} %`,
    bytes(each.memoryBytes) + (each.memoryLimitBytes ? ` of ${bytes(each.memoryLimitBytes)}` : ''),
    each.processes ?? '–',
  ]);
  return [
    table(['Instance', 'Release', 'Status', 'Restarts', 'CPU', 'Memory', 'Processes'], rows, 'None runs.'),
    h('p', { class: 'quiet' }, `${inFlight} calls in hand, ${waiting} waiting.`),
  ];
}

function drawReleases(releases, rollBackTo) {
  return table(['Release', 'State', 'Made', 'Commit', 'Image', 'What went wrong', ''], releases.map((each) => [
    `#${each.number}`,
    badge(each.state),
    ago(each.createdAt),
    each.commit && h('code', {}, each.commit.slice(0, 12)),
    each.image,
    troubles(each),
    rollBackTo && each.state === 'retired' && button('Roll back', () => rollBackTo(each.number)),
  ]));
}

/** What a release failed with, and how its instances ended, folded away. */
function troubles({ error, deaths }) {
  const found = deaths.map((death) => `${moment(death.time)}: ${death.reason}\n${death.output}`);
  if (error) found.unshift([error.message, error.output].filter(Boolean).join('\n'));
  if (!found.length) return '';
  return h('details', {}, h('summary', {}, error ? error.message : `${deaths.length} ended by themselves`),
    found.map((text) => h('pre', {}, text)));
}
