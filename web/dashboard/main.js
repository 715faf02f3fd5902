/** The dashboard: who looks, what they look at, and the frame around it. */

import { Ploinky } from '../client.js';
import { h, link } from './dom.js';
import { listen } from './events.js';
import { here, place } from './router.js';
import { button, field, form } from './ui.js';
import { audit } from './views/audit.js';
import { deploy } from './views/deploy.js';
import { deployment } from './views/deployment.js';
import { deployments } from './views/deployments.js';
import { keys } from './views/keys.js';
import { logs } from './views/logs.js';
import { overview } from './views/overview.js';
import { repositories } from './views/repositories.js';
import { settings } from './views/settings.js';
import { tasks } from './views/tasks.js';

const DEPLOYERS = ['admin', 'deployer'];
const READERS = [...DEPLOYERS, 'viewer'];

/** What there is; `whole`: it is about the server as a whole, and not for a key that is confined to a scope. */
const VIEWS = [
  { name: '', label: 'Overview', roles: READERS, show: overview },
  { name: 'deployments', label: 'Deployments', roles: READERS, show: (its, domain, path) =>
    (domain && path ? deployment(its, domain, path) : deployments(its)) },
  { name: 'deploy', label: 'Deploy', roles: DEPLOYERS, show: deploy },
  { name: 'repositories', label: 'Repositories', roles: READERS, show: repositories },
  { name: 'tasks', label: 'Tasks', roles: READERS, show: tasks },
  { name: 'logs', label: 'Logs', roles: READERS, whole: true, show: logs },
  { name: 'keys', label: 'Keys', roles: DEPLOYERS, show: keys },
  { name: 'settings', label: 'Settings', roles: READERS, whole: true, show: settings },
  { name: 'audit', label: 'Audit', roles: ['admin'], whole: true, show: audit },
];

const RETRY_MS = 3000;

const cloud = new Ploinky();
const root = document.getElementById('dashboard');

/** Finds out who looks, and shows them the door or the house. */
async function begin() {
  try {
    const who = await cloud.get('check-auth');
    if (!who.authenticated) root.replaceChildren(door());
    else if (READERS.includes(who.role)) enter(who);
    else root.replaceChildren(stranger(who));
  } catch (error) {
    root.replaceChildren(h('main', { class: 'door' },
      h('p', { class: 'trouble', role: 'alert' }, error.message), button('Try again', begin)));
  }
}

function door() {
  const key = field('API key', 'key', {
    type: 'password', required: true, autocomplete: 'current-password', autofocus: true,
  });
  return h('main', { class: 'door' },
    h('h1', {}, 'Ploinky Cloud'),
    form([key], 'Log in', async (values) => {
      await cloud.login(values.key.trim());
      await begin();
    }),
    h('p', { class: 'quiet' }, 'No key yet? ', h('code', {}, 'p-cli cloud init'),
      ' on the server’s machine makes the first one.'));
}

function stranger(who) {
  return h('main', { class: 'door' },
    h('p', {}, `The key ${who.userId} calls agents, and is not for looking at them.`), button('Log out', logOut));
}

async function logOut() {
  await cloud.logout();
  await begin();
}

function enter(who) {
  const its = { cloud, role: who.role, deploys: DEPLOYERS.includes(who.role), confined: who.scope.length > 0 };
  const views = VIEWS.filter(({ roles, whole }) => roles.includes(who.role) && !(whole && its.confined));
  const links = views.map(({ name, label }) => link(name ? place(name) : '#/', label));
  const light = h('span', { class: 'light' });
  const stage = h('main', {});
  let shown = null;
  let silence = null;
  let missed = false;
  let timer = null;

  function show() {
    const [name = '', ...rest] = here();
    const at = Math.max(0, views.findIndex((each) => each.name === name));
    shown?.leave();
    shown = views[at].show(its, ...rest);
    document.title = `${shown.title} – Ploinky Cloud`;
    stage.replaceChildren(h('h1', {}, shown.title), shown.element);
    links.forEach((each, number) => each.classList.toggle('here', number === at));
  }

  function leave() {
    silence();
    clearTimeout(timer);
    removeEventListener('hashchange', show);
    shown.leave();
  }

  function follow() {
    silence = listen(cloud.address('events'), {
      heard: (kind, said) => shown.heard(kind, said),
      connected: (is) => {
        light.classList.toggle('on', is);
        light.title = is ? 'What happens is shown as it happens' : 'The server’s events do not come';
        if (is && missed) shown.refresh();
        missed = !is;
      },
      refused: () => { timer = setTimeout(askAgain, RETRY_MS); },
    });
  }

  /** Finds out whether the session is over, or the server only restarts: what was typed stays, then. */
  async function askAgain() {
    try {
      const { authenticated } = await cloud.get('check-auth');
      if (authenticated) {
        follow();
      } else {
        leave();
        await begin();
      }
    } catch {
      timer = setTimeout(askAgain, RETRY_MS);
    }
  }

  root.replaceChildren(
    h('header', {},
      h('strong', {}, light, 'Ploinky Cloud'),
      h('nav', { 'aria-label': 'Views' }, links),
      h('p', { class: 'who' }, `${who.userId} (${who.role})`, button('Log out', () => {
        leave();
        return logOut();
      }))),
    stage);
  addEventListener('hashchange', show);
  show();
  follow();
}

begin();
