// The dialog of an object: its name, what it is, its colour, how long it is, its surface as a file, and its end.

import { handOver } from "../files/choosing.js";
import { byId, make } from "../page.js";
import { nameOf, ownColour } from "../state.js";
import { keep, numberText, readKept, t } from "../strings/strings.js";

const KEPT_NAMES = "clickvol.names"; // the user's own list: names given lately
const MAX_NAMES = 30;

/** Return a list of names with one at its front. */
export const withName = (names, name) => [name, ...names.filter((each) => each !== name)].slice(0, MAX_NAMES);

function ownNames() {
  try {
    return JSON.parse(readKept(KEPT_NAMES) ?? "[]").map(String);
  } catch {
    return []; // not ours
  }
}

/** Make the dialog; return a function that opens it for an object, by its id. */
export function makeDescribing({ api, store, notify, session }) {
  const dialog = byId("object-dialog");
  const [name, term, colour] = ["name", "term", "colour"].map((each) => byId(`object-${each}`));
  let object = /** @type {any} */ (null);
  let measured = /** @type {any} */ (null);
  let terms = /** @type {any[] | null} */ (null);

  async function listTerms() {
    if (terms) return;
    terms = await api.terms();
    for (const category of new Set(terms?.map((each) => each.category))) {
      const group = make("optgroup", { label: category });
      group.append(...(terms ?? []).filter((each) => each.category === category).map(({ code, meaning }) => new Option(meaning, code)));
      term.append(group);
    }
  }

  async function measure({ session_id }, id) {
    byId("measured").textContent = "";
    measured = null;
    if (!object.num_voxels) return;
    const found = await api.measurements(session_id, id);
    if (object?.id !== id || !found.longest) return;
    measured = found;
    const values = { space: numberText(found.longest.mm, 1), slice: numberText(found.longest_on_slice.mm, 1) };
    byId("measured").textContent = t("Longest diameter {space} mm in space, {slice} mm on a slice", values);
  }

  function finish() {
    if (dialog.returnValue !== "keep") return;
    const given = { name: name.value.trim(), term: term.value, colour: colour.value === ownColour(object.id) ? "" : colour.value };
    const changes = Object.fromEntries(Object.entries(given).filter(([key, value]) => value !== object[key]));
    if (given.name) keep(KEPT_NAMES, JSON.stringify(withName(ownNames(), given.name)));
    if (Object.keys(changes).length) session.describe(object.id, changes);
  }

  async function saveSurface() {
    try {
      const stem = nameOf(object).replace(/[<>:"/\\|?*]+/g, "_");
      handOver({ name: `${stem}.stl`, blob: await api.surface(store.get().opened.session_id, object.id) });
    } catch (error) {
      notify("error", error.message);
    }
  }

  function showDiameters() {
    const rulers = [measured.longest, measured.longest_on_slice].map(({ mm, ends_ras_mm }) => ({ mm, ends: ends_ras_mm }));
    store.set({ rulers });
    dialog.close("cancel");
  }

  // A term names what has no name yet.
  term.addEventListener("change", () => {
    if (!name.value && term.value) name.value = term.selectedOptions[0].textContent;
  });
  byId("save-surface").addEventListener("click", saveSurface);
  byId("show-diameters").addEventListener("click", () => measured && showDiameters());
  byId("delete-object").addEventListener("click", () => {
    session.remove(object.id);
    dialog.close("cancel");
  });
  dialog.addEventListener("close", finish);

  return async function open(id) {
    const { opened, session: known } = store.get();
    object = known.objects.find((each) => each.id === id);
    if (!object || dialog.open) return;
    await listTerms().catch((error) => notify("error", error.message));
    byId("names").replaceChildren(...ownNames().map((each) => new Option(each)));
    byId("object-title").textContent = nameOf(object);
    name.value = object.name;
    term.value = object.term;
    colour.value = object.colour || ownColour(id);
    for (const each of ["show-diameters", "save-surface"]) byId(each).disabled = !object.num_voxels;
    byId("delete-object").disabled = object.frozen;
    dialog.returnValue = "cancel";
    dialog.showModal();
    await measure(opened, id).catch((error) => notify("error", error.message));
  };
}
