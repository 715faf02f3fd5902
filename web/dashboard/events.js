/** What happens on the server, as it happens: one stream for all views. */

const KINDS = ['deployment', 'instance', 'task', 'metrics'];

/**
 * Listens until it is told to leave.  A connection that is lost is made again by the browser itself,
 * which asks for what it missed; a refusal is not, and is for who listens to look into.
 *
 * @param {string} address Of the stream.
 * @param {object} ears
 * @param {function(string, object): void} ears.heard Gets each event's kind and document.
 * @param {function(boolean): void} ears.connected Told when the stream is there, and when it is not.
 * @param {function(): void} ears.refused Told when it will not be there again.
 * @returns {function(): void} Leaves.
 */
export function listen(address, { heard, connected, refused }) {
  const source = new EventSource(address);
  source.addEventListener('open', () => connected(true));
  source.addEventListener('error', () => {
    connected(false);
    if (source.readyState === EventSource.CLOSED) refused();
  });
  for (const kind of KINDS) {
    source.addEventListener(kind, (event) => heard(kind, JSON.parse(event.data)));
  }
  return () => source.close();
}
