/** Places within the dashboard: `#/deployments/localhost/%2Fdemo`, in the address after the hash. */

/** Gives the address of a place. */
export function place(...parts) {
  return `#/${parts.map(encodeURIComponent).join('/')}`;
}

/** Gives the parts of the place that is shown; none at the beginning. */
export function here() {
  const parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean);
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return []; // typed by hand, and no address
  }
}

/** Goes to a place. */
export function go(...parts) {
  location.hash = place(...parts);
}
