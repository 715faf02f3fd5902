'use strict';
/**
 * A map for what comes and goes all the time.
 *
 * Where V8 makes room in a Map or Set, the old table goes on pointing to the new one.  One that is
 * old enough for the collector to leave it alone so keeps alive every table after it, with all that
 * ever stood in them, until the whole heap is collected; and that makes the table of then an
 * old one.  Of a busy agent's tasks none died young any more: a collection took 10 ms, not
 * 0.5.  So the map is copied now and then.
 */

const COPIED_AFTER = 32;

class Table {
  constructor(entries) {
    this._map = new Map(entries);
    this._added = 0;
  }

  get size() {
    return this._map.size;
  }

  has(key) {
    return this._map.has(key);
  }

  get(key) {
    return this._map.get(key);
  }

  /** Not while it is looked through: that may not come upon what is new. */
  set(key, value) {
    this._map.set(key, value);
    this._added += 1;
    if (this._added < COPIED_AFTER + this._map.size) return;
    this._map = new Map(this._map);
    this._added = 0;
  }

  /** Adds to what is used as a set. */
  add(key) {
    this.set(key, true);
  }

  delete(key) {
    return this._map.delete(key);
  }

  clear() {
    this._map = new Map();
    this._added = 0;
  }

  keys() {
    return this._map.keys();
  }

  values() {
    return this._map.values();
  }
}

module.exports = { Table };
