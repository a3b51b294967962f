// The server's HTTP interface: one method per call, and one kind of error.

import { t } from "./strings/strings.js";

const RETRY_STATUSES = new Set([429, 503]);
const MAX_TRIES = 8;

/** What went wrong, in the server's one line. `status` is 0 where no answer came at all. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.name = "ApiError";
    this.status = status;
  }

  /** The session is over (its lease ended, or the server was started anew). */
  get isGone() {
    return this.status === 404;
  }
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function errorOf(response) {
  let message = t("the server answered {status}; try again", { status: response.status });
  try {
    message = (await response.json()).error ?? message;
  } catch {
    // Not JSON: the status alone must do.
  }
  return new ApiError(message, response.status);
}

function fileNameOf(response, otherwise) {
  const header = response.headers.get("Content-Disposition") ?? "";
  return /filename="?([^";]+)"?/.exec(header)?.[1] ?? otherwise;
}

/** Return a function that reads masks in a worker. */
function makeDecoder() {
  const worker = new Worker(new URL("./picture/mask-worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let number = 0;
  worker.addEventListener("message", ({ data }) => {
    const { resolve, reject } = waiting.get(data.number);
    waiting.delete(data.number);
    if (data.problem) reject(new ApiError(data.problem, 0));
    else resolve(data.read);
  });
  return (buffer) =>
    new Promise((resolve, reject) => {
      number += 1;
      waiting.set(number, { resolve, reject });
      worker.postMessage({ number, buffer }, [buffer]);
    });
}

/**
 * Return the body of a request that brings a file, or names a path.
 *
 * @param {{file?: File, path?: string, series?: string, volume?: number}} source
 * @param {string} field of the form.
 */
function bodyOf({ file, path, series, volume }, field) {
  if (!file) return { json: { path, series, volume } };
  const form = new FormData();
  form.append(field, file, file.name);
  if (series) form.append("series", series);
  if (volume !== undefined) form.append("volume", String(volume));
  return { form };
}

/**
 * Make the calls of one page.
 *
 * @param {string|null} token sent with every call; null where the server asks for none.
 * @param {(offline: boolean) => void} tellOffline told with every call whether the server answered.
 * @param {() => void} askForToken called where the token is missing or that of an earlier start.
 */
export function makeApi(token, tellOffline = () => {}, askForToken = () => {}) {
  /**
   * @param {string} method
   * @param {string} path below /api/
   * @param {{json?: unknown, form?: FormData, keepalive?: boolean, tries?: number}} options
   * @returns {Promise<Response>}
   */
  async function call(method, path, { json, form, keepalive = false, tries = MAX_TRIES } = {}) {
    /** @type {Record<string, string>} */
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (json !== undefined) headers["Content-Type"] = "application/json";
    const body = json === undefined ? form : JSON.stringify(json);
    let response;
    try {
      response = await fetch(`api/${path}`, { method, headers, body, keepalive, cache: "no-store" });
      tellOffline(false);
    } catch {
      tellOffline(true);
      throw new ApiError(t("the server does not answer; see whether clickvol still runs in its terminal"), 0);
    }
    // A full queue is no refusal: the server says when to come again.
    if (RETRY_STATUSES.has(response.status) && tries > 1) {
      await pause(Math.min(Number(response.headers.get("Retry-After")) || 1, 10));
      return call(method, path, { json, form, keepalive, tries: tries - 1 });
    }
    if (response.status === 401) askForToken();
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  const decode = makeDecoder();
  /** @param {Parameters<typeof call>} words */
  const asJson = async (...words) => (await call(...words)).json();
  /** @param {Parameters<typeof call>} words */
  const asBytes = async (...words) => (await call(...words)).arrayBuffer();

  return {
    cases: (annotator) => asJson("GET", `worklist?annotator=${annotator}`),
    nextCase: (annotator, after) => asJson("POST", "worklist/next", { json: { annotator, after } }),
    claimCase: (id, annotator) => asJson("POST", `worklist/${id}/claim`, { json: { annotator }, tries: 1 }),
    openCase: (id, annotator, volume) => asJson("POST", `worklist/${id}/open`, { json: { annotator, volume } }),
    caseVolumes: (id) => asJson("GET", `worklist/${id}/volumes`),
    casePicture: (id) => asJson("GET", `worklist/${id}/picture`),
    caseScan: (id) => asBytes("GET", `worklist/${id}/scan.nii`),
    finishCase: (id, given) => asJson("POST", `worklist/${id}/done`, { json: given }),
    start: () => asJson("GET", "start"),
    model: () => asJson("GET", "model"),
    open: (source) => asJson("POST", "sessions", bodyOf(source, "scan")),
    scan: (id) => asBytes("GET", `sessions/${id}/scan.nii`),
    masks: async (id, known) => decode(await asBytes("GET", `sessions/${id}/masks?known=${known}`)),
    seriesOf: ({ file, path }) =>
      file ? asJson("POST", "series", bodyOf({ file }, "scan")) : asJson("GET", `series?path=${encodeURIComponent(path)}`),
    interact: (id, interaction) => asJson("POST", `sessions/${id}/interactions`, { json: interaction }),
    advice: (id, objectId) => asJson("GET", `sessions/${id}/objects/${objectId}/advice`),
    undo: (id) => asJson("POST", `sessions/${id}/undo`),
    redo: (id) => asJson("POST", `sessions/${id}/redo`),
    addObject: (id, name) => asJson("POST", `sessions/${id}/objects`, { json: { name } }),
    freeze: (id, objectId, frozen) =>
      asJson("PATCH", `sessions/${id}/objects/${objectId}`, { json: { frozen } }),
    terms: () => asJson("GET", "terms"),
    describe: (id, objectId, changes) => asJson("PATCH", `sessions/${id}/objects/${objectId}`, { json: changes }),
    remove: (id, objectId) => asJson("DELETE", `sessions/${id}/objects/${objectId}`),
    measurements: (id, objectId) => asJson("GET", `sessions/${id}/objects/${objectId}/measurements`),
    async surface(id, objectId) {
      return (await call("GET", `sessions/${id}/objects/${objectId}/surface.stl`)).blob();
    },
    proposal: (id) => asJson("GET", `sessions/${id}/proposal`),
    addMasks: (id, source) => asJson("POST", `sessions/${id}/masks`, bodyOf(source, "mask")),
    compare: (id, source) => asJson("PUT", `sessions/${id}/reference`, bodyOf(source, "mask")),
    comparison: (id) => asJson("GET", `sessions/${id}/comparison`),
    reference: (id) => asJson("GET", `sessions/${id}/reference`),
    forgetReference: (id) => call("DELETE", `sessions/${id}/reference`),
    async overlay(id, source) {
      const response = await call("POST", `sessions/${id}/overlay`, bodyOf(source, "scan"));
      return { bytes: await response.arrayBuffer(), modality: response.headers.get("X-Modality") };
    },
    resume: (id, log) => asJson("POST", `sessions/${id}/resume`, { json: { log } }),
    heartbeat: (id) => asJson("POST", `sessions/${id}/heartbeat`, { tries: 1 }),
    close: (id) => call("DELETE", `sessions/${id}`, { keepalive: true, tries: 1 }),
    async exportFile(id, format, deidentify) {
      const response = await call("GET", `sessions/${id}/export?format=${format}&deidentify=${deidentify}`);
      return { name: fileNameOf(response, "mask"), blob: await response.blob() };
    },
  };
}
