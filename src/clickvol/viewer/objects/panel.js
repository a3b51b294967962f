// The panel at the right: what a click marks, the objects, and how the masks look.

import { byId } from "../page.js";
import { colourOf, nameOf } from "../state.js";
import { numberText, t } from "../strings/strings.js";

const LOCK = "M7 11V8a5 5 0 0 1 10 0v3M5.5 11h13v9h-13z";
const OPEN_LOCK = "M7 11V8a5 5 0 0 1 9.6-2M5.5 11h13v9h-13z";

function lockIcon(frozen) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", frozen ? LOCK : OPEN_LOCK);
  svg.append(path);
  return svg;
}

function clicksText({ clicks, frozen }) {
  const values = { count: clicks.length };
  if (frozen) return clicks.length === 1 ? t("{count} click, frozen", values) : t("{count} clicks, frozen", values);
  return clicks.length === 1 ? t("{count} click", values) : t("{count} clicks", values);
}

/** Return the volume of an object in ml with three digits that mean something; a dash for none. */
export function volumeText(object) {
  if (!object.num_voxels) return "–";
  const digits = object.volume_ml < 10 ? 2 : object.volume_ml < 100 ? 1 : 0;
  return `${numberText(object.volume_ml, digits)} ml`;
}

function objectRow(object, isSelected, commands) {
  const row = document.createElement("li");
  row.className = `object${isSelected ? " selected" : ""}${object.frozen ? " frozen" : ""}`;
  row.style.setProperty("--colour", colourOf(object.id));

  const pick = document.createElement("button");
  pick.type = "button";
  pick.className = "pick";
  pick.dataset.object = object.id;
  pick.setAttribute("aria-pressed", String(isSelected));
  const part = (className, text) => {
    const span = document.createElement("span");
    span.className = className;
    span.textContent = text;
    pick.append(span);
  };
  part("chip", "");
  part("object-name", nameOf(object));
  part("object-volume", volumeText(object));
  part("object-clicks", clicksText(object));
  pick.addEventListener("click", () => commands.select(object.id));

  const freeze = document.createElement("button");
  freeze.type = "button";
  freeze.className = "freeze";
  freeze.dataset.freeze = object.id;
  freeze.setAttribute("aria-pressed", String(object.frozen));
  freeze.setAttribute("aria-label", t("Freeze {name}", { name: nameOf(object) }));
  freeze.title = object.frozen
    ? t("Frozen: no click changes it, and other objects leave it alone (F)")
    : t("Freeze: no click changes it, and other objects leave it alone (F)");
  freeze.append(lockIcon(object.frozen));
  freeze.addEventListener("click", () => commands.freeze(object.id, !object.frozen));
  row.append(pick, freeze);
  return row;
}

/** Write the rows anew without taking the keyboard's focus away. */
function writeObjects(list, state, commands) {
  const { object, freeze } = /** @type {HTMLElement | null} */ (document.activeElement)?.dataset ?? {};
  list.replaceChildren(
    ...state.session.objects.map((each) => objectRow(each, each.id === state.selected, commands)),
  );
  if (object) list.querySelector(`[data-object="${object}"]`)?.focus();
  if (freeze) list.querySelector(`[data-freeze="${freeze}"]`)?.focus();
}

function statusText({ opened, working, waiting, session, offline, tool }) {
  if (!opened) return "";
  if (offline) return t("The server does not answer");
  if (working) return waiting ? t("{work}… {count} waiting", { work: working, count: waiting }) : t("{work}…", { work: working });
  const clicks = session.objects.reduce((sum, object) => sum + object.clicks.length, 0);
  if (tool === "navigate") return t("Looking: no click segments (P: point)");
  return clicks ? t("Ready") : t("Click inside the tumour");
}

/** Return a function that writes a state into the panel; `commands` are told what was pressed. */
export function makePanel(store, commands) {
  const list = byId("objects");
  const modes = [...byId("mode").querySelectorAll("button")];
  for (const button of modes) {
    button.addEventListener("click", () => store.set({ mode: button.dataset.mode }));
  }
  byId("add").addEventListener("click", commands.addObject);
  const [opacity, outline] = [byId("opacity"), byId("outline")];
  opacity.addEventListener("input", () => store.set({ opacity: Number(opacity.value) / 100 }));
  outline.addEventListener("change", () => store.set({ outline: outline.checked }));

  const tools = [...byId("tools").querySelectorAll("button")];
  for (const button of tools) button.addEventListener("click", () => commands.tool(button.dataset.tool));
  byId("take").addEventListener("change", commands.switchOverlap);
  byId("masks-shown").addEventListener("change", commands.hideMasks);

  return function write(state, before) {
    const isNew = before === undefined;
    if (isNew || state.session !== before.session || state.selected !== before.selected) {
      writeObjects(list, state, commands);
    }
    if (isNew || state.mode !== before.mode) {
      for (const button of modes) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
    }
    for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === state.tool));
    byId("take").checked = state.overlap === "take";
    byId("masks-shown").checked = !state.masksHidden;
    byId("add").disabled = !state.opened;
    opacity.value = String(Math.round(100 * state.opacity));
    byId("opacity-value").textContent = `${opacity.value} %`;
    outline.checked = state.outline;
    const status = statusText(state);
    if (byId("status").textContent !== status) byId("status").textContent = status;
  };
}
