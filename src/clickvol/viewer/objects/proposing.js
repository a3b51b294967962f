// A first mask from an automatic model, where the server has one: shown as the object's, until it is accepted or rejected.

import { byId } from "../page.js";
import { t } from "../strings/strings.js";

/**
 * Make what asks for a proposal. It comes in as a given mask, so that undo, the record and its replay know it; any further change
 * accepts it.
 *
 * @param {Record<string, any>} parts `api`, `store`, `scene`, `notify` and `session`.
 */
export function makeProposing({ api, store, scene, notify, session }) {
  const isUntouched = () => {
    const { session: now, pending, working } = store.get();
    return !now.can_undo && !now.can_redo && !pending.length && !working;
  };

  function show({ voxels, place_ras_mm }) {
    const done = (isAnswered) => {
      store.set({ proposal: isAnswered ? { tag: store.get().session.tag } : null });
      if (isAnswered) scene.goTo(place_ras_mm);
    };
    session.shape({ kind: "given_mask", voxels }, { says: t("Showing the proposal"), asks: false, done });
  }

  const acts = {
    acceptProposal: () => store.get().proposal?.tag && store.set({ proposal: null }),
    rejectProposal() {
      if (!store.get().proposal?.tag) return;
      session.undo();
      store.set({ proposal: null });
    },
    /** Tell whether a proposal is still to be accepted or rejected, and say so. */
    isUndecided() {
      const isOpen = Boolean(store.get().proposal?.tag);
      if (isOpen) notify("info", t("accept the proposal first (Y), or reject it (Q)"));
      return isOpen;
    },
    /** Ask for a proposal on a scan that was opened, unless something is on it already. */
    async propose(opened) {
      if (!store.get().model?.proposer || !isUntouched()) return;
      store.set({ proposal: { tag: null } });
      try {
        const given = await api.proposal(opened.session_id);
        if (opened !== store.get().opened) return;
        if (given.voxels && isUntouched()) return show(given);
        if (!given.voxels) notify("info", t("{model} proposes nothing here", { model: given.model_id }));
      } catch (error) {
        notify("error", error.message ?? String(error));
      }
      if (opened === store.get().opened) store.set({ proposal: null });
    },
    writeProposal({ proposal, session: { tag }, model, working }) {
      if (proposal?.tag && proposal.tag !== tag && !working) return store.set({ proposal: null });
      byId("proposal").hidden = !proposal;
      byId("proposal-choice").hidden = !proposal?.tag;
      if (!proposal) return undefined;
      const words = { model: model?.proposer ?? "" };
      byId("proposal-text").textContent = proposal.tag ? t("Proposal of {model}", words) : t("{model} looks for a proposal", words);
      return undefined;
    },
  };
  byId("accept").addEventListener("click", acts.acceptProposal);
  byId("reject").addEventListener("click", acts.rejectProposal);
  return acts;
}
