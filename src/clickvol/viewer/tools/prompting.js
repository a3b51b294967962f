// Prompts and edits on their way to the server, and what the model says of its answers.

import { t } from "../strings/strings.js";

/** @typedef {import("../state.js").Advice} Advice */

/**
 * Make what sends interactions.
 *
 * @param {Record<string, any>} parts `api`, `store` and `notify`; `enqueue` takes commands, `targetNow` says which object is
 *   meant: its id, null while the server has yet to add it.
 */
export function makePrompting({ api, store, notify, enqueue, targetNow }) {
  const advised = /** @type {Map<string, Advice>} */ (new Map()); // by the tag of the session
  let told = ""; // the last warnings, so that a click more does not repeat them

  const targetId = () => targetNow().id ?? Math.max(0, ...store.get().session.objects.map(({ id }) => id)) + 1;

  function tellAnswer({ answer }, isAsked) {
    const warnings = answer.warnings.join();
    if (warnings !== told) for (const warning of answer.warnings) notify("info", warning);
    told = warnings;
    if (isAsked && answer.num_voxels === 0) notify("info", t("there is no object at the click; try another place"));
  }

  /**
   * Send an interaction, which may still be in the making, to the object that is chosen.
   *
   * @param {object | Promise<object>} interaction without its object.
   * @param {{says?: string, pending?: object | null, asks?: boolean, done?: (isAnswered: boolean) => void}} words `pending`
   *   is drawn until the answer comes, `asks` what the model says of it, `done` is told whether it was answered.
   */
  function shape(interaction, { says = t("Segmenting"), pending = null, asks = true, done } = {}) {
    const { overlap } = store.get();
    const target = targetNow();
    enqueue({
      says,
      asks,
      done,
      objectId: () => target.id,
      pending: pending && { ...pending, object_id: targetId() },
      call: async (id) => {
        if (target.id === null) throw new Error(t("the object was not added, nor this click; add it again"));
        return api.interact(id, { ...(await interaction), overlap, object_id: target.id });
      },
      then: (answer) => tellAnswer(answer, asks),
    });
  }

  return {
    targetId,
    shape,
    click: (mm, positive) =>
      shape({ kind: "click", space: "ras", position: mm, positive }, { pending: { ras_mm: mm, positive } }),

    /**
     * Replace an earlier prompt by another one, or remove it.
     *
     * @param {number} objectId
     * @param {number} place of the prompt.
     * @param {object | null} by the other one; null for none.
     * @param {object | null} mark drawn until the answer comes.
     */
    editPrompt(objectId, place, by, mark = null) {
      const edit = { kind: "edit_prompt", object_id: objectId, place, overlap: store.get().overlap };
      enqueue({
        says: by ? t("Segmenting") : t("Removing"),
        asks: true,
        objectId: () => objectId,
        pending: mark && { ...mark, object_id: objectId },
        call: (id) => api.interact(id, by ? { ...edit, by: { ...by, object_id: objectId } } : edit),
        then: (answer) => tellAnswer(answer, by !== null),
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
        then({ state }) {
          advised.set(state.tag, { ...advice, chosen: number });
          store.set({ advice: advised.get(state.tag) });
        },
      });
    },

    /** Return what the model said when the session had a tag; null where it was not asked. */
    adviceAt: (tag) => advised.get(tag) ?? null,

    /** Show how good the answer of a command is expected to be, what else there is, and where to click next. */
    async askAdvice({ session, objectId }) {
      const { tag } = store.get().session;
      try {
        const advice = { object_id: objectId(), ...(await api.advice(session, objectId())) };
        advised.set(tag, advice);
        if (tag === store.get().session.tag) store.set({ advice });
      } catch {
        // Without it the mask is the same.
      }
    },

    /** Begin with another scan. */
    forget() {
      told = "";
      advised.clear();
    },
  };
}
