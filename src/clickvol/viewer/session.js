// The session with the server: commands one after another, none lost, and the mask that follows.

import { selectedObject } from "./state.js";
import { t } from "./strings/strings.js";
import { makePrompting } from "./tools/prompting.js";

const MAX_SILENCE_SECONDS = 15; // until the page says that the server does not answer

/**
 * Run the commands of a user in order.
 *
 * @param {Record<string, any>} parts `api`, `store`, `scene` and `notify`; `reopen` opens the scan anew where the server
 *   has forgotten the session.
 */
export function makeSession({ api, store, scene, notify, reopen }) {
  let queue = [];
  let running = false;
  let shownTag = null;
  let heart = 0;
  // An object that the server has yet to add: clicks go to it, unless another one is chosen meanwhile.
  let adding = /** @type {{id: number | null, chosenBefore: number} | null} */ (null);

  const idOf = () => store.get().opened?.session_id;
  const { askAdvice, adviceAt, forget, ...prompting } = makePrompting({ api, store, notify, enqueue, targetNow: () => targetNow() });

  function enqueue(command) {
    if (!idOf()) return;
    queue.push({ ...command, session: idOf() });
    if (command.pending) store.set({ pending: [...store.get().pending, command.pending] });
    store.set({ waiting: queue.length });
    if (!running) run();
  }

  async function run() {
    running = true;
    while (queue.length) {
      const command = queue.shift();
      store.set({ working: command.says, waiting: queue.length });
      if (command.session === idOf()) await carryOut(command);
    }
    store.set({ working: "", waiting: 0 });
    running = false;
  }

  async function carryOut(command) {
    let isAnswered = false;
    try {
      const answer = await command.call(command.session);
      if (command.session !== idOf()) return;
      isAnswered = true;
      take(answer.state);
      command.then?.(answer);
    } catch (error) {
      explain(error, command);
    } finally {
      command.done?.(isAnswered);
      if (command.pending) {
        store.set({ pending: store.get().pending.filter((click) => click !== command.pending) });
      }
    }
    // Of several answers in a row, only the last one's mask is looked at.
    if (!queue.length) await showMask();
    if (!queue.length && isAnswered && command.asks) await askAdvice(command);
  }

  function take(state) {
    const { selected } = store.get();
    const known = state.objects.some((object) => object.id === selected);
    const shown = known ? selected : (state.objects.at(-1)?.id ?? 1);
    store.set({ session: state, selected: shown, advice: adviceAt(state.tag) });
  }

  /** Return where the next prompt goes: the object chosen, or one that the server has yet to add. */
  const targetNow = () => (adding && adding.chosenBefore === store.get().selected ? adding : { id: store.get().selected });

  async function showMask() {
    const { session } = store.get();
    if (session.tag === shownTag) return;
    try {
      const { tag, objects } = await api.masks(idOf(), scene.knownMasks);
      scene.showMasks(objects);
      shownTag = tag;
    } catch (error) {
      notify("error", t("the mask could not be shown: {problem}", { problem: error.message }), { name: t("Try again"), run: showMask });
    }
  }

  function explain(error, command) {
    if (error.isGone) {
      queue = [];
      notify("error", t("the server has closed this session; its clicks are kept"), { name: t("Open again"), run: reopen });
      return;
    }
    // What did not arrive can be sent again; what was refused would be refused again.
    const again = error.status === 0 ? { name: t("Try again"), run: () => enqueue(command) } : null;
    notify("error", error.message ?? String(error), again);
  }

  function showLastClick() {
    const click = selectedObject(store.get())?.clicks.at(-1);
    if (click) scene.goTo(click.ras_mm);
  }

  return {
    showLastClick,
    /** Begin with what the server said when it opened a scan. */
    async begin(opened) {
      queue = [];
      adding = null;
      shownTag = null;
      forget();
      clearInterval(heart);
      heart = setInterval(
        () => api.heartbeat(opened.session_id).catch(() => {}), // the status line says so, or the next command
        1000 * Math.min(opened.lease_seconds / 3, MAX_SILENCE_SECONDS),
      );
      take(opened.state);
      await showMask();
    },
    ...prompting,
    undo: () => enqueue({ says: t("Undoing"), call: api.undo }),
    redo: () => enqueue({ says: t("Redoing"), call: api.redo }),
    addObject() {
      const added = { id: /** @type {number | null} */ (null), chosenBefore: store.get().selected };
      adding = added;
      enqueue({
        says: t("Adding an object"),
        call: async (id) => {
          try {
            const answer = await api.addObject(id, "");
            added.id = answer.object_id;
            return answer;
          } finally {
            if (adding === added) adding = null;
          }
        },
        then: ({ object_id }) => {
          if (store.get().selected === added.chosenBefore) store.set({ selected: object_id });
        },
      });
    },
    describe: (objectId, changes) => enqueue({ says: t("Naming"), call: (id) => api.describe(id, objectId, changes) }),
    /** Take an object away; there is always one to go on with. */
    remove: (objectId) =>
      enqueue({
        says: t("Deleting"),
        call: async (id) => {
          const answer = await api.remove(id, objectId);
          return answer.state.objects.length ? answer : api.addObject(id, "");
        },
      }),
    /** Make objects of those of a file, or of a path below the served folder. */
    addMasks: (source) => enqueue({ says: t("Reading the masks"), call: (id) => api.addMasks(id, source), then: showLastClick }),
    freeze: (objectId, frozen) =>
      enqueue({ says: frozen ? t("Freezing") : t("Unfreezing"), call: (id) => api.freeze(id, objectId, frozen) }),
    resume: (log) =>
      enqueue({
        says: t("Opening the earlier clicks"),
        call: (id) => api.resume(id, log),
        then: showLastClick,
      }),
  };
}
