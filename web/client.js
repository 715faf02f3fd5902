/**
 * The management API and the agents of a Ploinky Cloud server, for browsers and Node 18 or later.
 *
 *     const cloud = new Ploinky({ url: 'http://localhost:8000', key: 'pk_...' });
 *     await cloud.call('/demo', 'hello', ['World']);            // { message: 'Hello World' }
 *     await cloud.all('deployments');                           // every page of GET deployments
 *     await cloud.post('deployments/restart', { domain: 'localhost', path: '/demo' });
 *
 * On a page of the server itself neither `url` nor `key` is needed: `login` sets a cookie.
 * What the API takes and gives is described at /management/api/docs.
 */

const API = '/management/api/';
const MOST_A_PAGE = 1000;

/** What a server answered that is no success, or that none answered. */
export class PloinkyError extends Error {
  /**
   * @param {string} message For people.
   * @param {{code?: string, status?: number, details?: object, requestId?: string}} [facts]
   *     `status` is 0 where there was no answer; `code` is the API's, or UNREACHABLE or UNREADABLE.
   */
  constructor(message, { code = 'UNREACHABLE', status = 0, details = {}, requestId = '' } = {}) {
    super(message);
    Object.assign(this, { name: 'PloinkyError', code, status, details, requestId });
  }
}

/** One server, as one caller sees it. */
export class Ploinky {
  #url;
  #fields;

  /** @param {{url?: string, key?: string}} [options] Without `key`: as whoever has logged in here. */
  constructor({ url = '', key = '' } = {}) {
    this.#url = url.replace(/\/+$/, '');
    this.#fields = key ? { Authorization: `Bearer ${key}` } : {};
  }

  /** Gives the JSON of GET /management/api/`path`.  @throws {PloinkyError} */
  get(path, query = {}) {
    return this.#json('GET', API + path, { query });
  }

  /**
   * Asks for a change.
   *
   * @param {string} path
   * @param {object} [body]
   * @param {{revision?: string}} [seen] Of what is to change: it is refused (412) if that is another by now.
   * @throws {PloinkyError}
   */
  post(path, body = {}, { revision = '' } = {}) {
    return this.#json('POST', API + path, { body, fields: revision ? { 'If-Match': `"${revision}"` } : {} });
  }

  /** Removes what `query` names.  @throws {PloinkyError} */
  delete(path, query = {}) {
    return this.#json('DELETE', API + path, { query });
  }

  /** Gives the entries of all pages of a list, which its last page calls `name`.  @throws {PloinkyError} */
  async all(path, query = {}, name = path.split('/').pop()) {
    const found = [];
    for (let page = 1; ; page += 1) {
      const answer = await this.get(path, { ...query, page, perPage: MOST_A_PAGE });
      found.push(...answer[name]);
      if (!answer[name].length || found.length >= answer.total) return found;
    }
  }

  /** Begins a session; in a browser it is in a cookie from now on.  @throws {PloinkyError} */
  login(key) {
    return this.#json('POST', '/auth', { body: { command: 'login', params: [key] } });
  }

  /** Ends the session.  @throws {PloinkyError} */
  logout() {
    return this.#json('POST', '/auth', { body: { command: 'logout' } });
  }

  /** Runs a command of the agent at a path, and gives its result.  @throws {PloinkyError} */
  call(path, command, params = [], { signal } = {}) {
    return this.#json('POST', path, { body: { command, params }, signal });
  }

  /**
   * Gives the text of an answer as it comes, piece by piece: output that is followed, say.
   * @throws {PloinkyError} It is refused, or breaks off.
   */
  async *text(path, query = {}, { signal } = {}) {
    const answer = await this.#ask('GET', API + path, { query, signal });
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    try {
      for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
        yield decoder.decode(piece.value, { stream: true });
      }
    } catch (error) {
      if (signal?.aborted) return;
      throw new PloinkyError(`The answer broke off: ${error.message}`);
    } finally {
      reader.cancel().catch(() => {}); // it has ended, or nobody listens
    }
  }

  /** Where something of the API is, for links and for `EventSource`. */
  address(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
    const search = new URLSearchParams(given).toString();
    return this.#url + API + path + (search && `?${search}`);
  }

  async #json(method, path, options) {
    const answer = await this.#ask(method, path, options);
    try {
      return await answer.json();
    } catch {
      const status = answer.status;
      throw new PloinkyError('The answer is no JSON.', { code: 'UNREADABLE', status });
    }
  }

  async #ask(method, path, { query = {}, body, fields = {}, signal }) {
    const url = path.startsWith(API) ? this.address(path.slice(API.length), query) : this.#url + path;
    const type = body === undefined ? {} : { 'Content-Type': 'application/json' };
    let answer;
    try {
      answer = await fetch(url, {
        method,
        headers: { ...this.#fields, ...type, ...fields },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new PloinkyError(`The server does not answer: ${error.message}`);
    }
    if (!answer.ok) throw await refusal(answer);
    return answer;
  }
}

async function refusal(answer) {
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // not ours: a proxy's own page
  }
  return new PloinkyError(said?.message || `The answer was ${answer.status} ${answer.statusText}`, {
    code: said?.code ?? 'UNREADABLE',
    status: answer.status,
    details: said?.details,
    requestId: said?.requestId ?? answer.headers.get('X-Request-Id') ?? '',
  });
}
