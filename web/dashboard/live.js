/** Parts of a view that show what the server says, and say it anew when that changes. */

import { h, panel } from './dom.js';

const CALM_MS = 700;

/**
 * A part of a view: loads data, draws it, and does both again when it is told to.
 *
 * What was drawn last stays where a later load fails, with the error above it: a table that
 * vanishes for a moment is worse than one that is a moment old.
 */
export class Live {
  #load;
  #draw;
  #hears;
  #timer = null;
  #due = Infinity;
  #loading = false;
  #again = false;
  #left = false;
  #trouble = h('p', { class: 'trouble', role: 'alert', hidden: true });
  #content = h('div', {}, h('p', { class: 'quiet' }, 'Loading …'));

  /**
   * @param {function(): Promise<object>} load
   * @param {function(object): (Node|Node[])} draw
   * @param {{on?: string[], of?: function(object): boolean, every?: number}} [when] Which kinds of events,
   *     and which of them, call for another look; how many milliseconds after the last one is due anyway.
   */
  constructor(load, draw, { on = [], of = () => true, every = 0 } = {}) {
    this.#load = load;
    this.#draw = draw;
    this.#hears = (kind, said) => on.includes(kind) && of(said);
    this.every = every;
    this.element = h('div', { class: 'live' }, this.#trouble, this.#content);
    this.refresh();
  }

  /** Takes an event of the server's. */
  heard(kind, said) {
    if (this.#hears(kind, said)) this.#soon(CALM_MS);
  }

  /** Looks anew, now; what is under way is followed by another look. */
  async refresh() {
    this.#calm();
    if (this.#loading) {
      this.#again = true;
      return;
    }
    this.#loading = true;
    try {
      const data = await this.#load();
      if (!this.#left) this.#content.replaceChildren(...[this.#draw(data)].flat());
      this.#trouble.hidden = true;
    } catch (error) {
      this.#trouble.textContent = error.message;
      this.#trouble.hidden = false;
    }
    this.#loading = false;
    if (this.#left) return;
    if (this.#again) {
      this.#again = false;
      this.#soon(CALM_MS);
    } else if (this.every) {
      this.#soon(this.every);
    }
  }

  /** Ends it. */
  leave() {
    this.#left = true;
    this.#calm();
  }

  #soon(milliseconds) {
    const due = Date.now() + milliseconds;
    if (this.#left || this.#due <= due) return;
    clearTimeout(this.#timer);
    this.#due = due;
    this.#timer = setTimeout(() => this.refresh(), milliseconds);
  }

  #calm() {
    clearTimeout(this.#timer);
    this.#due = Infinity;
  }
}

/**
 * Makes a view of elements and live parts.
 *
 * @returns {{title: string, element: Node, heard: function(string, object): void, refresh: function(): void,
 *     leave: function(): void}}
 */
export function view(title, ...parts) {
  return { title, ...joined(parts, (shown) => h('div', {}, shown)) };
}

/** Makes a titled part of elements and live parts. */
export function section(title, ...parts) {
  return joined(parts, (shown) => panel(title, shown));
}

function joined(parts, make) {
  const present = parts.flat().filter(Boolean);
  const alive = present.filter((part) => part.leave);
  return {
    element: make(present.map((part) => part.element ?? part)),
    heard: (kind, said) => alive.forEach((part) => part.heard?.(kind, said)),
    refresh: () => alive.forEach((part) => part.refresh?.()),
    leave: () => alive.forEach((part) => part.leave()),
  };
}
