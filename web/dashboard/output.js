/** What is printed, followed as it comes: of a deployment's instances, or the server's own log. */

import { h } from './dom.js';

const MOST_CHARACTERS = 500_000;
const RETRY_MS = 3000;

/**
 * Shows text that goes on, at its end as long as the reader is there.
 *
 * @param {Ploinky} cloud
 * @param {string} path Of the API, which knows `follow`.
 * @param {object} query
 * @returns {{element: Node, leave: function(): void}}
 */
export function followed(cloud, path, query) {
  const shown = h('pre', { class: 'output', tabindex: 0, 'data-empty': 'Nothing was printed yet.' });
  const trouble = h('p', { class: 'trouble', role: 'alert', hidden: true });
  const ending = new AbortController();

  async function follow() {
    let refused = false;
    while (!refused && !ending.signal.aborted) {
      try {
        await readOn();
      } catch (error) {
        refused = error.status >= 400 && error.status < 500;
        trouble.textContent = error.message;
        trouble.hidden = false;
      }
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
    }
  }

  async function readOn() {
    let begun = false;
    for await (const text of cloud.text(path, { ...query, follow: 1 }, { signal: ending.signal })) {
      if (!begun) shown.replaceChildren(); // it begins with the last lines again
      begun = trouble.hidden = true;
      add(text);
    }
  }

  function add(text) {
    const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 40;
    shown.append(text);
    while (shown.childNodes.length > 1 && shown.textContent.length > MOST_CHARACTERS) shown.firstChild.remove();
    if (atEnd) shown.scrollTop = shown.scrollHeight;
  }

  follow();
  return { element: h('div', {}, trouble, shown), leave: () => ending.abort() };
}

/** Shows what a deployment's instances print. */
export function output(cloud, key) {
  return followed(cloud, 'deployments/logs', { ...key, lines: 200 });
}
