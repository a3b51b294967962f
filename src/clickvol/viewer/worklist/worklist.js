// The list of cases at the left: who has which, opening one, saving it and going on with the next.

import { byId, make } from "../page.js";
import { t } from "../strings/strings.js";

const REFRESH_SECONDS = 30; // a claim that is not renewed ends after 120

/** Return the name of this tab towards the server, which gives no case to two of them; it outlives a reload. */
function annotatorName() {
  const kept = sessionStorage.getItem("annotator");
  if (kept) return kept;
  const name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem("annotator", name);
  return name;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Return what shows the picture of a case's button once it is seen: one after the other, each means reading a scan. */
function watchPictures(api) {
  let drawing = Promise.resolve();
  const pictures = new IntersectionObserver((seen) => {
    for (const { target } of seen.filter((each) => each.isIntersecting)) {
      pictures.unobserve(target);
      drawing = drawing.then(async () => {
        const { picture } = await api.casePicture(/** @type {HTMLElement} */ (target).dataset.case).catch(() => ({ picture: null }));
        if (picture) target.querySelector("img")?.setAttribute("src", picture);
      });
    }
  });
  return pictures;
}

const fits = ({ name, status }, text) => `${name} ${status} ${t(status)}`.toLowerCase().includes(text);

/** Return the first case after one, coming round, that nobody has and that is to be done. */
function likelyNext(cases, after) {
  const ordered = [...cases.filter(({ id }) => id > after), ...cases.filter(({ id }) => id < after)];
  return ordered.find(({ status, held }) => !held && (status === "new" || status === "in progress"));
}

/** Return {show, openNext, saveAndNext}. */
export function makeWorklist({ api, store, notify, opening, isUndecided }) {
  const annotator = annotatorName();
  const opened = new Map(); // by session: {id, name, since}
  const buttons = new Map(); // by case
  let cases = [];
  let isBusy = false; // one case at a time is opened or saved

  const pictures = watchPictures(api);
  let ahead = /** @type {{id: number, bytes: Promise<ArrayBuffer | null>} | null} */ (null);

  /** Fetch the scan of the case that is likely to be next; nobody is kept from it. */
  function fetchAhead(after) {
    const each = likelyNext(cases, after);
    if (each && ahead?.id !== each.id) ahead = { id: each.id, bytes: api.caseScan(each.id).catch(() => null) };
  }

  const current = () => opened.get(store.get().opened?.session_id);

  function buttonOf(each) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "case";
    button.dataset.case = each.id;
    button.title = each.name;
    const name = document.createElement("span");
    name.textContent = each.name;
    const picture = make("img", { alt: "", width: 40, height: 40 });
    button.append(picture, name, document.createElement("small"));
    button.addEventListener("click", () => alone(() => open(each)));
    const line = document.createElement("li");
    line.append(button);
    byId("cases").append(line);
    pictures.observe(button);
    return button;
  }

  function write() {
    const text = byId("worklist-search").value.trim().toLowerCase();
    const now = current();
    for (const each of cases) {
      if (!buttons.has(each.id)) buttons.set(each.id, buttonOf(each));
      const button = buttons.get(each.id);
      button.parentElement.hidden = !fits(each, text);
      button.disabled = each.held;
      button.dataset.status = each.status;
      button.setAttribute("aria-current", String(each.id === now?.id));
      button.lastElementChild.textContent = each.held ? t("{status}, another annotator", { status: t(each.status) }) : t(each.status);
    }
    const numDone = cases.filter(({ status }) => status === "done").length;
    byId("worklist-count").textContent = t("{done} of {count} done", { done: numDone, count: cases.length });
    byId("case-save").disabled = byId("case-skip").disabled = !now || isBusy;
  }

  async function refresh() {
    cases = await api.cases(annotator);
    write();
  }

  async function renew() {
    const now = current();
    try {
      if (now) await api.claimCase(now.id, annotator);
      await refresh();
    } catch (error) {
      if (error.status) notify("error", error.message); // where no answer came, the page says so already
    }
  }

  /** Do something, and nothing where something is being done. */
  async function alone(act) {
    if (isBusy) return;
    isBusy = true;
    write();
    try {
      await act();
      await refresh();
    } catch (error) {
      notify("error", error.message ?? String(error));
    } finally {
      isBusy = false;
      write();
    }
  }

  const sourceOf = ({ id, name }, bytes, volume) => ({
    name, bytes, says: t("Reading the scan"),
    open: async () => {
      const answer = await api.openCase(id, annotator, volume);
      opened.set(answer.session_id, { id, name, since: Date.now() });
      return answer;
    },
    choose: () => api.caseVolumes(id),
    with: (chosen) => sourceOf({ id, name }, null, chosen.volume),
  });

  async function open({ id, name }) {
    await opening.open(sourceOf({ id, name }, ahead && ahead.id === id ? await ahead.bytes : null));
    if (current()?.id === id) fetchAhead(id);
    buttons.get(id)?.scrollIntoView({ block: "nearest" });
  }

  async function next(after) {
    const each = await api.nextCase(annotator, after);
    if (each) await open(each);
    else notify("info", t("there is no further case: all are done, skipped, or with another annotator"));
  }

  async function finish(isSkipped) {
    const now = current();
    if (!now) return;
    // Clicks that wait in line belong to the case.
    while (store.get().working || store.get().waiting) await pause(50);
    if (current() !== now) return;
    if (!isSkipped && isUndecided()) return;
    const { opened: scan, session } = store.get();
    if (!isSkipped && !session.objects.some((object) => object.num_voxels)) {
      notify("info", t("there is nothing to save yet; click inside a tumour, or skip the case"));
      return;
    }
    const seconds = (Date.now() - now.since) / 1000;
    store.set({ working: isSkipped ? "" : t("Saving the case") });
    try {
      await api.finishCase(now.id, { annotator, seconds, session_id: isSkipped ? null : scan.session_id });
    } finally {
      store.set({ working: "" });
    }
    notify("info", isSkipped ? t("skipped {name}", now) : t("saved {name}", now));
    await next(now.id);
  }

  const saveAndNext = () => alone(() => finish(false));
  byId("worklist-search").addEventListener("input", write);
  byId("case-save").addEventListener("click", saveAndNext);
  byId("case-skip").addEventListener("click", () => alone(() => finish(true)));
  store.subscribe((state, before) => state.opened !== before.opened && write());

  return {
    saveAndNext,
    openNext: () => alone(() => next(0)),
    /** Show the list where the server has one; say whether it has. */
    async show() {
      await refresh();
      if (!cases.length) return false;
      byId("worklist").hidden = false;
      byId("work").classList.add("listed");
      setInterval(renew, 1000 * REFRESH_SECONDS);
      return true;
    },
  };
}
