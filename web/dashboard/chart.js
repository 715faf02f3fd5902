/** Lines over time, as a drawing that needs no library. */

import { h, s } from './dom.js';

const WIDTH = 640;
const HEIGHT = 160;
const LEFT = 56;
const RIGHT = 8;
const TOP = 10;
const BOTTOM = 22;

/**
 * Draws lines over one stretch of time.
 *
 * @param {string} title What they show; read out in place of the drawing.
 * @param {{name: string, points: [number, number][]}[]} lines Each point is (milliseconds since 1970, value).
 * @param {object} frame
 * @param {number} frame.since
 * @param {number} frame.until
 * @param {number} frame.step Milliseconds between two points; where they are further apart, nothing is known.
 * @param {function(number): string} frame.format
 */
export function chart(title, lines, { since, until, step, format }) {
  const most = niceAbove(Math.max(0, ...lines.flatMap((line) => line.points.map(([, value]) => value))));
  const x = (time) => LEFT + ((time - since) / (until - since || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - TOP - BOTTOM);
  const spot = ([time, value]) => `${x(time).toFixed(1)},${y(value).toFixed(1)}`;
  const drawn = lines.map((line, at) => stretches(line.points, step).map((points) =>
    s('polyline', {
      class: `line line-${at}`,
      points: [...points, points.at(-1)].map(spot).join(' '), // one alone is a dot, by its round ends
    }, s('title', {}, line.name))));
  const levels = [0, most / 2, most].map((value) => [
    s('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value) }),
    s('text', { class: 'tick', x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, format(value)),
  ]);
  const times = [since, (since + until) / 2, until].map((time, at) =>
    s('text', { class: 'tick', x: x(time), y: HEIGHT - 5, 'text-anchor': ['start', 'middle', 'end'][at] },
      clock(time, until - since)));
  const legend = lines.map((line, at) => h('li', { class: `line-${at}` }, line.name));
  return h('figure', {},
    h('figcaption', {}, title, h('ul', { class: 'legend' }, legend)),
    s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': title }, levels, times, drawn));
}

/**
 * Gives a value for each step of a stretch of time, also where nothing was counted.
 *
 * @param {{time: string}[]} points As `GET metrics` has them.
 * @param {{since: number, until: number, step: number}} frame As for `chart`.
 * @param {function(object): number} value What to show of a point; 0 where there is none.
 */
export function steady(points, { since, until, step }, value) {
  const known = new Map(points.map((point) => [Math.floor(Date.parse(point.time) / step), point]));
  const found = [];
  for (let at = Math.floor(since / step); at * step <= until; at += 1) {
    found.push([Math.max(since, at * step), known.has(at) ? value(known.get(at)) : 0]);
  }
  return found;
}

/** Cuts a line where points are missing. */
function stretches(points, step) {
  const found = [];
  points.forEach((point, at) => {
    if (at && point[0] - points[at - 1][0] <= step * 1.5) found.at(-1).push(point);
    else found.push([point]);
  });
  return found;
}

/** Gives the next of 1, 2, 5, 10, 20 ... that is no less. */
function niceAbove(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * 0.999);
}

function clock(time, length) {
  const day = length > 86400e3 ? { month: 'short', day: 'numeric' } : {};
  return new Date(time).toLocaleString([], { ...day, hour: '2-digit', minute: '2-digit' });
}
