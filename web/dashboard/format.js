/** Numbers, times and sizes for people. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const SPANS = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];

/** Gives a size in bytes with its unit. */
export function bytes(count) {
  if (count === null || count === undefined) return '–';
  let unit = 0;
  let size = count;
  for (; size >= 1024 && unit < UNITS.length - 1; unit += 1) size /= 1024;
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

/** Gives a span of time in its two largest units. */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [unit, size] of SPANS) {
    const count = Math.floor(left / size);
    left -= count * size;
    if (count) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(' ') || '0 s';
}

/** Gives how long ago something was; '–' where it never was. */
export function ago(time) {
  return time ? `${span((Date.now() - Date.parse(time)) / 1000)} ago` : '–';
}

/** Gives a time of the reader's own day and zone; '–' where there is none. */
export function moment(time) {
  return time ? new Date(time).toLocaleString() : '–';
}

/** Gives milliseconds with as many digits as say something. */
export function milliseconds(value) {
  if (value === null || value === undefined) return '–';
  if (value === 0) return '0';
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return `${value >= 100 ? Math.round(value) : value.toPrecision(value < 1 ? 2 : 3)} ms`;
}

/** Gives a count or a rate, short. */
export function number(value) {
  if (value === null || value === undefined) return '–';
  if (value !== 0 && Math.abs(value) < 10 && !Number.isInteger(value)) return value.toFixed(2);
  return Math.round(value).toLocaleString();
}
