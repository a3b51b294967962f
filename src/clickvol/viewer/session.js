// The session with the server: commands one after another, none lost, and the mask that follows.

import { selectedObject } from "./state.js";
import { t } from "./strings/strings.js";

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
  const advised = new Map(); // tag of a session: what the model says of the answer that is shown then
  let told = ""; // the last warnings, so that a click more does not repeat them

  const idOf = () => store.get().opened?.session_id;

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
    const advice = advised.get(state.tag) ?? null;
    store.set({ session: state, selected: known ? selected : (state.objects.at(-1)?.id ?? 1), advice });
  }

  /** Show how good the last answer is expected to be, what else there is, and where to click next. */
  async function askAdvice({ session, object_id }) {
    const { tag } = store.get().session;
    try {
      const advice = { object_id: object_id(), ...(await api.advice(session, object_id())) };
      advised.set(tag, advice);
      if (session === idOf() && tag === store.get().session.tag) store.set({ advice });
    } catch {
      // Without it the mask is the same.
    }
  }

  /** Return where the next prompt goes: the object chosen, or one that the server has yet to add. */
  const targetNow = () => (adding?.chosenBefore === store.get().selected ? adding : { id: store.get().selected });
  const targetId = () => targetNow().id ?? store.get().session.objects.length + 1;

  /**
   * Send an interaction, which may still be in the making, to the object that is chosen.
   *
   * @param {object | Promise<object>} interaction without its object.
   * @param {{says?: string, pending?: object | null, asks?: boolean, done?: (isAnswered: boolean) => void}} words `pending` is
   *   drawn until the answer comes, `asks` what the model says of it.
   */
  function shape(interaction, { says = t("Segmenting"), pending = null, asks = true, done } = {}) {
    const { overlap } = store.get();
    const target = targetNow();
    enqueue({
      says,
      asks,
      done,
      object_id: () => target.id,
      pending: pending && { ...pending, object_id: targetId() },
      call: async (id) => {
        if (target.id === null) throw new Error(t("the object was not added, nor this click; add it again"));
        return api.interact(id, { ...(await interaction), overlap, object_id: target.id });
      },
      then: tellAnswer,
    });
  }

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

  function tellAnswer({ answer }) {
    const warnings = answer.warnings.join();
    if (warnings !== told) for (const warning of answer.warnings) notify("info", warning);
    told = warnings;
    if (answer.num_voxels === 0) notify("info", t("there is no object at the click; try another place"));
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
      told = "";
      advised.clear();
      clearInterval(heart);
      heart = setInterval(
        () => api.heartbeat(opened.session_id).catch(() => {}), // the next command tells
        (1000 * opened.lease_seconds) / 3,
      );
      take(opened.state);
      await showMask();
    },
    shape,
    targetId,
    click: (mm, positive) =>
      shape({ kind: "click", space: "ras", position: mm, positive }, { pending: { ras_mm: mm, positive } }),
    /** Replace an earlier prompt by another one; `by` null removes it. */
    editPrompt(objectId, place, by, mark = null) {
      const { overlap } = store.get();
      const edit = { kind: "edit_prompt", object_id: objectId, place, overlap };
      enqueue({
        says: by ? t("Segmenting") : t("Removing"),
        asks: true,
        object_id: () => objectId,
        pending: mark && { ...mark, object_id: objectId },
        call: (id) => api.interact(id, by ? { ...edit, by: { ...by, object_id: objectId } } : edit),
        then: tellAnswer,
      });
    },
    /** Take the next of the masks that the model offers for the last answer, or the one before it (-1). */
    nextCandidate(step) {
      const { advice, overlap, working } = store.get();
      if (!advice || advice.candidates.length < 2 || working) return;
      const { object_id, chosen, candidates } = advice;
      const number = (chosen + step + candidates.length) % candidates.length;
      // One choice takes the place of the last one, so that a single undo takes it back.
      if (chosen) enqueue({ says: t("Choosing"), call: api.undo });
      if (!number) return;
      enqueue({
        says: t("Choosing"),
        call: (id) => api.interact(id, { kind: "choose_candidate", object_id, number, overlap }),
        then: ({ state }) => {
          advised.set(state.tag, { ...advice, chosen: number });
          store.set({ advice: advised.get(state.tag) });
        },
      });
    },
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
