// What can be done to a mark that was pressed: remove it, or move a click to the crosshair.

import { makeButton } from "../page.js";
import { t } from "../strings/strings.js";

/** Make the menu at a mark: `open(handle)` shows it, `close` hides it; `remove` and `moveHere` are told of the mark. */
export function makeMarkMenu(place, store, { remove, moveHere }) {
  const button = (textContent, title, run) => makeButton({ className: "small", textContent, title }, run);
  const removing = button(t("Remove"), t("Remove what was pressed (Delete)"), () => act(remove));
  const moving = button(t("Move to crosshair"), t("A drag moves it, too"), () => act(moveHere));
  place.append(removing, moving);

  function close() {
    if (place.hidden) return;
    place.hidden = true;
    store.set({ chosenMark: null });
  }

  function act(run) {
    const { chosenMark } = store.get();
    close();
    if (chosenMark) run(chosenMark);
  }

  return {
    open({ kind, object_id, place: number, positive, x, y }) {
      moving.hidden = kind !== "click";
      place.hidden = false;
      const { clientWidth, clientHeight } = place.parentElement;
      place.style.left = `${Math.min(x + 12, clientWidth - place.offsetWidth - 4)}px`;
      place.style.top = `${Math.min(y + 12, clientHeight - place.offsetHeight - 4)}px`;
      store.set({ chosenMark: { kind, object_id, place: number, positive } });
    },
    close,
    /** Remove what was pressed last; nothing where the menu is closed. */
    remove: () => act(remove),
  };
}
