/** What people act with: buttons, forms, questions, and what is said of the outcome. */

import { h } from './dom.js';

const SHOWN_MS = 6000;
const LINES_SHOWN = 10;
const notices = h('div', { id: 'notices', role: 'status', 'aria-live': 'polite' });
document.body.append(notices);

/** Says something for a while; what went wrong stays until it is clicked away. */
export function say(text, { trouble = false } = {}) {
  const notice = h('p', { class: trouble ? 'notice trouble' : 'notice', click: () => notice.remove() }, text);
  notices.append(notice);
  if (!trouble) setTimeout(() => notice.remove(), SHOWN_MS);
}

/** Says what an error says, with the end of what was printed where it has that. */
export function complain(error) {
  const printed = (error.details?.output ?? '').trimEnd().split('\n').slice(-LINES_SHOWN).join('\n');
  const request = error.requestId && `(request ${error.requestId})`;
  say([error.message, printed, request].filter(Boolean).join('\n'), { trouble: true });
}

/**
 * Makes a button.  It cannot be pressed again while it works, and what goes wrong is said.
 *
 * @param {string} label
 * @param {function(): Promise<?string>} work What it gives is said.
 * @param {{ask?: string, kind?: string}} [options] `ask`: what to make sure of first.
 */
export function button(label, work, { ask = '', kind = '' } = {}) {
  const made = h('button', { type: 'button', class: kind, click: async () => {
    if (ask && !(await sure(ask, label))) return;
    await working(made, work);
  } }, label);
  return made;
}

/**
 * Makes a form of named fields.
 *
 * @param {Node[]} fields See `field`.
 * @param {string} label Of its button.
 * @param {function(object, HTMLFormElement): Promise<?string>} work Gets the values by name, without those
 *     that are empty; what it gives is said.
 */
export function form(fields, label, work) {
  const submit = h('button', { class: 'main' }, label);
  const made = h('form', { submit: (event) => {
    event.preventDefault();
    const values = [...new FormData(made)].filter(([, value]) => value !== '');
    working(submit, () => work(Object.fromEntries(values), made));
  } }, h('div', { class: 'fields' }, fields), h('p', {}, submit));
  return made;
}

/** Makes a labelled field: an input, or what `control` is. */
export function field(label, name, { control = null, hint = '', ...properties } = {}) {
  const input = control ?? h('input', { name, autocomplete: 'off', ...properties });
  return h('label', { class: 'field' }, label, input, hint && h('small', {}, hint));
}

/** Makes a choice: options are values, or [value, label]. */
export function choice(name, options, properties = {}) {
  const { value, ...others } = properties;
  const made = h('select', { name, ...others }, options.map((option) => {
    const [chosen, label] = [option].flat();
    return h('option', { value: chosen }, label ?? chosen);
  }));
  if (value !== undefined) made.value = value;
  return made;
}

/** Makes the way through a list's pages; nothing where there is but one. */
export function pager(page, total, perPage, turn) {
  const last = Math.ceil(total / perPage);
  if (last <= 1) return '';
  return h('p', { class: 'row' },
    h('button', { type: 'button', disabled: page <= 1, click: () => turn(page - 1) }, 'Newer'),
    `page ${page} of ${last}`,
    h('button', { type: 'button', disabled: page >= last, click: () => turn(page + 1) }, 'Older'));
}

/** Asks; gives whether the answer was yes. */
function sure(question, label) {
  return asked((close) => [
    h('p', {}, question),
    h('p', { class: 'row' },
      h('button', { type: 'button', class: 'danger', click: () => close(true) }, label),
      h('button', { type: 'button', click: () => close(false) }, 'Cancel')),
  ]);
}

/** Shows something once, until it is closed: a new key, say. */
export function tell(title, ...content) {
  return asked((close) => [
    h('h2', {}, title), ...content,
    h('p', {}, h('button', { type: 'button', class: 'main', click: () => close(true) }, 'Close')),
  ]);
}

function asked(content) {
  return new Promise((resolve) => {
    const dialog = h('dialog', { close: () => {
      dialog.remove();
      resolve(dialog.returnValue === 'true');
    } });
    dialog.append(...content((answer) => dialog.close(String(answer))));
    document.body.append(dialog);
    dialog.showModal();
  });
}

async function working(button, work) {
  button.disabled = true;
  button.classList.add('busy');
  try {
    const said = await work();
    if (said) say(said);
  } catch (error) {
    complain(error);
  } finally {
    button.disabled = false;
    button.classList.remove('busy');
  }
}
