/** Elements from data.  Text is always text: nothing here, or elsewhere, reads markup. */

const SVG = 'http://www.w3.org/2000/svg';

/**
 * Makes an element.
 *
 * @param {string} tag
 * @param {object} [properties] Attributes; true sets one without a value, null and false leave it out.
 *     Functions are listeners, by the event's name; `value` and `checked` are set as the element's state.
 * @param {...(Node|string|number|null|Array)} children null and false leave nothing.
 */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Makes an element of a drawing; as `h`. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') element.addEventListener(name, value);
    else if (name === 'value' || name === 'checked') element[name] = value;
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
  return element;
}

/** Makes a table; `empty` is said where there are no rows, each of which is an array of cells. */
export function table(columns, rows, empty = 'Nothing here yet.') {
  if (!rows.length) return h('p', { class: 'quiet' }, empty);
  const head = columns.map((column) => h('th', { scope: 'col' }, column));
  const body = rows.map((cells) =>
    h('tr', {}, cells.map((cell, at) => h('td', { 'data-label': columns[at] || null }, cell ?? ''))),
  );
  return h('div', { class: 'scroll' },
    h('table', {}, h('thead', {}, h('tr', {}, head)), h('tbody', {}, body)));
}

/** Makes a list of facts: [name, value]; those without a value are left out. */
export function facts(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('dl', {}, known.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

/** Makes a titled part of a view. */
export function panel(title, ...children) {
  return h('section', { class: 'panel' }, title && h('h2', {}, title), ...children);
}

/** Makes a word that is coloured by what it says of a state. */
export function badge(state) {
  return h('span', { class: `badge ${state}` }, state);
}

/** Makes a link within the dashboard. */
export function link(to, ...children) {
  return h('a', { href: to }, ...children);
}
