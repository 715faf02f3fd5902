/** Who did what, from where, with what result; and whether that record is whole. */

import { h, table } from '../dom.js';
import { moment } from '../format.js';
import { Live, section, view } from '../live.js';
import { button, pager } from '../ui.js';

const PER_PAGE = 100;

export function audit({ cloud }) {
  let page = 1;
  const list = new Live(() => cloud.get('audit', { page, perPage: PER_PAGE }), draw);

  function turn(to) {
    page = to;
    list.refresh();
  }

  function draw({ entries, total }) {
    return [
      table(['No.', 'When', 'Who', 'From', 'What', 'Where', 'Status', 'With'], entries.map((each) => [
        each.number, moment(each.time), `${each.user} (${each.role ?? '–'})`, each.address, each.action, each.subject,
        each.code ? h('span', { class: 'trouble' }, `${each.status} ${each.code}`) : each.status,
        each.body && h('code', { class: 'long' }, each.body),
      ])),
      pager(page, total, PER_PAGE, turn),
    ];
  }

  const verdict = h('p', { role: 'status' });
  const verify = button('Verify', async () => {
    const { intact, entries, head, problem } = await cloud.get('audit/verify');
    verdict.className = intact ? '' : 'trouble';
    verdict.textContent = intact ? `All ${entries} entries are as they were written. Head: ${head}` : problem;
  });
  return view('Audit', h('p', { class: 'row' }, verify, verdict), section('', list));
}
