// The panel at the right: what a click marks, the objects, and how the masks look.

import { byId, make, makeButton } from "../page.js";
import { colourOf, nameOf } from "../state.js";
import { numberText, t } from "../strings/strings.js";

const ICONS = {
  locked: "M7 11V8a5 5 0 0 1 10 0v3M5.5 11h13v9h-13z",
  open: "M7 11V8a5 5 0 0 1 9.6-2M5.5 11h13v9h-13z",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM9 12a3 3 0 1 0 6 0 3 3 0 1 0-6 0",
  closed: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12ZM4 20L20 4",
  pencil: "M4 20l1-4L16.5 4.5l3 3L8 19z",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const CLICKS = ["{count} click", "{count} clicks", "{count} click, frozen", "{count} clicks, frozen"];
const PROMPTS = ["{count} prompt", "{count} prompts", "{count} prompt, frozen", "{count} prompts, frozen"];

/** Return what an object was made from: "3 clicks", or "2 prompts" where something was drawn. */
export function promptsText({ clicks, marks, frozen, num_voxels }) {
  const count = clicks.length + marks.length;
  if (!count && num_voxels) return frozen ? t("given or painted, frozen") : t("given or painted");
  return t((marks.length ? PROMPTS : CLICKS)[(frozen ? 2 : 0) + (count === 1 ? 0 : 1)], { count });
}

/** Return the volume of an object in ml with three digits that mean something; a dash for none. */
export function volumeText(object) {
  if (!object.num_voxels) return "–";
  const digits = object.volume_ml < 10 ? 2 : object.volume_ml < 100 ? 1 : 0;
  return `${numberText(object.volume_ml, digits)} ml`;
}

/** Return a small button of a row; `pressed` null for one that is no switch. */
function rowButton(kind, object, shape, { label, title = label, pressed = /** @type {boolean | null} */ (null) }, act) {
  const button = makeButton({ className: `row-button ${kind}`, title }, act, icon(shape));
  button.dataset[kind] = object.id;
  button.setAttribute("aria-label", label);
  if (pressed !== null) button.setAttribute("aria-pressed", String(pressed));
  return button;
}

function objectRow(object, { selected, hidden }, commands) {
  const name = nameOf(object);
  const [isSelected, isHidden] = [object.id === selected, hidden.includes(object.id)];
  const row = make("li", {
    className: `object${isSelected ? " selected" : ""}${object.frozen ? " frozen" : ""}${isHidden ? " unseen-object" : ""}`,
  });
  row.style.setProperty("--colour", colourOf(object.id));
  const part = (className, textContent) => make("span", { className, textContent });
  const pick = makeButton(
    { className: "pick", title: name },
    () => commands.select(object.id),
    part("chip", ""),
    part("object-name", name),
    part("object-volume", volumeText(object)),
    part("object-clicks", promptsText(object)),
  );
  pick.dataset.object = object.id;
  pick.setAttribute("aria-pressed", String(isSelected));
  pick.addEventListener("dblclick", () => commands.describe(object.id));
  const frozen = object.frozen
    ? t("Frozen: no click changes it, and other objects leave it alone (F)")
    : t("Freeze: no click changes it, and other objects leave it alone (F)");
  row.append(
    pick,
    rowButton("eye", object, isHidden ? "closed" : "eye", { label: t("Hide {name}", { name }), pressed: isHidden }, () => commands.switchEye(object.id)),
    rowButton("freeze", object, object.frozen ? "locked" : "open", { label: t("Freeze {name}", { name }), title: frozen, pressed: object.frozen }, () =>
      commands.freeze(object.id, !object.frozen),
    ),
    rowButton("describe", object, "pencil", { label: t("Name, colour and size of {name}", { name }) }, () => commands.describe(object.id)),
  );
  return row;
}

/** Write the rows anew without taking the keyboard's focus away. */
function writeObjects(list, state, commands) {
  const held = Object.entries({ .../** @type {HTMLElement | null} */ (document.activeElement)?.dataset });
  list.replaceChildren(...state.session.objects.map((each) => objectRow(each, state, commands)));
  for (const [kind, id] of held) list.querySelector(`[data-${kind}="${id}"]`)?.focus();
}

/** Set the colours that were chosen; the others are those of the numbers. */
function writeColours({ session }) {
  const { style } = document.documentElement;
  for (const { id, colour } of session.objects) {
    if (colour) style.setProperty(`--object-${id}`, colour);
    else style.removeProperty(`--object-${id}`);
  }
}

function statusText({ opened, working, waiting, session, offline, tool }) {
  if (!opened) return "";
  if (offline) return t("The server does not answer");
  if (working) return waiting ? t("{work}… {count} waiting", { work: working, count: waiting }) : t("{work}…", { work: working });
  const isBegun = session.objects.some(({ clicks, num_voxels }) => clicks.length || num_voxels);
  if (tool === "ruler") return t("Drag to measure; a click takes the rulers away");
  if (tool === "navigate") return t("Looking: no click segments (P: point)");
  return isBegun ? t("Ready") : t("Click inside the tumour");
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
  byId("load-masks").addEventListener("click", commands.loadMasks);
  byId("large").addEventListener("change", commands.switchLayout);
  byId("masks-only").addEventListener("change", ({ target }) => store.set({ masksOnly: target.checked }));

  return function write(state, before) {
    const isNew = before === undefined;
    if (isNew || ["session", "selected", "hidden"].some((name) => state[name] !== before[name])) {
      writeColours(state);
      writeObjects(list, state, commands);
    }
    if (isNew || state.mode !== before.mode) {
      for (const button of modes) button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
    }
    for (const button of tools) button.setAttribute("aria-pressed", String(button.dataset.tool === state.tool));
    byId("take").checked = state.overlap === "take";
    byId("masks-shown").checked = !state.masksHidden;
    byId("add").disabled = byId("load-masks").disabled = !state.opened;
    byId("large").checked = state.layout === "large";
    byId("masks-only").checked = state.masksOnly;
    opacity.value = String(Math.round(100 * state.opacity));
    byId("opacity-value").textContent = `${opacity.value} %`;
    outline.checked = state.outline;
    const status = statusText(state);
    if (byId("status").textContent !== status) byId("status").textContent = status;
  };
}
